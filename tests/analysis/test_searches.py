"""`analysis.searches`: ways to search compared, and what the results page says of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import searches

ROOT = Path(__file__).parents[2]


def test_all_ways_have_the_same_evaluation_but_for_their_rates():
    configs = {way: searches.variant(way, 3) for way in searches.WAYS}
    for way, config in configs.items():
        assert (config.seed, config.evaluation.seeds) == (3, (60,))
        assert config.evaluation.steps == configs[searches.PARTICLE].evaluation.steps
        assert (config.evaluation.rates is None) == (way == searches.TERMS)
        assert (config.evaluation.screening is None) == (way != searches.PARTICLE)


def test_the_results_page_has_the_table_of_the_stored_searches():
    frame = pd.read_csv(ROOT / "studies" / "results" / "searches" / "searches.csv")
    assert set(frame["way"]) == set(searches.WAYS)
    assert (frame["steps"] > 0.85 * searches.BUDGET).all()
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for line in searches.said(frame):
        assert line in page
