"""`optevo report`: which studies it compares, and which it says it does not."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from comparing import (
    a_run,
    config,
    create,
    drawn,
    measured,
    searched,
    tables,
)

from optevo.measurement.fresh_seeds import Result, Row, store_result


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


@pytest.mark.parametrize("order", [("search", "sweep"), ("sweep", "search")])
def test_differences_have_one_sign_in_whatever_order_studies_are_named(compare, optevo, order):
    measured("search", drawn(0))
    measured("sweep", drawn(1), space={"kind": "adamw"}, sampler={"kind": "tpe", "n_trials": 2})
    assert compare(*order).status == 0
    (row,) = tables()["differences"].to_dict("records")
    assert (row["study"], row["reference"]) == ("search", "sweep")
    assert optevo("report", *reversed(order)).status == 0
    assert "search − sweep" in words()
    assert f"{row['mean']:.4f}".replace("-", "−") in words()
    assert "the first study minus the second" in words()


def test_a_report_takes_the_reference_that_compare_took(compare, optevo):
    for i, name in enumerate("abc"):
        measured(name, drawn(i)) if name != "c" else searched(name)
    assert compare("a", "b", "--reference", "b").status == 0
    assert optevo("report", "a", "b", "--reference", "b").status == 0
    assert "a − b" in words()
    assert optevo("report", "a", "b", "c", "--reference", "c").status == 0  # which has not been measured
    assert "c is not compared" in words()
    assert "b − a" in words()


def test_a_report_of_measured_studies_compares_them(compare, optevo):
    for i, name in enumerate("ab"):
        measured(name, drawn(i))
    assert optevo("report", "a", "b").status == 0
    assert "is not compared" not in words()
    assert "b − a" in words()
