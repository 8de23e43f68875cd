"""Studies whose winner is to be measured on the test split, and measurements as they lie in a storage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
from measuring import Memory
from small_studies import config as small_config

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.measurement import ablation as variants
from optevo.measurement import test_split as final
from optevo.measurement.ablation import measure_variants
from optevo.measurement.pool import form_of, run_key
from optevo.measurement.test_split import (
    Plan,
    measure_test_split,
    next_evaluation,
)
from optevo.optim.terms.presets import PRESETS
from optevo.study.config import StudyConfig
from optevo.study.studies import create_or_resume
from optevo.training.bench import Bench
from optevo.training.run import Run

TASKS = ["digits", "measuring:Other"]


def config(tasks: list[str] = TASKS, **changes: Any) -> StudyConfig:
    sampler = {"kind": "genetic", "population_size": 2, "n_generations": 1, "n_elites": 0}
    return small_config(
        sampler=sampler,
        **{
            "evaluation__tasks": tasks,
            "evaluation__steps": 3,
            "rerun": {"candidates": 2, "seeds": 2},
            **changes,
        },
    )


def create(one: StudyConfig, trials: int = 2) -> optuna.Study:
    study = create_or_resume(one, Memory(), "cpu")
    if trials:
        study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=trials)
    return study


def measured(study: optuna.Study, one: Plan, budget: StudyConfig | None = None) -> final.TestEvaluation:
    return measure_test_split(study, budget or config(), one, devices=["cpu"], data_root=Path())


def plan(study: optuna.Study, one: StudyConfig, winner: int, *, again: bool = False, **said: int) -> Plan:
    reading = next_evaluation([(study, one, winner)]) if again else 1
    return final.plan(study, one, winner, number=reading, **said)


def own(study: optuna.Study, prefix: str = keys.FINAL) -> dict[str, Any]:
    return {key: value for key, value in study.user_attrs.items() if key.startswith(prefix)}


def a_run(task: str = "digits", seed: int = 1000, metric: float | None = 0.5, **changes: Any) -> Run:
    run = Run(task, seed, -1.0 if metric is None else metric, metric, 1.0, (1.0,), 3, 0.1, None)
    return dataclasses.replace(run, diverged_at=2 if metric is None else None, **changes)


def put(study: optuna.Study, attempt: int = 1, seeds: tuple[int, ...] = (1000, 1001), trial: int = 1) -> None:
    """A finished measurement of two tasks, as it lies in the storage."""
    header = {"trial": trial, "steps": 4, "seeds": list(seeds), "environment": {}}
    study.set_user_attr(f"{keys.FINAL}{attempt}", header)
    # From the last to the first: no order of the database's is to be relied on.
    for seed in reversed(seeds):
        for i, task in reversed(list(enumerate(("digits", "other")))):
            run = dataclasses.asdict(a_run(task, seed, metric=attempt / 10 + i / 100))
            candidate = config().make_space().candidate(study.trials[trial].params)
            study.set_user_attr(run_key(f"{keys.FINAL}{attempt}:4:", form_of(candidate), i, seed), run)


def without(study: optuna.Study, ending: str) -> optuna.Study:
    """The study as it was before the attributes with this ending."""
    other = create(config(), trials=0)
    other.add_trials(study.trials)
    for key, value in study.user_attrs.items():
        if not key.endswith(ending):
            other.set_user_attr(key, value)
    return other


def measured_variants(study: optuna.Study, one: StudyConfig, **changes: Any) -> dict[str, tuple[Run, ...]]:
    candidates = {name: PRESETS[name] for name in ("adam", "rmsprop")}
    said = {"steps": 4, "n_seeds": 2, "progress": lambda done: None, **changes}
    budget = variants.variants_config(one, said["steps"], said["n_seeds"])
    return measure_variants(
        study, budget, candidates, devices=["cpu"], data_root=Path(), progress=said["progress"]
    )
