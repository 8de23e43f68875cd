"""Whether one optimizer beats another on paired runs: an estimate with its interval, a test, a verdict.

Two optimizers are trained on T tasks with the same seeds. A pair of runs shares task and seed, so their
difference is what is looked at; runs of different tasks are independent. The tasks are the strata s = 1 … T,
with n_s pairs, mean difference d_s and sample variance v_s each::

    d = Σ d_s / T        se² = Σ v_s / n_s / T²        df = (Σ v_s/n_s)² / Σ (v_s/n_s)² / (n_s − 1)

d estimates the mean over these tasks, not over tasks at large: more seeds make the interval narrower,
whatever other tasks would show.

What was measured (`python -m analysis.benchmarks.coverage`: 4,000 simulated comparisons a cell, of 3, 5, 8,
10 and 30 pairs a task, one task or three of unequal spread; one standard error is 0.34 points) of the nominal
95 %:

- normal differences: the intervals of `paired` hold the truth in 95.0 to 96.4 % of the comparisons;
- heavy tails (t with five degrees of freedom): 95.2 to 97.5 %;
- differences of skewed accuracies (beta): 93.4 to 94.3 % with three or five pairs, 94.5 to 96.7 % from eight;
- strong skew (exponential): 88.3 to 89.3 % with three or five pairs, 92.7 to 94.2 % from eight. So few pairs
  do not show the skew, and no interval of a useful width makes up for that.

With several tasks the test is more cautious than the interval: its degrees of freedom are the geometric mean
of df and the smallest n_s − 1. With df alone, three pairs, and one task that spreads six times as much as two
others, normal differences without an effect have p < 0.005, which is where Holm looks, 2.4 times too often.
Among five tied optimizers on those tasks, df alone calls some pair different in 11 % of all cases, the mean
in 4.3 %; with equal spreads, in 0.3 %. It is no bound: where one of three tasks spreads 10 to 20 times as
much as the others it is 6 to 7 % with three pairs (20,000 simulations), with five pairs fine.

A percentile bootstrap holds the truth in 75 to 78 % with three pairs of normal differences, in 84 to 86 %
with five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

# From here on the bootstrap-t interval is at most 8 % wider than the t interval where that one is exact, and
# covers strongly skewed differences better by one to four points. With five pairs of one task it is 37 %
# wider, with three infinite, since one in nine resamples has no spread.
BOOTSTRAP_PAIRS = 8
RESAMPLES = 4_999
# Differences that are the same but for rounding have no spread; a spread of it would make anything certain.
_ROUNDING = 1e-9

BETTER, WORSE, UNDECIDED = "better", "worse", "no difference shown"
UNTESTED = "a run diverged: not compared"


@dataclass(frozen=True)
class Estimate:
    """A mean difference and how sure it is.

    Attributes:
        mean: Mean over tasks of the mean difference over seeds, in the unit of the differences. It is not
            finite where runs diverged, see `optevo.reporting.comparison.difference`.
        low: Lower end of the confidence interval; −inf where the data bound nothing.
        high: Upper end; inf where the data bound nothing.
        p: Of the two-sided t test that the mean is 0, unadjusted, in [0, 1].
        n: Pairs, over all tasks.
        method: Which interval and test, for people.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    method: str

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Strata:
    """Paired differences with what follows from them; see the module for the formulas.

    Attributes:
        values: An array of shape (n_s,) a task.
        mean: d.
        error: se, the standard error of d.
        df: Satterthwaite's degrees of freedom. At least one task has a spread, and each two pairs.
        cautious_df: Those of the test.
    """

    values: tuple[np.ndarray, ...]
    mean: float
    error: float
    df: float
    cautious_df: float

    @classmethod
    def of(cls, values: Sequence[np.ndarray]) -> Strata:
        """Strata of the differences, an array of shape (n_s,) with n_s ≥ 2 a task."""
        parts = np.array([0.0 if _flat(one) else one.var(ddof=1) / len(one) for one in values])
        total = parts.sum()
        df = total**2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, values, strict=True))
        least = min(len(one) - 1 for part, one in zip(parts, values, strict=True) if part > 0)
        error = math.sqrt(total) / len(values)
        return cls(tuple(values), _mean(values), error, float(df), math.sqrt(df * least))


def paired(
    differences: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate the mean difference of paired runs.

    With at least `BOOTSTRAP_PAIRS` pairs of every task the interval is the symmetric bootstrap-t, resampled
    within tasks (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12; Hall, On symmetric
    bootstrap confidence intervals, 1988); with fewer it is the t interval with Satterthwaite's degrees of
    freedom (An approximate distribution of estimates of variance components, 1946), exact for a single task
    with normal differences. p is the t test's always, with degrees of freedom of its own; see the module's
    docstring for them, and for what is covered.

    Where the data say nothing of their spread, nothing is concluded from them:

    - one pair of some task: the interval is infinite and p = 1;
    - the differences of some task all the same, but not zero: the same, since n equal differences from a
      coarse metric do not make it certain;
    - all differences zero: the interval is [0, 0], which describes the pairs and is not a confidence
      statement, and p = 1. A task of zeros beside others counts with its zeros, and changes no p.

    Args:
        differences: Of each task (by name), a difference for every seed, at least one. Tasks may have
            unequally many.
        level: Of confidence, between 0 and 1. Default: 0.95.
        rng: Of the resampling.
        resamples: How many, for the bootstrap. Default: `RESAMPLES`.

    Raises:
        ValueError: No task, a task without differences, a difference that is not finite, or a level or number
            of resamples out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    values = _checked(differences)
    tasks, n = f"{len(values)} task" + "s" * (len(values) > 1), sum(map(len, values))
    scale = max(float(np.abs(one).max()) for one in values)
    if scale == 0:
        return Estimate(0.0, 0.0, 0.0, 1.0, n, "identical in every pair: no interval, no test")
    values = [one / scale for one in values]  # squares of what is very large or small would not be finite
    mean = _mean(values) * scale
    if min(map(len, values)) == 1:
        return Estimate(mean, -math.inf, math.inf, 1.0, n, "a single pair of a task: no interval, no test")
    if any(_flat(one) and one.any() for one in values):
        method = "the same difference in every pair of a task: no interval, no test"
        return Estimate(mean, -math.inf, math.inf, 1.0, n, method)
    strata = Strata.of(values)
    half, interval = t_half_width(strata, level), "t interval"
    if min(map(len, values)) >= BOOTSTRAP_PAIRS:
        # Mostly equal differences leave resamples without spread: then it is infinite.
        studentized = bootstrap_half_width(strata, level, rng, resamples)
        if math.isfinite(studentized):
            half, interval = studentized, "bootstrap-t interval"
    p = 2 * float(stdtr(strata.cautious_df, -abs(strata.mean) / strata.error))
    test = "paired t test" if len(values) == 1 else "stratified paired t test"
    method = f"{interval}, {test}, {n} pairs of {tasks}"
    return Estimate(mean, mean - half * scale, mean + half * scale, p, n, method)


def t_half_width(strata: Strata, level: float) -> float:
    """Half the t interval: se · t_df((1 + level) / 2)."""
    return strata.error * float(stdtrit(strata.df, (1 + level) / 2))


def bootstrap_half_width(strata: Strata, level: float, rng: np.random.Generator, resamples: int) -> float:
    """Half the symmetric bootstrap-t interval: se · the level-quantile of |d* − d| / se* over resamples.

    It is infinite where more than 1 − level of the resamples have no spread.
    """
    off, variance = np.zeros(resamples), np.zeros(resamples)
    for one in strata.values:
        drawn = one[rng.integers(0, len(one), (resamples, len(one)))]
        means = drawn.mean(1)
        spread = ((drawn - means[:, None]) ** 2).sum(1) / (len(one) - 1)
        off += means - one.mean()
        variance += np.where(spread > (_ROUNDING * np.abs(drawn).max(1)) ** 2, spread, 0) / len(one)
    error, off = np.sqrt(variance) / len(strata.values), np.abs(off) / len(strata.values)
    studentized = np.full(resamples, math.inf)
    np.divide(off, error, out=studentized, where=error > 0)
    return strata.error * float(np.quantile(studentized, level, method="higher"))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values by Holm's step-down procedure, in the order given.

    The i-th smallest of m becomes max over j ≤ i of min(1, (m − j + 1) · p_(j)). Calling those below α keeps
    the probability of one false call or more at α, however the tests depend on one another (Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).

    Raises:
        ValueError: Something is no probability.
    """
    for one in p:
        if not 0 <= one <= 1:
            raise ValueError(f"{one} is not a p-value, which lies between 0 and 1")
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Probable inference, the law of succession, JASA 22, 1927).

    Args:
        successes: From 0 to n.
        n: Trials; of none nothing is known, and the interval is [0, 1].
        level: Of confidence, between 0 and 1. Default: 0.95.
    """
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def verdict(estimate: Estimate, p_adjusted: float, level: float = 0.95) -> str:
    """What may be said of a difference: `BETTER` (it is positive), `WORSE`, `UNDECIDED` or `UNTESTED`.

    Args:
        estimate: The difference, as `paired` gives it at this level.
        p_adjusted: Its p among all comparisons that are made, see `holm`.
        level: Of confidence. Default: 0.95.

    Returns:
        Better or worse only where p_adjusted < 1 − level and the interval excludes 0.
    """
    if not math.isfinite(estimate.mean):
        return UNTESTED
    if not (p_adjusted + level < 1 and estimate.excludes_zero):
        return UNDECIDED
    return BETTER if estimate.mean > 0 else WORSE


def _checked(differences: Mapping[str, Sequence[float]]) -> list[np.ndarray]:
    if not differences:
        raise ValueError("there is no task to compare on")
    values = []
    for task, one in differences.items():
        array = np.asarray(one, dtype=np.float64)
        if array.ndim != 1 or not len(array):
            raise ValueError(
                f"task {task!r} has differences of shape {array.shape}, expected one for each seed"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"task {task!r} has a difference that is not finite: {list(one)}")
        values.append(array)
    return values


def _mean(values: Sequence[np.ndarray]) -> float:
    return float(np.mean([one.mean() for one in values]))


def _flat(values: np.ndarray) -> bool:
    """Whether the values are the same but for rounding."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
