"""The published fitness of a run and of a trial."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optevo.training.fitness import DIVERGED, FINAL_STEPS, LOSS_BONUS, MAX_LOSS, combine, fitness

metrics = st.floats(0, 1)
losses = st.floats(0, 50)


def test_the_constants_are_the_published_ones():
    assert (MAX_LOSS, FINAL_STEPS, DIVERGED, LOSS_BONUS) == (50.0, 50, -1.0, 0.05)


@pytest.mark.parametrize(
    ("metric", "loss", "expected"),
    [(0.9, 0.2, 0.9 + 0.05 * 0.8), (0.9, 1.0, 0.9), (0.9, 3.0, 0.9), (0.0, 0.0, 0.05), (1.0, 0.0, 1.05)],
)
def test_fitness_is_metric_plus_a_twentieth_of_one_minus_loss(metric: float, loss: float, expected: float):
    assert fitness(metric, loss) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("metric", "loss"), [(None, None), (None, 0.1), (0.9, None)])
def test_a_diverged_run_is_worth_minus_one(metric: float | None, loss: float | None):
    assert fitness(metric, loss) == -1.0


@given(metrics, losses)
def test_every_run_that_did_not_diverge_beats_one_that_did(metric: float, loss: float):
    assert fitness(metric, loss) > DIVERGED


@given(metrics, losses, losses)
def test_a_lower_loss_never_lowers_fitness(metric: float, first: float, second: float):
    assert fitness(metric, min(first, second)) >= fitness(metric, max(first, second))


@pytest.mark.parametrize(("metric", "loss"), [(math.nan, 0.5), (0.5, math.nan)])
def test_a_fitness_is_never_nan(metric: float, loss: float):
    assert fitness(metric, loss) == DIVERGED


def test_combine_is_the_mean_over_seeds_then_tasks():
    assert combine({"a": [0.0, 1.0], "b": [1.0]}) == 0.75


@given(st.lists(st.lists(st.floats(-1, 1.05), min_size=1, max_size=4), min_size=1, max_size=4))
def test_every_task_weighs_the_same(values: list[list[float]]):
    runs = {str(i): task for i, task in enumerate(values)}
    means = [math.fsum(task) / len(task) for task in values]
    assert combine(runs) == pytest.approx(math.fsum(means) / len(means), abs=1e-12)
