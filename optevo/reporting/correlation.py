"""How well one ranking of candidates predicts another: rank correlations and recall, with their intervals.

What was measured (1,000 simulations a cell of 500 resamples, normal pairs correlated by 0, 0.5 and 0.9; one
standard error is 0.7 points) of the nominal 95 %: from 10 candidates on, the intervals hold the population's
ρ and τ in 94 to 97 %; with 5 in 76 to 97 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from optevo.reporting.statistics import wilson

LEAST = 3  # candidates; of two, every ranking is right or wrong
RESAMPLES = 2_000
Scores = Sequence[float | None]


@dataclass(frozen=True)
class Correlation:
    """Rank correlations of two evaluations of the same candidates, NaN where one of them ties all.

    Attributes:
        n: Candidates.
        spearman: Spearman's ρ, in [−1, 1].
        low: Lower end of its confidence interval.
        high: Upper end.
        kendall: Kendall's τ-b, in [−1, 1].
        kendall_low: Lower end of its confidence interval.
        kendall_high: Upper end.
    """

    n: int
    spearman: float
    low: float
    high: float
    kendall: float
    kendall_low: float
    kendall_high: float


@dataclass(frozen=True)
class Recall:
    """How much of the best a first evaluation finds.

    Attributes:
        k: How many are the best.
        share: Of the second's best k, those among the first's best k, in [0, 1].
        low: Lower end of Wilson's confidence interval, as if the k had been drawn one by one.
        high: Upper end.
        chance: What a first evaluation that knows nothing finds, k / n.
    """

    k: int
    share: float
    low: float
    high: float
    chance: float


def correlation(
    first: Scores,
    second: Scores,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Correlation:
    """Spearman's ρ and Kendall's τ-b with percentile bootstrap intervals over candidates.

    Equal scores share the mean of their ranks. With s_ij the sign of x_i − x_j, t_ij the same of y, and w_i
    how often a resample has candidate i, both follow from the signs::

        τ = Σ w_i w_j s_ij t_ij / √(Σ w_i w_j s_ij² · Σ w_i w_j t_ij²)
        ρ = Σ w_i a_i b_i / √(Σ w_i a_i² · Σ w_i b_i²)        a_i = Σ w_j s_ij        b_i = Σ w_j t_ij

    Args:
        first: A score a candidate, more is better; None, NaN and −∞ for one that diverged, which ranks last.
        second: The same candidates' by the other evaluation, in the same order.
        rng: Of the resampling.
        level: Of confidence, between 0 and 1. Default: 0.95.
        resamples: How many. Default: `RESAMPLES`.

    Raises:
        ValueError: Fewer than `LEAST` candidates, not as many in both, or a level out of range.
    """
    n = _same(first, second)
    if n < LEAST:
        raise ValueError(f"{n} candidates have no rank correlation, expected at least {LEAST}")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1")
    signs = _signs(_ranked(first)), _signs(_ranked(second))
    (rho,), (tau,) = _correlations(*signs, np.ones((1, n), np.float32))
    drawn = rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float32)
    ends = [_ends(values, level) for values in _correlations(*signs, drawn)]
    return Correlation(n, float(rho), *ends[0], float(tau), *ends[1])


def top_k_recall(first: Scores, second: Scores, k: int, *, level: float = 0.95) -> Recall:
    """The share of the second evaluation's best k that are among the first's best k.

    Where the k-th place is tied, each of those who tie has an equal part of the places left: the share is
    what breaking ties by lot finds in the mean.

    Args:
        first: As in `correlation`.
        second: The same.
        k: From 1 to the number of candidates.
        level: Of confidence, between 0 and 1. Default: 0.95.

    Raises:
        ValueError: k is out of range, or there are not as many scores in one as in the other.
    """
    n = _same(first, second)
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, expected a number from 1 to {n}, which is how many candidates there are")
    found = float(_places(_ranked(first), k) @ _places(_ranked(second), k))
    return Recall(k, found / k, *wilson(found, k, level), k / n)


def _same(first: Scores, second: Scores) -> int:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores and {len(second)} are not of the same candidates")
    return len(first)


def _ranked(scores: Scores) -> np.ndarray:
    """Ranks from 1, the least score first; ties have their mean."""
    values = np.array([-math.inf if one is None or math.isnan(one) else one for one in scores], np.float64)
    return np.asarray(rankdata(values))


def _signs(ranks: np.ndarray) -> np.ndarray:
    """Of the differences of any two; products of them below 2²⁴ are exact in float32."""
    signs: np.ndarray = np.sign(ranks[:, None] - ranks).astype(np.float32)
    return signs


def _correlations(s: np.ndarray, t: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ρ and τ of each row of weights, see `correlation`; NaN where all tie."""
    w = weights.astype(np.float64)
    a, b = ((weights @ one.T).astype(np.float64) for one in (s, t))
    both, of_s, of_t = ((w * (weights @ one)).sum(1) for one in (s * t, s * s, t * t))
    with np.errstate(invalid="ignore"):
        rho = (w * a * b).sum(1) / np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1))
        return rho, both / np.sqrt(of_s * of_t)


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    """The middle `level` of them; resamples in which all tie say nothing."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _places(ranks: np.ndarray, k: int) -> np.ndarray:
    """How much of a place among the best k each has, in [0, 1]."""
    kth = np.sort(ranks)[-k]
    above, tied = ranks > kth, ranks == kth
    places: np.ndarray = above + tied * ((k - above.sum()) / tied.sum())
    return places
