"""Studies to compare: searched and measured without any training."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from small_studies import config as small_config

import optevo.run  # noqa: F401  it binds what the tests replace, and must not do so while it is replaced
from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.measurement.pool import form_of, run_key
from optevo.spaces import Candidate
from optevo.storage import opening
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, is_complete
from optevo.training.bench import Bench
from optevo.training.run import Run

ONE = {"kind": "genetic", "population_size": 2, "n_generations": 1, "n_elites": 0}
Scores = Mapping[str, Sequence[float | None]]


def config(name: str, tasks: Sequence[Any] = ("digits",), **changes: Any) -> StudyConfig:
    rerun = {"candidates": 1, "seeds": 2}
    return small_config(
        name=name, **{"sampler": ONE, "evaluation__tasks": list(tasks), "rerun": rerun, **changes}
    )


def create(one: StudyConfig) -> optuna.Study:
    return create_or_resume(one, opening.open_storage("sqlite:///optevo.db", create=True), "cpu")


def a_run(task: str, seed: int, metric: float | None) -> Run:
    fitness = -1.0 if metric is None else metric + 0.01
    return Run(task, seed, fitness, metric, None if metric is None else 0.8, (1.0,), 4, 0.1,
               2 if metric is None else None)  # fmt: skip


def put_final(study: optuna.Study, scores: Scores, attempt: int = 1, steps: int = 4, trial: int = 1) -> None:
    """A measurement on the test split, as it lies in the storage."""
    tasks = [task["name"] for task in study.user_attrs[keys.CONFIG]["evaluation"]["tasks"]]
    assert {*tasks} == {*scores}
    n = len(next(iter(scores.values())))
    seeds = list(range(1000, 1000 + n))
    header = {"trial": trial, "steps": steps, "seeds": seeds, "environment": {"torch": "x"}}
    study.set_user_attr(f"{keys.FINAL}{attempt}", header)
    for i, task in enumerate(tasks):
        for seed, metric in zip(seeds, scores[task], strict=True):
            run = dataclasses.asdict(a_run(task, seed, metric))
            study.set_user_attr(
                run_key(f"{keys.FINAL}{attempt}:{steps}:", form_of(winner_of(study, trial)), i, seed),
                run,
            )


def winner_of(study: optuna.Study, trial: int = 1) -> Candidate:
    one = parse_config(study.user_attrs[keys.CONFIG], "stored")
    return one.make_space().candidate(study.get_trials(deepcopy=False)[trial].params)


def searched(name: str, tasks: Sequence[Any] = ("digits",), **changes: Any) -> optuna.Study:
    """A study whose search is over and whose best was measured again, without any training."""
    one = config(name, tasks, **changes)
    study, space = create(one), one.make_space()

    def evaluate(trial: optuna.Trial) -> float:
        candidate = space.candidate(space.suggest(trial))
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        trial.set_user_attr(keys.FORMULA, candidate.formula())
        trial.set_user_attr(keys.HYPERPARAMETERS, candidate.describe())
        trial.set_user_attr(keys.TRAINED_STEPS, 5)
        trial.set_user_attr(keys.SECONDS, 3.0)
        return 0.1 * trial.number

    study.optimize(evaluate, n_trials=one.n_trials)
    names = [task.name for task in one.evaluation.tasks]
    runs = tuple(a_run(task, seed, 0.5 + seed / 100) for task in names for seed in (1, 2))
    store_result(study, one, Result(1, (Row("trial 1", 0.1, runs),)))
    for i, run in enumerate(runs):
        study.set_user_attr(f"{keys.FRESH}0123456789ab:{i // 2}:{run.seed}", dataclasses.asdict(run))
    return study


def measured(name: str, scores: Scores, **changes: Any) -> optuna.Study:
    study = searched(name, list(scores), **changes)
    put_final(study, scores)
    return study


def drawn(seed: int, shift: float = 0.0, tasks: Sequence[str] = ("digits",)) -> Scores:
    rng = np.random.default_rng(seed)
    return {task: (0.5 + shift + rng.normal(0, 0.01, 3)).tolist() for task in tasks}


def tables(folder: str = "comparison") -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in Path(folder).glob("*.csv")}


def text(folder: str = "comparison") -> str:
    return (Path(folder) / "comparison.md").read_text(encoding="utf-8")


def untrained(name: str) -> dict[str, Any]:
    attrs = optuna.load_study(study_name=name, storage=opening.open_storage("sqlite:///optevo.db")).user_attrs
    return {key: value for key, value in attrs.items() if key.startswith(keys.FINAL)}


def cells_of(line: str) -> list[str]:
    """A markdown row's cells, unescaped."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells]


NAMES = [
    "a|b",
    "[red]x[/red]",
    "<b>bold</b>",
    "**x**",
    "`x`",
    "$x$",
    "a\\|b",
    ":smile:",
    "two\nlines",
    "=1+2",
]


BUDGET = ("--steps", "4", "--seeds", "2", "--device", "cpu", "--workers", "1")


def trained(name: str, **changes: Any) -> optuna.Study:
    """A study whose search is over, its trials really trained."""
    one = config(name, **{"evaluation__steps": 3, **changes})
    study = create(one)
    study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=one.n_trials)
    assert is_complete(study)
    return study


def cut_off(study: optuna.Study) -> None:
    """As if the last run of its measurement had not been made."""
    stored = study._storage._backend if hasattr(study._storage, "_backend") else study._storage
    del stored._studies[study._study_id].user_attrs[
        run_key(f"{keys.FINAL}1:4:", form_of(winner_of(study)), 0, 1001)
    ]
