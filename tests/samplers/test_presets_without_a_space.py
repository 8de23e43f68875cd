"""Presets out of somebody's table, where only the objective knows the space."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optevo import keys
from optevo.samplers import GeneticSampler

RIGHT = {"n": 7, "x": 0.25, "k": "bb", "flag": True}


def objective(trial: optuna.Trial) -> float:
    trial.suggest_categorical("k", ["a", "bb", "ccc"])
    trial.suggest_categorical("flag", [True, False])
    return trial.suggest_int("n", 0, 100) + trial.suggest_float("x", 0, 1)


def study_of(preset: dict[str, Any], **options: Any) -> optuna.Study:
    return optuna.create_study(sampler=GeneticSampler(population_size=4, seed=1, presets=[preset], **options))


@pytest.mark.parametrize(
    "preset",
    [
        RIGHT,
        {"n": np.int64(7), "x": np.float32(0.25), "k": np.str_("bb"), "flag": np.bool_(True)},
        {"n": 7.0, "x": np.float64(0.25), "k": "bb", "flag": True},
        {"n": np.uint8(7), "x": np.float16(0.25), "k": "bb", "flag": True},
    ],
)
def test_a_preset_is_what_its_trial_evaluates_whichever_library_made_its_numbers(preset: dict[str, Any]):
    study = study_of(preset)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.params == RIGHT
    assert [type(trial.params[name]) for name in RIGHT] == [int, float, str, bool]
    assert keys.ours(trial)[keys.ORIGIN] == "preset"


def test_what_a_preset_does_not_name_is_drawn():
    study = study_of({"n": 7})
    study.optimize(objective, n_trials=1)
    assert study.trials[0].params["n"] == 7
    assert study.trials[0].params["x"] not in (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("n", 700), ("n", 7.5), ("n", True), ("n", "7"), ("n", None), ("n", np.int64(-1))],
        *[("x", 1.1), ("x", float("nan")), ("x", np.float32("inf")), ("x", False)],
        *[("k", "b"), ("k", 1), ("flag", 1), ("flag", "True")],
    ],
)
def test_a_value_that_the_objective_does_not_allow_is_refused_by_name(name: str, value: Any):
    study = study_of({**RIGHT, name: value})
    with pytest.raises(ValueError, match=f"Invalid preset: {name} = "):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


def test_a_name_that_the_objective_does_not_know_is_refused_and_no_preset():
    study = study_of({"n": 7, "X": 0.25, "k": "bb"})
    with pytest.raises(ValueError, match="Invalid preset: trial 0 suggested no 'X'"):
        study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert keys.ours(trial)[keys.ORIGIN] == "random"
    study.optimize(objective, n_trials=9)
    assert len(study.trials) == 10


@pytest.mark.parametrize(
    "option", ["population_size", "n_elites", "tournament_size", "n_generations", "seed"]
)
@pytest.mark.parametrize("value", [2.5, "3", 2.0])
def test_a_size_that_is_no_whole_number_is_refused(option: str, value: Any):
    with pytest.raises(TypeError, match=f"Invalid {option}: {value!r}, expected a whole number"):
        GeneticSampler(**{option: value})


def test_numpys_whole_numbers_are_whole_numbers():
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=np.int64(4), n_elites=np.int8(1), seed=np.int32(1))
    )
    study.optimize(objective, n_trials=9)
    plain = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=1))
    plain.optimize(objective, n_trials=9)
    assert [trial.params for trial in study.trials] == [trial.params for trial in plain.trials]
