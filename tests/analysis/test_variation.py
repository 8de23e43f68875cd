"""`analysis.variation`: two strengths of mutation compared, and what the results page says of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import variation
from analysis.viable import APART
from optevo.study.config import load_config

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results" / "variation"


def test_two_searches_of_a_seed_differ_in_name_and_sampler_alone():
    config = load_config(variation.STUDY)
    published, stronger = (variation.variant(config, 3, one) for one in variation.WAYS)
    assert (published.seed, published.evaluation.seeds) == (3, (60, 61))
    assert published.sampler == config.sampler
    assert stronger.model_copy(update={"name": published.name}) == published
    assert len(config.evaluation.seeds) + variation.CHOOSING + variation.SAYING <= APART


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("searches", variation.said),
        ("tried", variation.tried),
        ("generations", variation.diversity),
    ],
)
def test_the_results_page_has_the_tables_of_the_searches(name, said):
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert "\n".join(said(pd.read_csv(RESULTS / f"{name}.csv"))) in page
