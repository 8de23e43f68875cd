"""`--json`: one value on standard output alone, that any parser reads, with the keys of the page."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comparing
import numpy as np
import optuna
import pandas as pd
import pytest
from command_line import stored
from comparing import drawn, measured, searched
from optuna.trial import TrialState, create_trial

from optevo import keys
from optevo.api.result import SearchResult
from optevo.cli import options
from optevo.cli.json_output import json_ready, print_json
from optevo.cli.status import KEYS
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.reporting import frames, top

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")


def parsed(text: str) -> Any:
    """Strictly: what JSON does not have, such as NaN, fails."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def documented(command: str) -> set[str]:
    """The keys that the page names for a command."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{command} --json` |")]
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_whatever_is_told_becomes_json() -> None:
    frame = pd.DataFrame({"a": [1.0, math.nan], "b": pd.array([1, None], dtype="Int64")})
    value = {
        "nan": [math.nan, math.inf, -math.inf, np.float32("nan")],
        "numbers": (np.int64(3), np.float64(0.5), True, 10**20),
        "frame": frame,
        "path": Path("a"),
        "missing": (pd.NA, pd.NaT, None),
        3: datetime.date(2024, 1, 2),
    }
    assert json_ready(value) == {
        "nan": [None] * 4,
        "numbers": [3, 0.5, True, 10**20],
        "frame": [{"a": 1.0, "b": 1}, {"a": None, "b": None}],
        "path": "a",
        "missing": [None] * 3,
        "3": "2024-01-02",
    }


@pytest.mark.parametrize("text", ["Δ = √v", "\x1b[2J", "\u202e", "\ud800", "a\nb"])
def test_a_text_comes_back_as_it_was_and_steers_no_terminal(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json([text])
    out = capsys.readouterr().out
    assert json.loads(out) == [text]
    assert out.replace("\n", "").isprintable()


def test_status_and_top_and_show_are_told_as_json(optevo: Callable[..., Any]) -> None:
    study = stored(trials=3)
    stored("future").set_user_attr(keys.SCHEMA, 99)
    optuna.create_study(study_name="theirs", storage="sqlite:///optevo.db")
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={keys.ERROR: "x\nValueError: \x1b[2J"}))
    told = {
        "status": optevo("status", "--json"),
        "top": optevo("top", "2", "tiny", "--json"),
        "show": optevo("show", "1", "--study", "tiny", "--json"),
        "failed": optevo("show", "3", "--study", "tiny", "--json"),
    }
    assert {(answer.status, answer.err) for answer in told.values()} == {(0, "")}
    found = {name: parsed(answer.out) for name, answer in told.items()}
    one, *others = found["status"]["studies"]
    assert {*one} == {*KEYS, "workers"} == documented("status") - {"storage", "studies"}
    assert (one["study"], one["trials"], one["n_trials"], one["error"]) == ("tiny", 3, 3, None)
    assert one["best"] == pytest.approx(study.best_value)
    assert [{*other} for other in others] == [{*one}] * 2
    assert "newer" in others[0]["error"]
    assert "not made by optevo" in others[1]["error"]
    best = found["top"]["trials"]
    assert {*best[0]} == {*top.TOP} == documented("top") - {"study", "split", "trials"}
    assert best[0]["number"] == study.best_trial.number
    assert best[0]["fitness"] >= best[1]["fitness"]
    shown = found["show"]
    assert {*shown} == documented("show")
    assert shown["params"] == study.trials[1].params
    assert {*frames.TRIALS} < {*shown}
    assert shown["runs"][0]["metric"] == keys.ours(study.trials[1])[keys.RUNS][0]["metric"]
    assert (shown["fresh_seeds"], found["failed"]["fitness"], found["failed"]["runs"]) == ([], None, [])


def test_the_winner_is_shown_with_its_fresh_seeds(in_memory: Callable[..., Any]) -> None:
    searched("tiny")
    (row,) = parsed(in_memory("show", "--json").out)["fresh_seeds"]
    assert (row["optimizer"], row["n_seeds"], row["diverged"]) == ("trial 1", 2, 0)
    assert row["metrics"]["digits"]["mean"] == pytest.approx(0.515)


def test_a_winner_that_did_not_lead_the_search_is_explained(in_memory: Callable[..., Any]) -> None:
    study = searched("tiny")
    assert "led the search" not in in_memory("show").out
    runs = tuple(comparing.a_run("digits", seed, 0.5) for seed in (1, 2))
    store_result(study, comparing.config("tiny"), Result(0, (Row("trial 0", 0.0, runs),)))
    said = " ".join(in_memory("show").out.split())
    assert "led the search: trial 1 with 0.1000; on fresh seeds trial 0 is ahead" in said
    told = SearchResult(study, comparing.config("tiny"))
    assert "led the search: trial 1 with 0.1000" in repr(told)
    assert "led the search" in told._repr_html_()


def test_a_comparison_is_told_as_json_where_a_run_has_diverged(compare: Callable[..., Any]) -> None:
    measured("first", drawn(0))
    measured("second", {"digits": [0.5, None, 0.5]})
    answer = compare("first", "second", "--json")
    assert answer.status == 0
    assert "tables are in comparison/" in answer.err
    found = parsed(answer.out)
    assert {*found} == documented("compare") - {"summary", "differences", "costs", "runs", "budget"}
    (reading,) = found["readings"]
    assert {*reading} == {"summary", "differences", "costs", "runs", "budget"}
    last = reading["summary"][-1]
    assert (last["study"], last["diverged"], last["mean"], last["sd"]) == ("second", 1, None, None)
    assert found["reference"] == "first"


def test_what_a_winner_is_made_of_is_told_as_json(ablate: Callable[..., Any], pool: Any) -> None:
    searched("tiny")
    answer = ablate("tiny", "--steps", "2", "--seeds", "2", "--json")
    assert answer.status == 0, answer
    assert "--adamw" in answer.err
    found = parsed(answer.out)
    assert {*found} == documented("ablate")
    assert (found["study"], found["adamw"], found["account"]) == ("tiny", None, [])
    assert found["variants"][0]["difference"] is None


def test_data_are_told_as_json(optevo: Callable[..., Any]) -> None:
    answer = optevo("data", "check", "digits", "--json", "--data-dir", "nowhere")
    found = parsed(answer.out)
    assert {*found, *found["files"][0]} == documented("data check")
    assert found["files"][0]["found"] is True


def test_a_refusal_leaves_standard_output_empty_and_the_next_command_prints_there(
    optevo: Callable[..., Any],
) -> None:
    answer = optevo("status", "--json", "--storage", "sqlite:///no.db")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("optevo: ")
    stored(trials=1)
    assert "tiny" in optevo("status").out
    assert options.console.stderr is False


def test_top_prints_a_table_and_says_what_is_missing(optevo: Callable[..., Any]) -> None:
    stored(trials=2)
    told = optevo("top").out
    for words in ("the best of tiny", "fitness", "± over seeds", "0 of 1 runs", "Δ ="):
        assert words in told
    assert optevo("top", "0").status == optevo("top", "ten").status == 2
    stored("empty")
    answer = optevo("top", "3", "empty")
    assert answer.status == 2
    assert "no complete trial" in answer.err
    assert "several studies" in optevo("top").err


def test_spread_is_over_seeds_of_the_mean_over_tasks() -> None:
    study = optuna.create_study(direction="maximize")
    runs = [
        {
            "task": task,
            "seed": seed,
            "fitness": value,
            "metric": value,
            "loss": None,
            "losses": [],
            "steps": 1,
        }
        | {"seconds": 1.0, "diverged_at": None}
        for seed, values in ((0, (0.2, 0.6)), (1, (0.4, 1.0)))
        for task, value in zip(("one", "two"), values, strict=True)
    ]
    attrs = {keys.RUNS: runs, keys.CANONICAL: "a", keys.GENERATION: 0, keys.SLOT: 0}
    study.add_trial(create_trial(value=0.55, user_attrs=attrs))
    (row,) = top.top(study, 5).to_dict("records")
    assert row["spread"] == pytest.approx(np.std([0.4, 0.7], ddof=1))
    assert (row["n_runs"], row["diverged"]) == (4, 0)
