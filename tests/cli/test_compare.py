"""`optevo compare`: numbers that can be recomputed, read once, and what a reader must know beside them."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from command_line import said
from comparing import (
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
    untrained,
    winner_of,
)
from measuring import Inline, Memory
from scipy import stats

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.liveness.lost import worker_identity
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.measurement.pool import form_of, run_key
from optevo.optim.terms.genome import TermGenome
from optevo.reporting.statistics import BETTER, UNDECIDED, WORSE
from optevo.storage import opening
from optevo.study.studies import is_complete
from optevo.tasks.vision import Digits
from optevo.training.bench import Bench

TABLES = {"comparison.md", "runs.csv", "summary.csv", "differences.csv", "studies.csv"}
SEEDS = (1000, 1001, 1002)
BUDGET = ("--steps", "4", "--seeds", "2", "--device", "cpu", "--workers", "1")


@pytest.fixture
def compare(optevo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command, on a database that lies in memory, since making a file takes most of a test's time."""
    memory = Memory()
    monkeypatch.setattr(opening, "open_storage", lambda url, create=False: memory)
    return lambda *arguments: optevo("compare", *arguments)


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


# From the search to the tables


def test_two_trained_studies_are_compared_and_the_tables_written(compare, pool):
    trained("first")
    trained("second", seed=9)
    answer = compare("first", "second", *BUDGET)
    assert answer.status == 0, answer
    assert {path.name for path in Path("comparison").iterdir()} == TABLES
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


def test_a_diverged_run_counts_zero_and_is_named(compare):
    measured("good", {"digits": [0.5, 0.6, 0.7]})
    measured("wild", {"digits": [0.9, None, 0.9]})
    answer = compare("good", "wild")
    assert answer.status == 0, answer
    found = tables()
    row = found["summary"].set_index("study").loc["wild"].iloc[0]
    assert row["mean"] == pytest.approx(0.6)
    assert row["diverged"] == 1
    assert found["differences"]["mean"].iloc[0] == pytest.approx((0.4 - 0.6 + 0.2) / 3, abs=1e-12)
    wild = found["runs"][found["runs"]["study"] == "wild"].set_index("seed")
    assert math.isnan(wild.loc[1001, "metric"])
    assert wild.loc[1001, "diverged_at"] == 2
    for shown in (text(), answer.out):
        assert "wild: 1 of 3 runs diverged; they count 0" in shown
        assert "good: " not in shown


def test_a_diverged_run_counts_minus_one_in_fitness_and_is_not_said_to_count_zero(compare):
    measured("wild", {"digits": [0.9, None, 0.9]})
    answer = compare("wild", "--measure", "fitness")
    assert tables()["summary"]["mean"].iloc[0] == pytest.approx((0.91 - 1 + 0.91) / 3)
    for shown in (text(), answer.out):
        assert "wild: 1 of 3 runs diverged" in shown
        assert "count 0" not in shown


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


# Refusals


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"evaluation__tasks": ["mnist"]}, "evaluation.tasks"),
        ({"evaluation__tasks": [{"name": "digits", "options": {"x": 1}}]}, "evaluation.tasks"),
        ({"evaluation__batch_size": 64}, "evaluation.batch_size"),
        ({"evaluation__precision": "bfloat16"}, "evaluation.precision"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_studies_that_do_not_pair_are_refused_with_the_key(compare, changes: dict[str, Any], key: str):
    searched("first")
    searched("second", **changes)
    said(compare("first", "second"), "first", "second", key)
    assert not Path("comparison").exists()
    assert untrained("first") == {}


def test_a_study_that_is_named_twice_is_refused(compare):
    measured("first", drawn(0))
    said(compare("first", "first"), "first", "twice")


def test_a_search_that_is_not_over_is_refused(compare, pool):
    searched("done")
    create(config("begun"))
    said(compare("done", "begun", *BUDGET), "begun", "not complete")
    assert pool.asked == []
    assert untrained("done") == {}
    assert not Path("comparison").exists()


def test_a_study_that_is_not_there_is_refused(compare):
    searched("done")
    said(compare("done", "other"), "other", "done")


def test_a_study_that_names_no_winner_is_refused(compare):
    study = searched("quiet")
    study.set_user_attr(keys.CONFIG, config("quiet", rerun={"candidates": 0}).to_dict())
    said(compare("quiet"), "quiet", "candidates = 0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--reference", "third"), ["third", "first, second"]),
        (("--measure", "speed"), ["speed", "metric", "fitness"]),
        (("--steps", "0"), ["--steps"]),
        (("--seeds", "0"), ["--seeds"]),
        (("--workers", "0"), ["--workers"]),
        (("--output", "file"), ["file"]),
        (("--output", "file/below"), ["file"]),
        (("--output", "x" * 300), ["xxx"]),
        (("--device", "gpu"), ["gpu", "cpu"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_bad_option_is_refused_and_nothing_is_trained(
    compare,
    pool,
    options: tuple[str, ...],
    words: list[str],
):
    Path("file").write_text("mine")
    searched("first")
    searched("second")
    said(compare("first", "second", *options), *words)
    assert pool.asked == []
    assert Path("file").read_text() == "mine"
    assert not Path("comparison").exists()
    assert untrained("first") == untrained("second") == {}


@pytest.mark.parametrize("options", [("--steps", "5"), ("--seeds", "4")], ids=" ".join)
def test_a_measured_study_is_not_measured_with_another_budget(compare, options: tuple[str, ...]):
    measured("a", drawn(0))
    before = untrained("a")
    said(compare("a", *options), "'a'", "test split", options[0])
    assert untrained("a") == before


def test_studies_of_different_budgets_are_refused_before_any_is_measured(compare, pool):
    measured("a", drawn(0))
    searched("fresh")
    said(compare("a", "fresh"), "a: 4 steps × 3 seeds", "fresh: 1000 steps × 3 seeds", "--steps")
    assert pool.asked == []
    assert untrained("fresh") == {}


def test_a_winner_that_is_no_longer_the_measured_trial_is_not_shown_beside_its_numbers(compare):
    """[rerun] was changed, and another trial won since."""
    study = measured("a", drawn(0))
    runs = (a_run("digits", 5, 0.9), a_run("digits", 6, 0.9))
    store_result(study, config("a"), Result(0, (Row("trial 0", 0.0, runs),)))
    said(compare("a"), "trial 1")


def test_a_cut_off_reading_of_another_winner_is_left_by_again(compare, pool):
    study = measured("a", {"digits": [0.1, 0.2]})
    cut_off(study)
    runs = (a_run("digits", 5, 0.9), a_run("digits", 6, 0.9))
    store_result(study, config("a"), Result(0, (Row("trial 0", 0.0, runs),)))
    said(compare("a"), "trial 1", "--again")
    answer = compare("a", "--again", *BUDGET)
    assert answer.status == 0, answer
    assert "this is reading 2 of the test split" in answer.out
    assert len(pool.asked) == 2
    assert compare("a").status == 0  # and it is the one that is shown
    assert set(tables()["runs"]["trial"]) == {0}


def test_going_on_with_a_first_reading_is_no_second_one(compare, pool):
    study = measured("a", {"digits": [0.1, 0.2]})
    cut_off(study)
    answer = compare("a", "--again", *BUDGET)
    assert answer.status == 0
    assert len(pool.asked) == 1
    assert "second reading" not in answer.out


def test_a_later_optevothat_writes_forms_otherwise_shows_what_was_read(compare, pool, monkeypatch):
    searched("a")
    assert compare("a", *BUDGET).status == 0
    asked, first = len(pool.asked), text()
    monkeypatch.setattr(TermGenome, "canonical", lambda self: f"another form of {self!r}")
    assert compare("a", *BUDGET).status == 0
    assert (len(pool.asked), text()) == (asked, first)


def test_a_winner_whose_runs_all_diverge_is_not_said_to_have_no_test_split(compare):
    measured("a", {"digits": [None, None]})
    answer = compare("a")
    assert "2 of 2 runs diverged" in answer.out
    assert "no test split" not in answer.out


def test_a_task_that_is_called_as_the_mean_is_refused_before_anything_is_read(compare, pool):
    searched("a", [{"name": "measuring:Overall"}])
    said(compare("a", *BUDGET), "'overall'")
    assert pool.asked == []
    assert untrained("a") == {}


def test_other_versions_are_no_silent_second_environment(compare, pool):
    study = searched("a")
    study.set_user_attr(keys.ENVIRONMENT, {**study.user_attrs[keys.ENVIRONMENT], "torch": "1.0"})
    said(compare("a", *BUDGET), "torch: 1.0", "--accept-environment")
    assert pool.asked == []


@pytest.mark.parametrize("state", ["live", "dead"])
def test_two_at_once_do_not_read_the_split_twice(compare, pool, state: str):
    study = searched("a")
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    header = {"trial": 1, "steps": 4, "seeds": [1000, 1001], "environment": {}}
    study.set_user_attr(f"{keys.FINAL}1", {**header, "worker": worker_identity("cpu", other.pid)})
    if state == "dead":
        other.kill()
        other.wait()
    answer = compare("a", *BUDGET)
    if state == "dead":
        assert answer.status == 0, answer
        assert len(pool.asked) == 2
    else:
        said(answer, f"process {other.pid}", "is measuring")
        assert pool.asked == []
    other.kill()
    other.communicate()


# The report


def words(path: str = "report.html") -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", Path(path).read_text(encoding="utf-8"))))


def test_a_report_needs_no_reading_of_the_test_split(compare, optevo):
    searched("a")
    answer = optevo("report", "a")
    assert answer.status == 0, answer
    assert "Comparison" not in words()
    create(config("b"))  # nothing evaluated yet
    assert optevo("report", "a", "b").status == 0


def test_a_report_says_which_studies_it_does_not_compare(compare, optevo):
    measured("a", drawn(0))
    searched("b")
    moved = measured("c", drawn(1))
    runs = (a_run("digits", 5, 0.9), a_run("digits", 6, 0.9))
    store_result(moved, config("c"), Result(0, (Row("trial 0", 0.0, runs),)))
    answer = optevo("report", "a", "b", "c")
    assert answer.status == 0, answer
    assert "b is not compared: `optevo compare` has not measured its winner" in words()
    assert "c is not compared: trial 1 was measured, and is not its winner now" in words()


def test_a_report_of_measured_studies_compares_them(compare, optevo):
    for i, name in enumerate("ab"):
        measured(name, drawn(i))
    assert optevo("report", "a", "b").status == 0
    assert "is not compared" not in words()
    assert "b − a" in words()


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
