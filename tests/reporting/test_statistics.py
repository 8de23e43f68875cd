"""Paired comparisons: intervals cover as said, ties are no wins, large effects are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from optevo.reporting.statistics import (
    BETTER,
    BOOTSTRAP_PAIRS,
    UNDECIDED,
    WORSE,
    Estimate,
    holm,
    paired,
    verdict,
    wilson,
)

SPREADS = {1: (1.0,), 3: (1.0, 3.0, 0.3)}
# Of the simulations, a quarter by default.
SHARES = [0.25, pytest.param(1.0, marks=pytest.mark.slow)]
Law = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(5, shape)


def accuracies(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.beta(8, 2, shape) - 8 / 10) - (rng.beta(2, 1, shape) - 2 / 3)


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(size=shape) - 1


def coverage(law: Law, tasks: int, pairs: int, simulations: int, truth: float = 0.5) -> float:
    """How often `paired` holds the truth."""
    rng = np.random.default_rng([tasks, pairs])
    drawn = truth + law(rng, (simulations, tasks, pairs)) * np.array(SPREADS[tasks])[:, None]
    held = 0
    for one in drawn:
        estimate = paired({str(i): row for i, row in enumerate(one)}, rng=rng, resamples=499)
        held += estimate.low <= truth <= estimate.high
    return held / simulations


def tolerance(rate: float, simulations: int) -> float:
    """Three and a half standard errors of a binomial share: a fair one is off by more once in 2,000 times."""
    return 3.5 * math.sqrt(rate * (1 - rate) / simulations)


@pytest.mark.parametrize("pairs", [3, 5, 10, 30])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("share", SHARES)
def test_intervals_of_normal_differences_cover_at_their_level(tasks: int, pairs: int, share: float):
    n = round(share * (3000 if pairs < BOOTSTRAP_PAIRS else 600))
    assert abs(coverage(normal, tasks, pairs, n) - 0.95) < tolerance(0.95, n) + 0.01


# The floors are what the module's docstring says was measured.
@pytest.mark.parametrize(
    ("law", "few", "many"), [(heavy, 0.95, 0.95), (accuracies, 0.93, 0.94), (exponential, 0.88, 0.92)]
)
@pytest.mark.parametrize("pairs", [3, 5, 10, 30])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("share", SHARES)
def test_intervals_of_other_differences_cover_as_often_as_is_said(
    law: Law, few: float, many: float, *, tasks: int, pairs: int, share: float
):
    n = round(share * (1500 if pairs < BOOTSTRAP_PAIRS else 300))
    floor = few if pairs < BOOTSTRAP_PAIRS else many
    assert coverage(law, tasks, pairs, n) > floor - tolerance(floor, n)


@pytest.mark.parametrize("level", [0.8, 0.99])
def test_intervals_cover_at_other_levels(level: float):
    rng, held, n = np.random.default_rng(5), 0, 2000
    for one in rng.standard_normal((n, 4)):
        estimate = paired({"a": one}, level=level, rng=rng)
        held += estimate.low <= 0 <= estimate.high
    assert abs(held / n - level) < tolerance(level, n)


@pytest.mark.parametrize(
    ("pairs", "simulations"),
    [(3, 400), *(pytest.param(*one, marks=pytest.mark.slow) for one in [(3, 1000), (5, 1000), (10, 200)])],
)
def test_a_tie_of_five_is_called_a_win_no_more_often_than_allowed(pairs: int, simulations: int):
    """All ten comparisons of five optimizers whose runs have one distribution, and a seed in common.

    One task spreads so much more that Satterthwaite's test is wrong in 11 % of them with three pairs.
    """
    rng, wrong = np.random.default_rng(pairs), 0
    spreads = np.array([1.0, 6.0, 1.0])[:, None, None]
    for _ in range(simulations):
        seeds = rng.standard_normal((3, pairs, 1))  # a seed that is hard is so for all
        runs = (seeds + rng.standard_normal((3, pairs, 5))) * spreads
        found = [
            paired({str(t): runs[t, :, a] - runs[t, :, b] for t in range(3)}, rng=rng, resamples=199)
            for a, b in combinations(range(5), 2)
        ]
        adjusted = holm([one.p for one in found])
        wrong += any(verdict(one, p) != UNDECIDED for one, p in zip(found, adjusted, strict=True))
    assert wrong / simulations < 0.05 + tolerance(0.05, simulations)


@pytest.mark.parametrize("pairs", [3, 5, 10, 30])
def test_a_large_effect_is_found_and_has_its_sign(pairs: int):
    rng = np.random.default_rng(pairs)
    for sign, called in ((1, BETTER), (-1, WORSE)):
        found = []
        for _ in range(20):
            differences = {t: sign * 10 + rng.standard_normal(pairs) for t in "abc"}
            estimate = paired(differences, rng=rng)
            found.append(verdict(estimate, holm([estimate.p, 0.5, 0.9, 1.0])[0]))
        assert set(found) == {called}


def test_one_task_is_the_ordinary_paired_case():
    first, second = [0.91, 0.94, 0.92, 0.97], [0.90, 0.91, 0.93, 0.92]
    differences = np.subtract(first, second)
    estimate = paired({"digits": differences}, rng=np.random.default_rng(0))
    theirs = stats.ttest_rel(first, second)
    interval = theirs.confidence_interval(0.95)
    assert estimate.p == pytest.approx(theirs.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert (estimate.mean, estimate.n) == (pytest.approx(differences.mean()), 4)
    assert estimate.method == "t interval, paired t test, 4 pairs of 1 task"


def test_two_tasks_are_welchs_test_with_more_caution():
    """Welch's test of a and −b is that of the sum of two means."""
    a, b = np.array([1.0, 2.5, 0.5]), np.array([0.2, -0.1, 0.4, 0.3, 0.6])
    estimate = paired({"a": a, "b": b}, rng=np.random.default_rng(0))
    theirs = stats.ttest_ind(a, -b, equal_var=False)
    cautious = math.sqrt(theirs.df * 2)  # two are those of the smaller task
    assert estimate.p == pytest.approx(2 * stats.t.sf(abs(theirs.statistic), cautious))
    assert estimate.p > theirs.pvalue
    assert estimate.mean == pytest.approx((a.mean() + b.mean()) / 2)
    interval = theirs.confidence_interval(0.95)
    assert (2 * estimate.low, 2 * estimate.high) == pytest.approx((interval.low, interval.high))


def test_the_mean_is_over_tasks_whatever_their_number_of_seeds():
    differences = {"a": [1.0, 1.2], "b": [0.0, 0.1, -0.1, 0.0]}
    assert paired(differences, rng=np.random.default_rng(0)).mean == pytest.approx(0.55)


def test_the_bootstrap_starts_where_every_task_has_enough_pairs():
    rng = np.random.default_rng(0)
    few, enough = rng.standard_normal(BOOTSTRAP_PAIRS - 1), rng.standard_normal(BOOTSTRAP_PAIRS)
    assert paired({"a": enough}, rng=rng).method.startswith("bootstrap-t interval, paired t test")
    assert paired({"a": enough, "b": few}, rng=rng).method.startswith("t interval")


def test_the_same_generator_gives_the_same_interval():
    differences = {"a": np.random.default_rng(0).standard_normal(12)}
    first, second, third = (paired(differences, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != third
    assert (third.mean, third.p) == (first.mean, first.p)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200, -1.0])
@pytest.mark.parametrize("pairs", [3, 10])
def test_the_unit_does_not_matter(scale: float, pairs: int):
    values = 0.4 + np.random.default_rng(0).standard_normal(pairs)
    plain = paired({"a": values}, rng=np.random.default_rng(1))
    scaled = paired({"a": values * scale}, rng=np.random.default_rng(1))
    ends = sorted((scaled.low / scale, scaled.high / scale))
    assert ends == pytest.approx([plain.low, plain.high])
    assert scaled.p == pytest.approx(plain.p)


@pytest.mark.parametrize("pairs", [1, 2, 3, 10, 30])
@pytest.mark.parametrize("tasks", [1, 3])
def test_equal_runs_are_never_a_win(pairs: int, tasks: int):
    zeros = {str(t): [0.0] * pairs for t in range(tasks)}
    estimate = paired(zeros, rng=np.random.default_rng(0))
    assert (estimate.mean, estimate.low, estimate.high, estimate.p) == (0, 0, 0, 1)
    assert estimate.method.startswith("identical")
    assert verdict(estimate, 0.0) == UNDECIDED


@pytest.mark.parametrize("pairs", [2, 3, 10, 30])
@pytest.mark.parametrize(
    "constant", [0.25, 0.1 + 0.2, 1e-17, -1e9, 1 / 3], ids=["exact", "rounded", "tiny", "large", "third"]
)
def test_the_same_difference_everywhere_is_no_win(pairs: int, constant: float):
    rng = np.random.default_rng(0)
    jitter = constant * (1 + 1e-15 * rng.standard_normal(pairs))  # as subtracting leaves it
    for differences in ([constant] * pairs, jitter):
        estimate = paired({"a": differences}, rng=rng)
        assert estimate.mean == pytest.approx(constant)
        assert (estimate.low, estimate.high, estimate.p) == (-math.inf, math.inf, 1)
        assert verdict(estimate, estimate.p) == UNDECIDED
    both = paired({"a": [constant] * pairs, "b": constant * rng.standard_normal(pairs)}, rng=rng)
    assert (both.low, both.high, both.p) == (-math.inf, math.inf, 1)


def test_a_task_of_ties_beside_others_changes_no_p():
    values = [0.3, 0.1, 0.2, 0.4]
    alone = paired({"a": values}, rng=np.random.default_rng(0))
    beside = paired({"a": values, "b": [0.0] * 4}, rng=np.random.default_rng(0))
    assert beside.p == pytest.approx(alone.p)
    assert (beside.mean, beside.low) == pytest.approx((alone.mean / 2, alone.low / 2))


def test_differences_that_are_mostly_equal_fall_back_to_the_t_interval():
    """A resample of those has no spread in one case of three."""
    rng = np.random.default_rng(0)
    estimate = paired({"a": [0.0] * 9 + [1.0]}, rng=rng)
    assert estimate.method.startswith("t interval")
    assert estimate.low < 0 < estimate.high
    assert estimate.p == pytest.approx(stats.ttest_1samp([0.0] * 9 + [1.0], 0).pvalue)


@pytest.mark.parametrize("differences", [{"a": [5.0]}, {"a": [5.0, 5.1, 5.2], "b": [4.0]}])
def test_a_single_pair_shows_nothing(differences: dict[str, list[float]]):
    estimate = paired(differences, rng=np.random.default_rng(0))
    assert (estimate.low, estimate.high, estimate.p) == (-math.inf, math.inf, 1)
    assert verdict(estimate, estimate.p) == UNDECIDED


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ({}, "no task"),
        ({"digits": []}, "'digits'"),
        ({"digits": [[1.0, 2.0]]}, "shape"),
        ({"digits": [1.0, math.nan]}, "'digits'.*not finite"),
        ({"a": [1.0], "digits": [math.inf, 1.0]}, "'digits'.*not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(differences: dict[str, list[float]], said: str):
    with pytest.raises(ValueError, match=said):
        paired(differences, rng=np.random.default_rng(0))


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
def test_a_level_that_is_none_is_refused(level: float):
    with pytest.raises(ValueError, match="level"):
        paired({"a": [1.0, 2.0]}, level=level, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="resamples"):
        paired({"a": [1.0, 2.0]}, rng=np.random.default_rng(0), resamples=0)


# Holm


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # The example of Wikipedia's "Holm–Bonferroni method", by hand: the smallest four times itself, the
        # next three times, 0.03 twice, and 0.04 may not be below that. At 0.05 H4 and H1 fall, as said there.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # That of the documentation of pingouin's multicomp.
        ([0.50, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),
    ],
)
def test_holm_agrees_with_worked_examples(p: list[float], adjusted: list[float]):
    assert holm(p) == pytest.approx(adjusted)


def test_holm_is_monotone_capped_and_at_least_p():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 20):
        p = rng.random(n) ** 3
        adjusted = np.array(holm(p.tolist()))
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
        assert (adjusted >= p).all()
        assert (adjusted <= np.minimum(1, n * p)).all()
    assert holm([]) == []
    assert holm([0.3]) == [0.3]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.01, 0.01]) == [0.02, 0.02]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(wrong: float):
    with pytest.raises(ValueError, match="p-value"):
        holm([0.5, wrong])


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "p", "level", "said"),
    [
        (0.1, 0.3, 0.01, 0.95, BETTER),
        (-0.3, -0.1, 0.01, 0.95, WORSE),
        (0.1, 0.3, 0.06, 0.95, UNDECIDED),  # after Holm
        (0.1, 0.3, 0.06, 0.90, BETTER),
        (-0.1, 0.5, 0.01, 0.95, UNDECIDED),  # the wider of the two intervals
        (0.0, 0.4, 0.01, 0.95, UNDECIDED),
        (0.1, 0.3, 0.05, 0.95, UNDECIDED),
        (0.1, 0.3, math.nan, 0.95, UNDECIDED),
    ],
)
def test_a_verdict_needs_both_the_test_and_the_interval(
    low: float, high: float, p: float, level: float, said: str
):
    assert verdict(Estimate((low + high) / 2, low, high, 0.001, 5, ""), p, level) == said


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10)])
def test_intervals_of_shares_are_wilsons(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_no_trials_nothing_is_known() -> None:
    assert wilson(0, 0) == (0, 1)
