"""Rank correlations and recall: as SciPy has them, with ties, with candidates that diverged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from optevo.reporting.correlation import correlation, top_k_recall


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("distinct", [3, 1000])
def test_rank_correlations_are_scipys_with_and_without_ties(distinct: int) -> None:
    first, second = rng().integers(0, distinct, (2, 40)).astype(float)
    second += first
    found = correlation(first, second, rng=rng(), resamples=200)
    assert found.n == 40
    assert found.spearman == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(first, second).statistic)


def test_intervals_are_percentiles_of_scipys_correlations_of_resampled_pairs() -> None:
    first, second = rng().standard_normal((2, 12))
    second += first
    found = correlation(first, second, rng=rng(), level=0.8, resamples=100)
    drawn = [np.repeat(np.arange(12), w) for w in rng().multinomial(12, np.full(12, 1 / 12), 100)]
    rho = [stats.spearmanr(first[i], second[i]).statistic for i in drawn]
    tau = [stats.kendalltau(first[i], second[i]).statistic for i in drawn]
    assert (found.low, found.high) == pytest.approx(np.quantile(rho, (0.1, 0.9)))
    assert (found.kendall_low, found.kendall_high) == pytest.approx(np.quantile(tau, (0.1, 0.9)))


def test_candidates_without_a_score_rank_last_and_tie() -> None:
    first = [None, 0.5, math.nan, -0.5, 0.9]
    assert correlation(first, [-math.inf, 2.0, -math.inf, 1.0, 3.0], rng=rng()).spearman == pytest.approx(1)
    assert correlation(first, [1.0, 3.0, 2.0, 0.0, 4.0], rng=rng()).spearman < 1


def test_a_ranking_that_ties_all_has_no_correlation() -> None:
    found = correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], rng=rng())
    assert math.isnan(found.spearman)
    assert math.isnan(found.kendall_high)


def test_the_same_generator_gives_the_same_interval() -> None:
    scores = rng().standard_normal((2, 20))
    assert correlation(*scores, rng=rng()) == correlation(*scores, rng=rng())


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [([1.0, 2.0], [1.0, 2.0], "2 candidates"), ([1.0, 2.0, 3.0], [1.0], "3 scores and 1")],
)
def test_too_few_or_other_candidates_are_refused(first: list[float], second: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        correlation(first, second, rng=rng())


def test_recall_is_the_share_of_the_seconds_best_that_the_first_finds() -> None:
    found = top_k_recall([5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 1.0, 4.0, 3.0, 2.0], 2)
    assert (found.share, found.chance) == (0.5, 0.4)
    assert top_k_recall([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 3).share == 1


def test_ties_at_the_last_place_share_it() -> None:
    """One of the second's two best is sure, the other has one of two tied places: by lot, 1.5 of 2."""
    assert top_k_recall([3.0, 2.0, 2.0, 1.0], [3.0, 2.5, 2.0, 1.0], 2).share == pytest.approx(0.75)
    assert top_k_recall([0.0] * 4, [1.0, 2.0, 3.0, 4.0], 2).share == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 4])
def test_more_places_than_candidates_or_none_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}, expected a number from 1 to 3"):
        top_k_recall([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], k)
