"""How well one ranking of candidates predicts another: rank correlations with bootstrap intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

LEAST = 3  # candidates; of two, every ranking is right or wrong
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ and Kendall's τ_b with 95 % percentile bootstrap intervals; NaN where one ties all.

    Attributes:
        n: Candidates.
    """

    n: int
    spearman: float
    low: float
    high: float
    kendall: float
    kendall_low: float
    kendall_high: float


def correlation(first: Sequence[float], second: Sequence[float], *, rng: np.random.Generator) -> Correlation:
    """The rank correlation of two scores of the same candidates, in the same order.

    Args:
        first: A score a candidate; −∞ for one that diverged.
        second: Another.
        rng: Of the resampling.

    Raises:
        ValueError: Fewer than `LEAST` candidates.
    """
    one, other = (np.nan_to_num(np.asarray(scores, dtype=float)) for scores in (first, second))
    n, found = len(one), list[float]()
    if n < LEAST:
        raise ValueError(f"{n} candidates have no rank correlation, expected at least {LEAST}")
    drawn = rng.integers(0, n, (_RESAMPLES, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant samples, which have no correlation
        for measure in (spearmanr, kendalltau):
            resampled = [measure(one[row], other[row]).statistic for row in drawn]
            ends = (math.nan, math.nan)
            if np.isfinite(resampled).any():
                ends = np.nanquantile(resampled, [0.025, 0.975])
            found += [float(measure(one, other).statistic), *map(float, ends)]
    return Correlation(n, *found)
