"""The spaces of baselines: what is drawn, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from baseline_studies import (
    every_baseline,
)
from optuna.distributions import FloatDistribution

from optevo.spaces import SPACES, BaselineSpace


@every_baseline
def test_draws_lie_in_the_distributions(name: str):
    space, rng = SPACES[name].make(), np.random.default_rng(0)
    for _ in range(200):
        drawn = space.sample(rng)
        assert drawn.keys() == space.distributions().keys()
        for key, distribution in space.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(drawn[key]))


def test_draws_are_log_uniform_above_zero_and_uniform_from_zero():
    space, rng = BaselineSpace("adam", lr=[1e-4, 1e-2], weight_decay=[0.0, 1.0]), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(2000)]
    for key, middle in (("lr", 1e-3), ("weight_decay", 0.5)):
        assert np.mean([one[key] < middle for one in drawn]) == pytest.approx(0.5, abs=0.06)
    assert space.distributions() == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(0.0, 1.0),
    }


def test_the_same_generator_draws_the_same():
    space = SPACES["lion"].make()
    assert space.sample(np.random.default_rng(5)) == space.sample(np.random.default_rng(5))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"lr": 1e-3},
        {"lr": -1e-3, "weight_decay": 0.0},
        {"lr": float("nan"), "weight_decay": 0.0},
        {"lr": 1e-3, "weight_decay": float("inf")},
        {"lr": "x", "weight_decay": 0.0},
        {"lr": True, "weight_decay": 0.0},
    ],
    ids=str,
)
def test_stored_parameters_that_are_missing_or_no_numbers_are_refused(params: dict[str, Any]):
    with pytest.raises(ValueError, match=r"lr|weight_decay"):
        SPACES["adam"].make().candidate(params)


def test_a_baselines_space_does_not_evolve():
    space, one = SPACES["adam"].make(), {"lr": 1e-3, "weight_decay": 0.0}
    with pytest.raises(TypeError, match="adam"):
        space.vary([one, one], np.random.default_rng(0), 1.0)
