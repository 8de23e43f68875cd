"""Constraints as Optuna's own samplers have them: feasible members before infeasible ones."""

from __future__ import annotations

import math
import pickle

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optevo import keys
from optevo.samplers import GeneticSampler, ParticleSampler
from optevo.samplers.slots import SlotTable

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def above_one(trial: optuna.trial.FrozenTrial) -> tuple[float]:
    return (1 - trial.params["x"],)


def ranked(*members: tuple[float | None, TrialState, dict[str, float]]) -> list[int]:
    """Numbers of a generation's members, best first; values are minimized."""
    trials = [
        create_trial(state=state, value=value, constraints=constraints, system_attrs={keys.CLAIM: [0, i]})
        for i, (value, state, constraints) in enumerate(members)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    table = SlotTable(len(trials), 1, 3)
    table.update(trials, StudyDirection.MINIMIZE)
    return [member.slot.index for member in table.populations[0]]


def test_feasible_ones_are_first_and_the_others_by_how_much_they_miss():
    whole, pruned = TrialState.COMPLETE, TrialState.PRUNED
    assert ranked(
        (0.0, whole, {"a": 2.0, "b": -9.0}),
        (1.0, whole, {"a": 0.5, "b": 0.5}),
        (None, pruned, {}),
        (9.0, whole, {"a": 0.0}),
        (5.0, pruned, {}),
        (8.0, whole, {}),
    ) == [5, 3, 4, 1, 0, 2]


@pytest.mark.parametrize("kind", [GeneticSampler, ParticleSampler])
def test_constraints_are_stored_as_optuna_stores_them_and_steer_the_search(kind: type):
    sizes = {"population_size": 10, "n_elites": 2} if kind is GeneticSampler else {"initial_size": 10}
    sizes |= {"n_particles": 2, "n_mutations": 4} if kind is ParticleSampler else {}
    sampler = kind(**sizes, seed=1, constraints_func=above_one)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=40)
    for trial in study.trials:
        assert trial.system_attrs["constraints"] == (1 - trial.params["x"],)
        assert trial.constraints == {"0": 1 - trial.params["x"]}
    assert 1 <= study.best_trial.params["x"] < 2  # Optuna's best is a feasible one
    last = [t.params["x"] for t in study.trials[-10:]]
    assert sum(x >= 0.5 for x in last) >= 7


def test_constraints_that_a_trial_sets_itself_count_alike():
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -5, 5)
        trial.set_constraint("above one", 1 - x)
        return x**2

    given = GeneticSampler(population_size=8, n_elites=2, seed=1, constraints_func=above_one)
    studies = []
    for sampler in (given, GeneticSampler(population_size=8, n_elites=2, seed=1)):
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective if sampler is not given else lambda t: t.suggest_float("x", -5, 5) ** 2, 26)
        studies.append([trial.params for trial in study.trials])
    assert studies[0] == studies[1]


def test_pruned_trials_have_constraints_and_failed_ones_none():
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", -5, 5)
        if trial.number == 1:
            raise RuntimeError
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=GeneticSampler(population_size=4, seed=0, constraints_func=above_one))
    study.optimize(objective, n_trials=3, catch=RuntimeError)
    assert ["constraints" in trial.system_attrs for trial in study.trials] == [True, False, True]


def test_a_constraint_that_is_no_number_is_an_error():
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=4, seed=0, constraints_func=lambda trial: (math.nan,))
    )
    with pytest.raises(ValueError, match="NaN"):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


def test_a_sampler_with_constraints_can_be_pickled():
    sampler = pickle.loads(pickle.dumps(GeneticSampler(population_size=4, constraints_func=above_one)))
    assert sampler.constraints_func is above_one
