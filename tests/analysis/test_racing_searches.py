"""`analysis.racing`: what gate and racing leave of a search, and what the results page says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis import racing

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results" / "racing"


def test_all_ways_have_the_same_study_but_for_gate_and_racing():
    configs = {way: racing.variant(way, 3) for way in racing.WAYS}
    plain = configs[racing.PLAIN]
    for way, config in configs.items():
        assert (config.seed, config.evaluation.seeds) == (3, (60, 61, 62, 63))
        same = config.evaluation.model_copy(update={"gate": False, "pruner": "none"})
        assert config.model_copy(update={"name": plain.name, "evaluation": same}) == plain
        assert (config.evaluation.pruner == "none") == (way == racing.PLAIN)


def test_a_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(2, 3, 20))  # with ties
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert racing.spearman(one, other) == pytest.approx(expected)
    assert np.isnan(racing.spearman(np.ones((1, 4)), np.arange(4.0)[None]))


def test_the_results_page_has_the_tables_of_the_stored_searches():
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    searches, ranks, replays = (
        pd.read_csv(RESULTS / f"{name}.csv") for name in ("searches", "agreement", "replays")
    )
    assert set(searches["way"]) == set(racing.WAYS)
    lines = [*racing.said(searches), *racing.said_of_agreement(ranks), *racing.said_of_replay(replays)]
    for generations in (25, 50):
        lines += racing.said(pd.read_csv(RESULTS / f"{generations}_generations" / "searches.csv"))
    for line in lines:
        assert line in page


def test_what_is_stored_of_a_saved_study_is_that_of_its_runs():
    study = racing.saved("own_search")
    for name, made in (("agreement", racing.agreement), ("replays", racing.replay)):
        stored = pd.read_csv(RESULTS / f"{name}.csv").query("study == 'own_search'").reset_index(drop=True)
        pd.testing.assert_frame_equal(made(*study), stored, check_exact=False, atol=1e-4)
