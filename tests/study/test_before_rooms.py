"""Studies that were begun before the modules moved into rooms open, compare and go on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from command_line import dump

from optevo import keys
from optevo.measurement import pool as measuring
from optevo.storage.opening import open_storage
from optevo.study.environment import environment
from optevo.study.studies import check_environment, is_complete, load_study

DATA = Path(__file__).parents[1] / "data"
EXPECTED = json.loads((DATA / "before_rooms.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def _database(here: None) -> None:
    """The database of then, as if with this machine's torch."""
    with sqlite3.connect("optevo.db") as connection:
        connection.executescript((DATA / "before_rooms.sql").read_text("utf-8"))
        connection.execute(
            "UPDATE study_user_attributes SET value_json = json_set(value_json, '$.torch', ?) WHERE key = ?",
            (environment("")["torch"], keys.ENVIRONMENT),
        )
    connection.close()


def opened(name: str) -> tuple[optuna.Study, Any]:
    return load_study(open_storage("sqlite:///optevo.db"), name)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_study_begun_then_goes_on_to_the_parameters_of_then(name: str):
    """With the fitness of then told for each slot, every later proposal is what that optevo made of it."""
    study, config = opened(name)
    check_environment(study)
    space, expected = config.make_space(), {tuple(row["slot"]): row for row in EXPECTED[name]}
    before = len(study.trials)
    assert before < len(expected)
    while not is_complete(study):
        trial = study.ask()
        params = space.suggest(trial)
        row = expected[keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]]
        assert params == row["params"]
        trial.set_user_attr(keys.CANONICAL, space.candidate(params).canonical())
        study.tell(trial, row["value"])
    assert len(study.trials) == len(expected)


def test_comparing_shows_what_was_measured_then_and_trains_nothing(
    optevo: Any, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was to be trained again")

    monkeypatch.setattr(measuring, "processes", refuse)
    before = dump()
    compared = optevo("compare", "muon", "adamw", "terms")
    assert compared.status == 0, compared
    summary = pd.read_csv("comparison/summary.csv")
    pd.testing.assert_frame_equal(summary, pd.read_csv(DATA / "before_rooms_summary.csv"))
    ablated = optevo("ablate", "terms", "--seeds", "2")
    assert ablated.status == 0, ablated
    assert optevo("report", "muon", "terms").status == 0
    assert dump() == before


def test_every_study_of_then_shows_its_winner(optevo: Any):
    status = optevo("status").out
    for name in ("muon", "adamw", "terms"):
        assert "complete" in next(line for line in status.splitlines() if f" {name} " in line)
        assert "fitness" in optevo("show", "--study", name).out
