"""The generic operators: whatever distribution, the values are valid, plain Python, and unbiased."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy import stats

from optevo.samplers.operators import (
    Generic,
    annealing,
    draw,
    identity,
    inherit,
    mutate_value,
    tournament,
    unique_child,
)

DISTRIBUTIONS = [
    FloatDistribution(-5, 5),
    FloatDistribution(1e-9, 1e3, log=True),
    FloatDistribution(0.1, 0.9, step=0.1),
    FloatDistribution(-1, 2, step=0.3),
    FloatDistribution(2.5, 2.5),
    IntDistribution(-3, 7),
    IntDistribution(1, 1000, log=True),
    IntDistribution(1, 2, log=True),
    IntDistribution(0, 20, step=4),
    IntDistribution(-7, 8, step=3),
    IntDistribution(4, 4),
    IntDistribution(0, 2**60),
    CategoricalDistribution([None, True, False]),
    CategoricalDistribution(["a", 1, 2.5, None]),
    CategoricalDistribution(["only"]),
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def is_plain_and_valid(value: object, d: BaseDistribution) -> bool:
    kinds = {FloatDistribution: {float}, IntDistribution: {int}}
    allowed = kinds.get(type(d)) or {type(choice) for choice in getattr(d, "choices", ())}
    return type(value) in allowed and d._contains(d.to_internal_repr(value))


@pytest.mark.parametrize("d", DISTRIBUTIONS, ids=str)
def test_a_draw_is_plain_python_within_its_distribution(d):
    g = rng()
    assert all(is_plain_and_valid(draw(d, g), d) for _ in range(300))


@pytest.mark.parametrize("d", DISTRIBUTIONS, ids=str)
def test_a_mutant_is_plain_python_within_its_distribution(d):
    g = rng()
    value = draw(d, g)
    for _ in range(500):
        value = mutate_value(value, d, g, 1.0)
        assert is_plain_and_valid(value, d)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 999))
def test_any_float_range_is_respected(low, width, seed):
    d, g = FloatDistribution(low, low + width), rng(seed)
    value = draw(d, g)
    assert low <= value <= low + width
    assert low <= mutate_value(value, d, g, 1.0) <= low + width


@given(st.integers(-(10**9), 10**9), st.integers(0, 1000), st.integers(1, 50), st.integers(0, 999))
def test_any_int_range_and_step_is_respected(low, steps, step, seed):
    d, g = IntDistribution(low, low + steps * step, step=step), rng(seed)
    value = draw(d, g)
    for _ in range(5):
        assert (value - low) % step == 0
        assert low <= value <= low + steps * step
        value = mutate_value(value, d, g, 1.0)


@pytest.mark.parametrize(
    "d",
    [
        FloatDistribution(0.1, 0.9, step=0.1),
        FloatDistribution(-1, 2, step=0.3),
        IntDistribution(-3, 7),
        IntDistribution(0, 20, step=4),
        IntDistribution(0, 1),
        CategoricalDistribution([None, True, "a"]),
    ],
    ids=str,
)
def test_a_draw_favours_no_step_nor_choice(d):
    g = rng(1)
    counts = Counter(draw(d, g) for _ in range(6000))
    if isinstance(d, CategoricalDistribution):
        assert len(counts) == len(d.choices)
    else:
        assert len(counts) == round((d.high - d.low) / d.step) + 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    "d", [FloatDistribution(-5, 5), FloatDistribution(1e-6, 1e2, log=True)], ids=["linear", "log"]
)
def test_a_real_draw_is_uniform_in_the_transformed_range(d):
    g = rng(2)
    x = np.array([draw(d, g) for _ in range(4000)])
    low, high, x = (math.log(d.low), math.log(d.high), np.log(x)) if d.log else (d.low, d.high, x)
    assert stats.kstest((x - low) / (high - low), "uniform").pvalue > 1e-3


def test_a_log_int_draw_gives_each_number_its_share_of_the_log_range():
    d, g = IntDistribution(1, 8, log=True), rng(3)
    counts = Counter(draw(d, g) for _ in range(8000))
    shares = np.diff(np.log([0.5, *(i + 0.5 for i in range(1, 9))]))
    expected = 8000 * shares / shares.sum()
    assert stats.chisquare([counts[i] for i in range(1, 9)], expected).pvalue > 1e-3


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_numbers_mutate_at_the_stated_rate_and_width(decay):
    d, g = FloatDistribution(0, 1), rng(4)
    steps = np.array([mutate_value(0.5, d, g, decay) - 0.5 for _ in range(8000)])
    moved = steps[steps != 0]
    assert len(moved) / len(steps) == pytest.approx(0.35 * decay, abs=0.02)
    assert moved.std() == pytest.approx(0.1 * decay, rel=0.06)
    assert abs(moved.mean()) < 0.01


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_categories_are_drawn_anew_at_the_stated_rate(decay):
    d, g = CategoricalDistribution(["a", "b", "c", "d"]), rng(5)
    changed = sum(mutate_value("a", d, g, decay) != "a" for _ in range(8000)) / 8000
    assert changed == pytest.approx(0.2 * decay * 3 / 4, abs=0.015)


def test_a_mutation_is_reflected_at_the_end_of_the_range_rather_than_stuck_there():
    d, g = FloatDistribution(0, 1), rng(6)
    values = [mutate_value(1.0, d, g, 1.0) for _ in range(4000)]
    moved = [v for v in values if v != 1.0]
    assert len(moved) / len(values) == pytest.approx(0.35, abs=0.03)


def test_an_int_of_two_values_can_mutate_either_way():
    d, g = IntDistribution(0, 1), rng(7)
    assert {mutate_value(0, d, g, 1.0) for _ in range(2000)} == {0, 1}
    assert {mutate_value(1, d, g, 1.0) for _ in range(2000)} == {0, 1}


def test_each_parent_gives_a_parameter_with_one_half():
    d, g = FloatDistribution(0, 1), rng(8)
    first = sum(inherit("x", d, [{"x": 0.25}, {"x": 0.75}], g) == 0.25 for _ in range(4000))
    assert first / 4000 == pytest.approx(0.5, abs=0.03)


def test_a_parents_value_outside_the_range_is_not_inherited():
    d, g = FloatDistribution(0, 1), rng(9)
    assert {inherit("x", d, [{"x": 7.0}, {"x": 0.5}], g) for _ in range(50)} == {0.5}
    assert 0 <= inherit("x", d, [{"x": 7.0}, {}], g) <= 1


@pytest.mark.parametrize(("choices", "value"), [([1, "x"], True), ([True, "x"], 1), ([1.0, "x"], 1)])
def test_choices_that_only_compare_equal_are_not_mixed_up(choices, value):
    d, g = CategoricalDistribution(choices), rng(10)
    inherited = [inherit("c", d, [{"c": value}], g) for _ in range(50)]
    assert {type(v) for v in inherited} <= {type(choice) for choice in choices}


def test_none_is_inherited_like_any_choice():
    d, g = CategoricalDistribution([None, "a"]), rng(11)
    assert {inherit("c", d, [{"c": None}], g) for _ in range(50)} == {None}


def test_nan_is_inherited_like_any_choice():
    d, g = CategoricalDistribution([math.nan, "a", "b", "c"]), rng(12)
    parent = {"c": d.to_external_repr(d.to_internal_repr(math.nan))}
    assert all(isinstance(inherit("c", d, [parent], g), float) for _ in range(30))


def test_crossover_and_mutation_return_every_parameter():
    space = {f"p{i}": d for i, d in enumerate(DISTRIBUTIONS)}
    variation, g = Generic(space), rng(13)
    for _ in range(50):
        child = variation.vary([variation.sample(g), {}], g, 1.0)
        assert list(child) == list(space)
        assert all(is_plain_and_valid(child[name], d) for name, d in space.items())


def test_operators_leave_their_parents_alone():
    variation, g = Generic({"x": FloatDistribution(0, 1)}), rng(14)
    first, second = {"x": 0.1}, {"x": 0.9}
    for _ in range(20):
        variation.vary([first, second], g, 1.0)
        variation.vary([first], g, 1.0)
    assert (first, second) == ({"x": 0.1}, {"x": 0.9})


@pytest.mark.parametrize(("population", "size"), [(10, 4), (5, 1), (3, 4), (6, 6)])
def test_a_tournament_draws_distinct_members_and_the_best_of_them_wins(population, size):
    g = rng(15)
    wins = Counter(tournament(population, size, g) for _ in range(6000))
    k = min(size, population)
    expected = [math.comb(population - 1 - i, k - 1) / math.comb(population, k) for i in range(population)]
    assert set(wins) <= {i for i, p in enumerate(expected) if p}
    for i, p in enumerate(expected):
        assert wins[i] / 6000 == pytest.approx(p, abs=0.025)


@pytest.mark.parametrize(
    ("generation", "n_generations", "decay"),
    [(0, None, 1.0), (99, None, 1.0), (0, 50, 1.0), (25, 50, 0.75), (50, 50, 0.5), (80, 50, 0.5)],
)
def test_mutation_anneals_to_one_half(generation, n_generations, decay):
    assert annealing(generation, n_generations) == pytest.approx(decay)


def test_a_child_is_new_where_the_space_allows_it():
    variation = Generic({"c": CategoricalDistribution(list("abcdefgh"))})
    seen = {identity({"c": c}) for c in "abcdefg"}
    found = [unique_child(variation, [{"c": "a"}] * 2, seen, rng(i), decay=1.0)["c"] for i in range(40)]
    assert Counter(found)["h"] > 25


def test_a_child_of_an_exhausted_space_is_still_its_parents():
    variation = Generic({"c": CategoricalDistribution(list("abcdefgh"))})
    seen = {identity({"c": c}) for c in "abcdefgh"}
    found = [unique_child(variation, [{"c": "a"}] * 2, seen, rng(i), decay=0.5)["c"] for i in range(100)]
    assert Counter(found)["a"] > 60


def test_identity_does_not_depend_on_the_order_of_parameters():
    assert identity({"a": 1, "b": "x"}) == identity({"b": "x", "a": 1})


@given(
    st.lists(st.integers(-3, 3), min_size=3, max_size=3), st.lists(st.integers(-3, 3), min_size=3, max_size=3)
)
def test_different_parameters_have_different_identities(first, second):
    a, b = (dict(zip("xyz", numbers, strict=True)) for numbers in (first, second))
    assert (identity(a) == identity(b)) == (a == b)
