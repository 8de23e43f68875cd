"""A trial's user attributes are its user's: ours have a prefix, or lie in system attributes."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optevo import keys
from optevo.samplers import GeneticSampler

THEIRS: dict[str, Any] = {name.lower(): f"mine {name}" for name in vars(keys) if name.isupper()}


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_study_without_a_study_file_has_nobody_elses_user_attributes(asynchronous: bool):
    sampler = GeneticSampler(population_size=3, n_elites=1, seed=0, asynchronous=asynchronous)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"x": 0.5}, user_attrs=THEIRS)
    study.enqueue_trial({"x": 0.25}, user_attrs={"is_optimal": True})
    study.optimize(objective, n_trials=8)
    assert [trial.user_attrs for trial in study.trials] == [THEIRS, {"is_optimal": True}, *[{}] * 6]
    lineages = [keys.ours(trial) for trial in study.trials]
    assert [one[keys.GENERATION] for one in lineages] == [0, 0, 0, 1, 1, 2, 2, 3]
    assert [one[keys.ORIGIN] for one in lineages[:3]] == ["enqueued", "enqueued", "random"]
    assert all(len(one[keys.PARENTS]) == 2 for one in lineages[3:])


def test_an_objective_reads_where_its_own_trial_comes_from():
    seen = []

    def look(trial: optuna.Trial) -> float:
        trial.set_user_attr("generation", 99)
        seen.append(keys.ours(trial))
        return objective(trial)

    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=1, seed=0))
    study.optimize(look, n_trials=3)
    assert [(one[keys.GENERATION], one[keys.SLOT]) for one in seen] == [(0, 0), (0, 1), (1, 0)]


OLD = {
    "generation": 2,
    "slot": 5,
    "parents": [1, 3],
    "origin": "mutation",
    "formula": "Δ = g",
    "fitness:a": 1.0,
}


@pytest.mark.parametrize(
    ("user", "system", "expected"),
    [
        (OLD, {keys.CLAIM: [2, 5]}, {f"optevo:{key}": value for key, value in OLD.items()}),
        (OLD, {}, {}),  # somebody's own, before the trial has a slot
        ({"generation": 99}, {keys.CLAIM: [2, 5]}, {keys.GENERATION: 2, keys.SLOT: 5}),
        (
            {**OLD, keys.FORMULA: "Δ = m"},
            {keys.CLAIM: [0, 1]},
            {keys.GENERATION: 0, keys.SLOT: 1, keys.FORMULA: "Δ = m"},
        ),
        (
            OLD,
            {keys.CLAIM: [0, 1], keys.PARENTS: [], keys.ORIGIN: "random"},
            {keys.GENERATION: 0, keys.SLOT: 1, keys.PARENTS: [], keys.ORIGIN: "random"},
        ),
        (OLD, {keys.CLAIM: None}, {}),  # given up
    ],
)
def test_what_is_ours_is_known_with_and_without_the_prefix(user: Any, system: Any, expected: Any):
    trial = create_trial(state=TrialState.FAIL, user_attrs=user, system_attrs=system)
    assert keys.ours(trial) == expected
