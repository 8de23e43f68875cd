"""`analysis.viable`: two searches compared at equal training steps, and what the results page says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import viable
from optevo import keys
from optevo.storage.study_file import read_study
from optevo.study.config import load_config
from optevo.study.studies import best_trials, load_study

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"
SEARCHES = STUDIES / "results" / "viable" / "searches.csv"


@pytest.fixture
def quickstart(quiet_optuna: None):
    path = STUDIES / "results" / "quickstart" / "quickstart.json"
    return load_study(read_study(path), "quickstart")[0]


def test_two_searches_of_a_seed_differ_in_the_key_alone():
    config = load_config(STUDIES / "reduced.toml")
    plain, wanted = (viable.variant(config, 3, way) for way in viable.WAYS)
    assert (plain.seed, plain.evaluation.seeds) == (3, (60, 61))
    assert wanted.space.model_dump() == {**plain.space.model_dump(), "viable": True}
    assert wanted.model_copy(update={"space": plain.space, "name": plain.name}) == plain
    assert plain.model_copy(update={"seed": 0, "name": "reduced"}).space == config.space
    assert max(plain.evaluation.seeds) + 2 * config.rerun.seeds < 80  # the first seed of the next search


def test_a_budget_holds_the_trials_that_were_decided_within_it(quickstart):
    whole = viable.steps_of(quickstart)
    assert len(viable.finished(quickstart)) == len(quickstart.trials)
    assert [t.number for t in viable.best(viable.finished(quickstart), 3)] == [
        t.number for t in best_trials(quickstart, 3)
    ]
    half = viable.finished(quickstart, whole / 2)
    steps = sum(keys.ours(trial)[keys.TRAINED_STEPS] for trial in half)
    others = [t for t in viable.finished(quickstart) if t not in half]
    assert 0 < steps <= whole / 2 < steps + keys.ours(others[0])[keys.TRAINED_STEPS]
    assert max(t.datetime_complete for t in half) <= min(t.datetime_complete for t in others)
    found = [viable.finished(quickstart, share * whole) for share in (0.2, 0.5, 1.0)]
    values = [viable.best(trials, 1)[0].value for trials in found]
    assert values == sorted(values)
    assert viable.best(viable.finished(quickstart, 0), 3) == []


def test_the_results_page_has_the_table_of_the_searches():
    frame = pd.read_csv(SEARCHES)
    *table, draws = viable.said(frame)
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert "\n".join(table) in page
    random, bred, ms = re.findall(r"\d+\.\d+", draws)
    assert f"{ms} ms a gate, {random} draws a random genome, {bred} a\nchild" in page
    assert all(sorted(ways) == sorted(viable.WAYS) for _, ways in frame.groupby("search_seed")["way"])


def test_the_table_is_paired_by_search():
    rows = [
        {"search_seed": s, "way": way, "best_all": 0.1 * s + gain, "draws_random": 2.0}
        for s in (2, 0, 1)
        for way, gain in (("viable", 0.01), ("plain", 0.0))
    ]
    assert viable.difference(pd.DataFrame(rows), "best_all") == pytest.approx([0.01] * 3)
