"""`optevo compare`: numbers that can be recomputed, read once, and what a reader must know beside them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from comparing import (
    BUDGET,
    NAMES,
    a_run,
    cells_of,
    config,
    create,
    drawn,
    measured,
    put_final,
    searched,
    tables,
    text,
    trained,
    untrained,
    winner_of,
)
from measuring import Inline
from scipy import stats

from optevo import keys
from optevo.errors import UserError
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.measurement.pool import form_of, run_key
from optevo.reporting.statistics import BETTER, UNDECIDED, WORSE
from optevo.tasks.vision import Digits

TABLES = {"comparison.md", "runs.csv", "summary.csv", "differences.csv", "studies.csv"}
SEEDS = (1000, 1001, 1002)


# From the search to the tables


def test_two_trained_studies_are_compared_and_the_tables_written(compare, pool):
    trained("first")
    trained("second", seed=9)
    answer = compare("first", "second", *BUDGET)
    assert answer.status == 0, answer
    assert {path.name for path in Path("comparison").iterdir()} == {*TABLES, "costs.csv"}
    runs = tables()["runs"]
    assert list(zip(runs["study"], runs["task"], runs["seed"], strict=True)) == [
        (study, "digits", seed) for study in ("first", "second") for seed in (1000, 1001)
    ]
    assert set(runs["steps"]) == {4}
    for words in ("first", "second", "test split", "4 steps", "comparison/"):
        assert words in " ".join(answer.out.split())


def test_asked_again_it_shows_the_same_without_training_and_without_data(
    optevo,
    pool,
    monkeypatch: pytest.MonkeyPatch,
):
    def gone(self: Digits, root: Path) -> None:
        raise UserError("no data")

    trained("first")
    trained("second", seed=9)
    assert optevo("compare", "first", "second", *BUDGET).status == 0
    before, trainings = (
        {path.name: path.read_bytes() for path in Path("comparison").iterdir()},
        len(pool.asked),
    )
    monkeypatch.setattr(Digits, "load", gone)
    monkeypatch.setattr(Inline, "lives", 0)
    for said_again in ((), BUDGET):
        answer = optevo("compare", "first", "second", *said_again)
        assert answer.status == 0, answer
        assert {path.name: path.read_bytes() for path in Path("comparison").iterdir()} == before
    assert len(pool.asked) == trainings


def test_the_measured_trial_is_the_winner_and_only_it(compare, pool):
    study = trained("first")
    assert compare("first", *BUDGET).status == 0
    winner = study.user_attrs[keys.RERUN]["winner"]
    candidate = config("first").make_space().candidate(study.trials[winner].params).canonical()
    final = [one.canonical() for one, _, seed in pool.asked if seed >= 1000]
    assert final == [candidate] * 2
    assert set(tables()["runs"]["trial"]) == {winner}


def test_a_single_study_has_tables_and_no_differences(compare):
    measured("only", drawn(0))
    answer = compare("only")
    assert answer.status == 0, answer
    assert {path.name for path in Path("comparison").iterdir()} == TABLES
    assert len(tables()["differences"]) == 0
    assert list(tables()["summary"]["study"].unique()) == ["only"]
    assert "aired" not in text() + answer.out


def test_two_studies_with_the_same_optimizer_are_a_tie(compare, pool):
    trained("first")
    trained("twin")
    answer = compare("first", "twin", *BUDGET)
    assert answer.status == 0, answer
    row = tables()["differences"].iloc[0]
    assert (row["mean"], row["low"], row["high"], row["p"], row["p_holm"]) == (0, 0, 0, 1, 1)
    assert row["verdict"] == UNDECIDED
    assert UNDECIDED in text()
    assert UNDECIDED in answer.out


# Numbers


@pytest.fixture
def three(compare) -> dict[str, pd.DataFrame]:
    """The tables of three studies on two tasks."""
    tasks = ("digits", "mnist")
    measured("a", drawn(0, tasks=tasks))
    measured("b", drawn(1, 0.2, tasks))
    measured("c", drawn(2, tasks=tasks[::-1]))  # in another order
    answer = compare("a", "b", "c")
    assert answer.status == 0, answer
    return tables()


def scores_of(runs: pd.DataFrame, study: str, task: str) -> np.ndarray:
    chosen = runs[(runs["study"] == study) & (runs["task"] == task)].sort_values("seed")
    assert list(chosen["seed"]) == list(SEEDS)
    return chosen["metric"].to_numpy()


def test_the_summary_follows_from_the_runs(three: dict[str, pd.DataFrame]):
    runs, summary = three["runs"], three["summary"]
    assert len(summary) == 9
    for _, row in summary.iterrows():
        if row["task"] == "overall":
            own = (scores_of(runs, row["study"], "digits") + scores_of(runs, row["study"], "mnist")) / 2
        else:
            own = scores_of(runs, row["study"], row["task"])
        assert row["mean"] == pytest.approx(own.mean(), rel=1e-12)
        assert row["sd"] == pytest.approx(own.std(ddof=1), rel=1e-9)
        assert (row["n"], row["diverged"]) == (3, 0)


def test_the_differences_follow_from_the_runs(three: dict[str, pd.DataFrame]):
    runs, differences = three["runs"], three["differences"].set_index(["study", "task"])
    assert len(differences) == 6
    assert set(differences["reference"]) == {"a"}
    for study in ("b", "c"):
        d = {t: scores_of(runs, study, t) - scores_of(runs, "a", t) for t in ("digits", "mnist")}
        for task, own in d.items():
            row, test = differences.loc[(study, task)], stats.ttest_1samp(own, 0)
            interval = test.confidence_interval(0.95)
            assert row["mean"] == pytest.approx(own.mean(), rel=1e-9)
            assert row["p"] == pytest.approx(test.pvalue, rel=1e-6)
            assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6)
            assert row["n"] == 3
        row = differences.loc[(study, "overall")]
        v = np.array([own.var(ddof=1) / 3 for own in d.values()])
        se, df = math.sqrt(v.sum()) / 2, v.sum() ** 2 / (v**2 / 2).sum()
        mean = np.mean([own.mean() for own in d.values()])
        half = se * stats.t.ppf(0.975, df)
        assert row["mean"] == pytest.approx(mean, rel=1e-9)
        assert (row["low"], row["high"]) == pytest.approx((mean - half, mean + half), rel=1e-6)
        cautious = math.sqrt(df * 2)  # see optevo.reporting.statistics
        assert row["p"] == pytest.approx(2 * stats.t.sf(abs(mean) / se, cautious), rel=1e-6)
        assert row["n"] == 6


def test_holms_correction_is_over_the_comparisons_overall_and_apart_over_those_by_task(
    three: dict[str, pd.DataFrame],
):
    differences = three["differences"]
    overall = differences["task"] == "overall"
    for family in (differences[overall], differences[~overall]):
        p = family["p"].to_numpy()
        order, adjusted, highest = np.argsort(p), np.empty(len(p)), 0.0
        for rank, i in enumerate(order):
            highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
            adjusted[i] = highest
        assert family["p_holm"].to_numpy() == pytest.approx(adjusted, rel=1e-9)


def test_a_clear_difference_is_called_by_its_sign_and_none_by_no_name(
    three: dict[str, pd.DataFrame], compare
):
    verdicts = three["differences"].set_index(["study", "task"])["verdict"]
    assert verdicts[("b", "overall")] == BETTER
    assert verdicts[("c", "overall")] == UNDECIDED
    assert compare("a", "b", "c", "--reference", "b").status == 0
    verdicts = tables()["differences"].set_index(["study", "task"])["verdict"]
    assert verdicts[("a", "overall")] == verdicts[("c", "overall")] == WORSE


def test_the_reference_is_the_first_study_or_the_named_one(compare):
    for name, seed in (("a", 0), ("b", 1)):
        measured(name, drawn(seed))
    assert compare("b", "a").status == 0
    first = tables()["differences"]
    assert (first["study"].tolist(), first["reference"].tolist()) == (["a"], ["b"])
    assert compare("b", "a", "--reference", "a").status == 0
    named = tables()["differences"]
    assert (named["study"].tolist(), named["reference"].tolist()) == (["b"], ["a"])
    assert named["mean"].iloc[0] == pytest.approx(-first["mean"].iloc[0])


def test_fitness_is_compared_where_it_is_asked_for(compare):
    for name, seed in (("a", 0), ("b", 1)):
        measured(name, drawn(seed))
    assert compare("a", "b", "--measure", "fitness").status == 0
    found = tables()
    for name in ("a", "b"):
        own = found["runs"][found["runs"]["study"] == name]["fitness"]
        row = found["summary"][found["summary"]["study"] == name].iloc[0]
        assert row["mean"] == pytest.approx(own.mean())
    assert "fitness" in text()


@pytest.mark.parametrize("measure", ["metric", "fitness"])
def test_a_study_with_a_diverged_run_is_below_any_other_and_says_so(compare, measure: str):
    measured("good", {"digits": [0.5, 0.6, 0.7]})
    measured("wild", {"digits": [0.9, None, 0.9]})
    answer = compare("good", "wild", "--measure", measure)
    assert answer.status == 0, answer
    found = tables()
    row = found["summary"].set_index("study").loc["wild"].iloc[0]
    assert (row["mean"], row["n"], row["diverged"]) == (-math.inf, 3, 1)
    assert math.isnan(row["sd"])
    compared = found["differences"].iloc[0]
    assert (compared["study"], compared["mean"], compared["p"]) == ("wild", -math.inf, 1.0)
    assert compared["verdict"] == "a run diverged: not compared"
    wild = found["runs"][found["runs"]["study"] == "wild"].set_index("seed")
    assert math.isnan(wild.loc[1001, measure])
    assert wild.loc[1001, "diverged_at"] == 2
    for shown in (text(), answer.out):
        assert f"wild: 1 of 3 runs diverged, which counts as less than any {measure}" in shown
        assert "diverged (1 of 3)" in shown
        assert "good: " not in shown
        assert not any(word in shown for word in ("inf", "nan", "−1.0", "-1.0"))


def test_the_studies_table_says_what_finding_the_winner_took(compare):
    measured("a", drawn(0))
    assert compare("a").status == 0
    row = tables()["studies"].iloc[0]
    assert (row["study"], row["winner"], row["selected_on"]) == ("a", "trial 1", "validation")
    assert (row["trials"], row["search_steps"], row["rerun_steps"]) == (2, 10, 8)
    assert row["search_hours"] == pytest.approx(6 / 3600, abs=1e-4)
    assert row["search_fitness"] == pytest.approx(0.1)
    assert row["fresh_fitness"] == pytest.approx(np.mean([0.52, 0.53]))
    assert (row["fresh_n"], row["final_seeds"], row["final_steps"], row["test_reading"]) == (2, 3, 4, 1)


def test_the_text_names_every_test_that_was_made(compare):
    for name in ("a", "twin"):
        measured(name, drawn(0))
    measured("b", drawn(1))
    assert compare("a", "twin", "b").status == 0
    assert "t interval, paired t test" in text()


# Marks


def test_a_study_that_selected_on_the_test_split_is_marked(compare):
    measured("honest", drawn(0))
    measured("vain", drawn(1), evaluation__split="test")
    answer = compare("honest", "vain")
    for shown in (text(), answer.out):
        assert "vain was selected on the test split" in shown
        assert "vain (selected on test)" in re.sub(r"\\", "", shown)
        assert "honest was selected" not in shown
    assert list(tables()["studies"]["selected_on"]) == ["validation", "test"]


def test_a_second_reading_is_marked_for_good(compare, pool):
    study = measured("a", {"digits": [0.1, 0.2]})
    first = untrained("a")
    answer = compare("a", "--again", *BUDGET)
    assert answer.status == 0, answer
    assert "--again" in answer.out
    assert len(pool.asked) == 2
    assert first.items() <= untrained("a").items()
    for _ in range(2):
        answer = compare("a")
        for shown in (text(), answer.out):
            assert "this is reading 2 of the test split" in shown
        assert set(tables()["runs"]["reading"]) == {2}
    assert len(pool.asked) == 2
    assert study.user_attrs[f"{keys.FINAL}1"] == first[f"{keys.FINAL}1"]


def test_a_first_reading_has_no_mark(compare):
    measured("a", drawn(0))
    answer = compare("a")
    for shown in (text(), answer.out):
        assert "reading" not in shown.lower()
        assert "**" not in shown


@pytest.mark.parametrize(
    ("lr", "decay", "marked"),
    [
        ([1e-3, 1e-2], [0.1], {"lr"}),
        ([1e-2], [0.1], set()),
        ([1e-2], [0.0, 0.1], {"weight_decay"}),
        ([1e-2], [0.1, 0.2], {"weight_decay"}),
    ],
)
def test_a_sweep_whose_best_lies_at_an_end_is_marked(compare, lr: list[float], decay: list[float], marked):
    one = config("sweep", space={"kind": "adamw", "lr": lr, "weight_decay": decay}, sampler={"kind": "grid"})
    study = create(one)

    def evaluate(trial: optuna.Trial) -> float:
        params = one.make_space().suggest(trial)
        trial.set_user_attr(keys.CANONICAL, one.make_space().candidate(params).canonical())
        return params["lr"] + params["weight_decay"]

    study.optimize(evaluate, n_trials=one.n_trials)
    best = study.best_trial.number
    runs = (a_run("digits", 1, 0.5), a_run("digits", 2, 0.5))
    store_result(study, one, Result(best, (Row(f"trial {best}", 0.1, runs),)))
    put_final(study, drawn(0), trial=best)
    answer = compare("sweep")
    assert answer.status == 0, answer
    assert {name for name in ("lr", "weight_decay") if f"its best {name}," in answer.out} == marked


# Names


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_in_its_cell(compare, name: str):
    measured(name, drawn(0))
    measured("other", drawn(1))
    answer = compare("--", "other", name)
    assert answer.status == 0, answer
    shown = name.replace("\n", "\\n")
    lines = text().splitlines()
    rows = [cells_of(line) for line in lines if line.startswith("|")]
    header = rows[0]
    assert header[0] == "study"
    assert [row[0] for row in rows[2:4]] == ["other", shown]
    assert {len(row) for row in rows[:4]} == {len(header)}
    assert f"{shown} − other" in [row[0] for row in rows]
    for key in ("runs", "summary", "studies"):
        assert list(tables()[key]["study"].unique()) == ["other", name]
    assert shown[:5] in answer.out


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "x** <b>y</b>", "`x`"])
def test_a_name_in_headings_and_marks_is_no_markup(compare, name: str):
    measured(name, drawn(0), evaluation__split="test")
    assert compare("--", name).status == 0
    for line in text().splitlines():
        for raw in ("<img", "<b>", "x** <", "`x`"):
            assert not re.search(rf"(?<!\\){re.escape(raw)}", line)


def test_a_task_of_another_module_is_compared(compare):
    one = "measuring:Other"
    study = searched("a", [one])
    header = {"trial": 1, "steps": 4, "seeds": [1000, 1001], "environment": {}}
    study.set_user_attr(f"{keys.FINAL}1", header)
    for seed in (1000, 1001):
        run = json.loads(json.dumps(dataclasses.asdict(a_run("other", seed, 0.5))))
        study.set_user_attr(run_key(f"{keys.FINAL}1:4:", form_of(winner_of(study)), 0, seed), run)
    answer: Any = compare("a")
    assert answer.status == 0, answer
    assert "other" in set(tables()["summary"]["task"])
