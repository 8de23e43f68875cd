"""`optevo compare`: what it refuses, before anything is trained or read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import said
from comparing import (
    BUDGET,
    a_run,
    config,
    create,
    cut_off,
    drawn,
    measured,
    searched,
    tables,
    text,
    untrained,
)

from optevo import keys
from optevo.liveness.lost import worker_identity
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.optim.terms.genome import TermGenome


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
