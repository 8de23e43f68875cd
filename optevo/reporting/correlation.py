"""How well one ranking of candidates predicts another: rank correlations with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

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
    n, found = len(first), list[float]()
    if n < LEAST:
        raise ValueError(f"{n} candidates have no rank correlation, expected at least {LEAST}")
    drawn = np.vstack([np.arange(n), rng.integers(0, n, (_RESAMPLES, n))])
    one, other = (rankdata(np.asarray(scores))[drawn] for scores in (first, second))
    signs = [np.sign(each[:, :, None] - each[:, None, :]).reshape(len(drawn), -1) for each in (one, other)]
    centred = [(ranks := rankdata(each, axis=1)) - ranks.mean(1, keepdims=True) for each in (one, other)]
    for x, y in (centred, signs):
        with np.errstate(invalid="ignore"):
            whole, *resampled = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
        ends = np.nanquantile(resampled, [0.025, 0.975])
        found += [float(whole), *map(float, ends)]
    return Correlation(n, *found)
