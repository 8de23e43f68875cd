"""The command line as the tests type it, and small studies in a storage for it to find."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume
from optevo.training.bench import Bench

TINY = """
name = "tiny"

[space]
presets = ["sgd", "adam"]

[sampler]
kind = "genetic"
population_size = 2
n_generations = 1
n_elites = 0

[evaluation]
tasks = ["digits"]
steps = 3
seeds = [0]

[rerun]
candidates = 1
seeds = 2
"""


HOSTILE = [
    "[red]",
    "[/red]",
    "[bold",
    "../x",
    "a/b",
    "'",
    '"""',
    "\\",
    "x\\N{DEGREE SIGN}",
    "{name}",
    "%s",
    "Größe 探索 🧬",
    "x" * 200,
    "two\nlines",
    "--help",
    "-",
    " ",
    ":smile:",
]


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def run(*arguments: str, **environment: str) -> Answer:
    """The command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "optevo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def config(name: str = "tiny", **changes: Any) -> StudyConfig:
    data: dict[str, Any] = {
        "name": name,
        "space": {"presets": ["sgd", "adam"]},
        "sampler": {"kind": "genetic", "population_size": 3, "n_generations": 1, "n_elites": 0},
        "evaluation": {"tasks": ["digits"], "steps": 3, "seeds": [0]},
    }
    return parse_config({**data, **changes}, "test")


def stored(
    name: str = "tiny", trials: int = 0, url: str = "sqlite:///optevo.db", **changes: Any
) -> optuna.Study:
    """A study in the storage with so many evaluated trials."""
    one = config(name, **changes)
    study = create_or_resume(one, open_storage(url, create=True), "cpu")
    if trials:
        study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=trials)
    return study


def told(name: str) -> None:
    """A study in the storage with one trial that nobody trained."""
    study = stored(name)
    space, trial = config(name).make_space(), study.ask()
    candidate = space.candidate(space.suggest(trial))
    trial.set_user_attr(keys.CANONICAL, candidate.canonical())
    trial.set_user_attr(keys.FORMULA, candidate.formula())
    trial.set_user_attr(keys.HYPERPARAMETERS, candidate.describe())
    study.tell(trial, 0.5)


def said(answer: Answer, *words: str) -> None:
    """Refused as the user's mistake."""
    assert answer.status == 2, answer
    assert "Traceback" not in answer.out + answer.err
    assert answer.err.strip()
    for word in words:
        assert word in answer.err


def dump() -> list[str]:
    with contextlib.closing(sqlite3.connect("optevo.db")) as connection:
        return list(connection.iterdump())


def write(text: str, name: str = "study.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name
