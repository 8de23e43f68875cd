"""Several objectives, ranked as NSGA-II ranks."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.samplers.nsgaii._elite_population_selection_strategy import _calc_crowding_distance
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import TrialState, create_trial

from optevo.samplers import GeneticSampler, ParticleSampler, populations
from optevo.samplers.fronts import crowding, fronts

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("constrained", [False, True])
def test_ranks_are_those_of_optuna(seed: int, constrained: bool):
    rng = np.random.default_rng(seed)
    losses = rng.integers(0, 6, (30, 2 + seed)).astype(float)  # with ties
    missed = np.where(rng.random(30) < 0.5, 0.0, rng.integers(1, 4, 30)) if constrained else np.zeros(30)
    theirs = _fast_non_domination_rank(losses, penalty=missed if constrained else None)
    assert fronts(losses.tolist(), missed.tolist()) == theirs.tolist()


def test_crowding_is_that_of_optuna():
    losses = np.random.default_rng(0).random((12, 3))
    trials = [create_trial(values=list(row), state=TrialState.COMPLETE) for row in losses]
    for number, trial in enumerate(trials):
        trial.number = number
    theirs = _calc_crowding_distance(trials)
    assert crowding(losses.tolist()) == pytest.approx([theirs[i] for i in range(12)])
    assert fronts([], []) == []
    assert crowding([[1.0, 2.0]]) == [math.inf]


def two(trial: optuna.Trial) -> tuple[float, float]:
    """Accuracy against cost, say: the best of either cost the other."""
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return x - y, x**2 + y


def test_a_search_comes_to_a_front():
    sampler = GeneticSampler(population_size=20, n_elites=10, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(two, n_trials=110)
    found = populations(study)
    assert len(found) == 10
    last = [member.values for member in found[9]]
    first = fronts([(-a, b) for a, b in last], [0.0] * len(last))
    assert first == sorted(first)  # best first
    assert sum(front == 0 for front in first) >= 10
    assert {m.number for m in found[9]} <= {t.number for t in study.trials}
    random = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    random.optimize(two, n_trials=110)
    assert len(study.best_trials) > 1.5 * len(random.best_trials)


def test_the_order_of_the_objectives_counts_for_nothing():
    found = []
    for order in (1, -1):
        sampler = GeneticSampler(population_size=8, n_elites=4, seed=3)
        study = optuna.create_study(directions=["maximize", "minimize"][::order], sampler=sampler)
        study.optimize(lambda trial, order=order: two(trial)[::order], n_trials=8)
        ranked = populations(study)[0]
        losses = [[-m.values[::order][0], m.values[::order][1]] for m in ranked]
        found.append(fronts(losses, [0.0] * 8))
    assert found[0] == found[1] == sorted(found[0])


def test_particles_follow_one_objective_alone():
    study = optuna.create_study(directions=["minimize"] * 2, sampler=ParticleSampler(initial_size=50))
    with pytest.raises(ValueError, match="has one objective, the study has several"):
        study.ask()
