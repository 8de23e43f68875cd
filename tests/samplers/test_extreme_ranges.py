"""Ranges as wide as floats go, and as narrow."""

from __future__ import annotations

import math
import sys

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from optevo.samplers import GeneticSampler
from optevo.samplers.operators import contains, draw, mutate_value

MOST, LEAST = sys.float_info.max, 5e-324
RANGES: list[BaseDistribution] = [
    FloatDistribution(-MOST, MOST),
    FloatDistribution(-1e308, 1e308),
    FloatDistribution(0, MOST),
    FloatDistribution(LEAST, MOST, log=True),
    FloatDistribution(1e16, math.nextafter(1e16, math.inf), log=True),
    FloatDistribution(1e300, math.nextafter(1e300, math.inf), log=True),
    FloatDistribution(1.0, math.nextafter(1.0, 2.0), log=True),
    FloatDistribution(1.0, math.nextafter(1.0, 2.0)),
    FloatDistribution(LEAST, 2 * LEAST),
    FloatDistribution(LEAST, 2 * LEAST, log=True),
    FloatDistribution(0.0, LEAST),
    IntDistribution(-(10**300), 10**300),
    IntDistribution(1, 2**62, log=True),
    IntDistribution(10**17, 10**17 + 3),
    IntDistribution(10**17, 10**17 + 3, log=True),
    IntDistribution(-(2**50), 2**50, step=3),
]


@pytest.mark.parametrize("d", RANGES, ids=str)
def test_draws_and_mutations_stay_within(d: BaseDistribution):
    rng = np.random.default_rng(0)
    values = [draw(d, rng) for _ in range(50)]
    value = values[0]
    for _ in range(50):
        value = mutate_value(value, d, rng, 1.0)
        values.append(value)
    assert all(contains(d, value) for value in values)


@pytest.mark.parametrize("d", RANGES[:2], ids=str)
def test_the_widest_range_is_drawn_evenly(d: FloatDistribution):
    rng = np.random.default_rng(0)
    quarters = np.array([min(3, int((draw(d, rng) / d.high + 1) * 2)) for _ in range(2000)])
    assert np.bincount(quarters).min() > 420  # of 500, sd 19
    value, steps = 0.0, []
    for _ in range(500):
        other = mutate_value(value, d, rng, 1.0)
        steps += [abs(other / 2 - value / 2) / d.high] * (other != value)
        value = other
    assert 0.05 < float(np.mean(steps)) < 0.11  # of a Gaussian, 0.8 of its width, a tenth


@pytest.mark.parametrize("log", [False, True])
def test_both_ends_of_the_narrowest_range_are_found(log: bool):
    low = 1e16
    d, rng = FloatDistribution(low, math.nextafter(low, math.inf), log=log), np.random.default_rng(0)
    assert {draw(d, rng) for _ in range(50)} == {d.low, d.high}


@pytest.mark.parametrize(
    ("low", "high", "log"), [(-1e308, 1e308, False), (1e16, math.nextafter(1e16, math.inf), True)]
)
def test_a_study_over_such_a_range_goes_on(low: float, high: float, log: bool):
    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=1))
    study.optimize(lambda trial: abs(trial.suggest_float("x", low, high, log=log)) / 1e308, n_trials=40)
    assert all(low <= trial.params["x"] <= high for trial in study.trials)
