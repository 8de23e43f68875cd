"""Studies to look at, in every state that a study may be in; nothing is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import optuna
import pandas as pd
from optuna.storages import InMemoryStorage
from small_studies import config

from optevo import keys
from optevo.study.config import StudyConfig
from optevo.study.studies import create_or_resume, is_complete, load_study

Loaded = tuple[optuna.Study, StudyConfig]
ADAMW = {"kind": "adamw", "lr": [1e-4, 1e-3, 1e-2], "weight_decay": [0.0, 0.1]}
EVALUATION = {"tasks": ["digits", "mnist"], "steps": 20, "seeds": [0, 1]}
SUMMARY = pd.DataFrame(
    [("ours", "overall", 0.9, 0.01, 5), ("ours", "digits", 0.9, 0.02, 5), ("adam", "overall", 0.8, 0.01, 5)],
    columns=["study", "task", "mean", "sd", "n"],
)
DIFFERENCES = pd.DataFrame(
    [("ours", "adam", "overall", 0.1, 0.05, 0.15, 0.001, 0.002, 5, "better")],
    columns=["study", "reference", "task", "mean", "low", "high", "p", "p_holm", "n", "verdict"],
)


def run(task: str, seed: int, fitness: float, **changes: Any) -> dict[str, Any]:
    """A run of 20 steps as it is stored."""
    losses = [2.0 * 0.7**i for i in range(10)]
    ended = {"metric": fitness, "loss": losses[-1], "losses": losses, "steps": 20, "diverged_at": None}
    return {"task": task, "seed": seed, "fitness": fitness, "seconds": 0.5, **ended, **changes}


def evaluate(trial: optuna.Trial, settings: StudyConfig, runs: Callable[..., dict[str, Any]] = run) -> float:
    """What the objective writes, with a fitness of the parameters alone."""
    space = settings.make_space()
    params = space.suggest(trial)
    candidate = space.candidate(params)
    fitness = 1 - abs(params["lr"] - 0.003) - 0.01 * params.get("n_terms", 1)
    done = [runs(task.name, s, fitness) for task in settings.evaluation.tasks for s in (0, 1)]
    attrs = {
        keys.FORMULA: candidate.formula(),
        keys.HYPERPARAMETERS: candidate.describe(),
        keys.CANONICAL: candidate.canonical(),
        keys.RUNS: done,
        keys.TRAINED_STEPS: sum(one["steps"] for one in done),
        keys.SECONDS: 2.0,
        **{keys.FITNESS_PREFIX + one["task"]: fitness for one in done},
    }
    for key, value in attrs.items():
        trial.set_user_attr(key, value)
    trial.report(fitness, step=1)
    return fitness


def prune(trial: optuna.Trial, settings: StudyConfig) -> float:
    """Every trial diverges."""
    evaluate(trial, settings, lambda *args: run(*args, metric=None, loss=None, losses=[2.3], diverged_at=3))
    trial.set_user_attr(keys.PRUNED_BY, "diverged: digits, seed 0, step 3")
    trial.report(-1.0, step=2)
    raise optuna.TrialPruned


def sometimes(trial: optuna.Trial, settings: StudyConfig) -> float:
    """Every fourth trial diverges."""
    return prune(trial, settings) if trial.number % 4 == 3 else evaluate(trial, settings)


def scored(trial: optuna.Trial, settings: StudyConfig) -> float:
    """The task scores by itself: no losses."""
    return evaluate(trial, settings, lambda *args: run(*args, loss=None, losses=[], steps=0))


def fail(trial: optuna.Trial, settings: StudyConfig) -> float:
    """The task raises."""
    try:
        raise RuntimeError("no <b>luck</b>")
    finally:
        trial.set_user_attr(keys.ERROR, "Traceback\nRuntimeError: no <b>luck</b>")


def search(
    objective: Callable[[optuna.Trial, StudyConfig], float] = sometimes,
    n_trials: int | None = None,
    failures: int = 0,
    storage: InMemoryStorage | None = None,
    **changes: Any,
) -> Loaded:
    """A study as `load_study` returns it, after `failures` failed trials and so many more, None for all."""
    settings = config(**{"evaluation": EVALUATION, **changes})
    study = create_or_resume(settings, storage := storage or InMemoryStorage(), "cpu")
    if failures:
        study.optimize(lambda trial: fail(trial, settings), n_trials=failures, catch=RuntimeError)
    while n_trials != 0 and not is_complete(study):
        study.optimize(lambda trial: objective(trial, settings), n_trials=1)
        n_trials = None if n_trials is None else n_trials - 1
    return load_study(storage, settings.name)


def grid(objective: Callable[[optuna.Trial, StudyConfig], float] = evaluate, **changes: Any) -> Loaded:
    """A sweep of six points."""
    return search(objective, **{"space": ADAMW, "sampler": {"kind": "grid"}, **changes})


def tamper(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Change an attribute of a finished trial, as only the database's own tools can."""
    study.get_trials(deepcopy=False)[number].user_attrs[key] = value


STUDIES: dict[str, Callable[[], Loaded]] = {
    "complete": search,
    "empty": lambda: search(n_trials=0),
    "one trial": lambda: search(n_trials=1),
    "unfinished": lambda: search(n_trials=8),
    "all pruned": lambda: search(prune),
    "only failed": lambda: search(n_trials=0, failures=2),
    "some failed": lambda: search(failures=2),
    "scored by itself": lambda: search(scored),
    "random": lambda: search(sampler={"kind": "random", "n_trials": 8}),
    "tpe": lambda: search(sampler={"kind": "tpe", "n_trials": 8}),
    "asynchronous": lambda: search(sampler__asynchronous=True, n_trials=9),
    "grid": grid,
    "grid, pruned": lambda: grid(prune),
    "sweep by tpe": lambda: grid(sometimes, sampler={"kind": "tpe", "n_trials": 12}),
}


@functools.cache
def example(state: str) -> Loaded:
    """One of `STUDIES`, to be read and not changed."""
    return STUDIES[state]()
