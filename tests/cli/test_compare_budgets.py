"""`optevo compare` per step and per operation: each read once, shown together, and what a step costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from comparing import BUDGET, cells_of, config, drawn, measured, tables, text, trained, winner_of
from measuring import Inline

from optevo import keys
from optevo.errors import UserError
from optevo.measurement import pool as processes
from optevo.storage import opening
from optevo.study.studies import load_study
from optevo.tasks import get_task
from optevo.tasks.vision import Digits
from optevo.training.operations import operations_a_step

EQUAL = (*BUDGET, "--budget", "flops")
RANDOM = {"kind": "random", "n_trials": 2}
FLOPS = {"runs_flops.csv", "summary_flops.csv", "differences_flops.csv", "costs_flops.csv"}
STEPS = {"runs.csv", "summary.csv", "differences.csv", "costs.csv"}
BOTH = {"studies.csv", "comparison.md"}


@pytest.fixture
def two(compare: Any, pool: Any) -> None:
    """A dear optimizer's study and AdamW's, whose searches are over."""
    for kind in ("adamw", "muon"):
        space = {"kind": kind, "lr": [1e-3, 2e-3], "weight_decay": [0.1]}
        trained(kind, space=space, sampler=RANDOM)


def files() -> set[str]:
    return {path.name for path in Path("comparison").iterdir()}


def stored(name: str) -> dict[str, Any]:
    study = optuna.load_study(study_name=name, storage=opening.open_storage("sqlite:///optevo.db"))
    return {key: value for key, value in study.user_attrs.items() if key.startswith(keys.FINAL)}


def steps_of(frame: pd.DataFrame) -> dict[str, int]:
    return frame.groupby("study")["steps"].max().to_dict()


def check_costs() -> None:
    """The table says what is counted, and what the runs took."""
    costs, runs = tables()["costs"].set_index("study"), tables()["runs"]
    split = get_task("digits").load(Path())["train"]
    for name in ("muon", "adamw"):
        storage = opening.open_storage("sqlite:///optevo.db")
        study, _ = load_study(storage, name)
        winner = winner_of(study, study.user_attrs[keys.RERUN]["winner"])
        found, row = operations_a_step(get_task("digits"), winner, 128, split), costs.loc[name]
        assert (row["operations"], row["update"]) == (found.total, found.update)
        assert row["relative"] == pytest.approx(found.total / (found.model + found.adamw))
        assert row["update_relative"] == pytest.approx(found.update / found.adamw)
        own = runs[runs["study"] == name]
        assert row["seconds"] == pytest.approx(own["seconds"].sum() / own["steps"].sum(), abs=5e-3)
    assert costs.loc["adamw", "relative"] == costs.loc["adamw", "update_relative"] == 1
    line, *_ = [line for line in text().splitlines() if line.startswith("| adamw | digits | 4 ")]
    assert cells_of(line)[3:7] == ["4.01 million", "1.000 ×", "52.6 thousand", "1 ×"]


@pytest.mark.usefixtures("two")
def test_each_reading_is_made_once_and_then_both_are_shown(compare, pool, monkeypatch: pytest.MonkeyPatch):
    def gone(self: Digits, root: Path) -> None:
        raise UserError("no data")

    answer = compare("adamw", "muon", *EQUAL)
    assert answer.status == 0, answer
    assert files() == FLOPS | BOTH
    assert "the operations of 4 steps with AdamW" in " ".join(answer.out.split())
    assert steps_of(tables()["runs_flops"]) == {"adamw": 4, "muon": 1}
    kept, trainings = stored("muon"), len(pool.asked)
    assert compare("adamw", "muon", *EQUAL, "--again", "--workers", "1").status == 0
    assert len(pool.asked) == trainings + 4
    assert kept.items() <= stored("muon").items()

    trainings = len(pool.asked)
    answer = compare("adamw", "muon", *BUDGET)
    assert answer.status == 0, answer
    assert len(pool.asked) == trainings + 4
    assert files() == FLOPS | STEPS | BOTH
    assert steps_of(tables()["runs"]) == {"adamw": 4, "muon": 4}
    frames = (tables()[name].query("study == 'adamw'") for name in ("runs", "runs_flops"))
    pd.testing.assert_frame_equal(*(frame.drop(columns=["seconds", "reading"]) for frame in frames))
    assert set(tables()["runs"]["reading"]) == {1}
    assert set(tables()["runs_flops"]["reading"]) == {2}
    assert text().index("4 steps, seeds") < text().index("Measured with the operations of 4 steps with AdamW")
    out = " ".join(answer.out.split())
    assert out.index("test split, 4 steps") < out.index("test split, the operations of 4 steps with AdamW")
    assert "with the operations of 4 steps with AdamW: muon: this is reading 2" in out
    assert "4 steps: muon: this is reading 2" not in out

    check_costs()

    monkeypatch.setattr(Digits, "load", gone)
    before = {path.name: path.read_bytes() for path in Path("comparison").iterdir()}
    assert compare("adamw", "muon").status == 0
    assert {path.name: path.read_bytes() for path in Path("comparison").iterdir()} == before
    assert len(pool.asked) == trainings + 4


def test_readings_without_counts_have_no_table_of_costs(compare):
    measured("old", drawn(0))
    assert compare("old").status == 0
    assert "costs.csv" not in files()
    assert "operations" not in text()


@pytest.mark.usefixtures("two")
def test_a_reading_that_was_cut_off_goes_on_and_is_shown_beside_its_like(
    compare, pool, monkeypatch: pytest.MonkeyPatch
):
    assert compare("muon", "adamw", *BUDGET).status == 0
    monkeypatch.setattr(Inline, "lives", len(pool.asked) + 1)
    assert compare("muon", *EQUAL).status == 130
    assert stored("muon")[f"{keys.FINAL}flops1"]["operations"]
    monkeypatch.setattr(Inline, "lives", 1000)
    trainings = len(pool.asked)
    assert compare("muon", *EQUAL).status == 0
    assert len(pool.asked) == trainings + 1
    assert "Measured with 4 steps" in text()
    assert compare("muon", "adamw", *BUDGET).status == 0
    assert "Measured with" not in text()  # adamw has no reading of equal operations


def test_what_cannot_be_counted_is_measured_all_the_same(compare, pool, monkeypatch: pytest.MonkeyPatch):
    def failing(candidate: Any, task: int) -> None:
        raise ValueError("nothing to count")

    trained("first")
    monkeypatch.setattr(processes, "count", failing)
    monkeypatch.setattr(pool, "submit", _submit)
    answer = compare("first", *BUDGET)
    assert answer.status == 0, answer
    assert files() == (STEPS - {"costs.csv"}) | BOTH


def _submit(self: Inline, function: Any, *said: Any) -> Any:
    from concurrent.futures import Future  # noqa: PLC0415

    future: Any = Future()
    try:
        future.set_result(function(*said))
    except ValueError as error:
        future.set_exception(error)
    return future


def test_a_budget_that_there_is_not_is_told_with_those_that_are(compare):
    answer = compare("any", "--budget", "flop")
    assert answer.status == 2
    assert "did you mean 'flops'" in answer.err + answer.out


def test_runs_that_look_for_their_rate_have_no_equal_operations(compare, pool):
    rates = {"first": [1e-3], "more": [], "epochs": 1, "epoch_steps": 2, "full_epochs": 1, "threshold": 0}
    rates |= {"first_threshold": 0}
    space = {"kind": "adamw", "lr": [1e-3], "weight_decay": [0.1, 0.2]}
    trained("rated", space=space, sampler=RANDOM, evaluation__rates=rates)
    answer = compare("rated", *EQUAL)
    assert answer.status == 2
    assert "look for their own learning rate" in " ".join((answer.err + answer.out).split())
    assert not stored("rated")
    assert compare("rated", *BUDGET).status == 0
    assert tables()["costs"]["relative"].tolist() == [1]


def test_a_search_of_equal_operations_is_read_per_step_unless_told(compare, pool):
    one = config("equal", evaluation__budget="flops")
    assert one.evaluation.budget == "flops"
    trained("equal", evaluation__budget="flops")
    assert compare("equal", *BUDGET).status == 0
    assert set(tables()["runs"]["steps"]) == {4}
    assert files() == STEPS | BOTH
