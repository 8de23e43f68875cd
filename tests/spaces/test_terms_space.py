"""`TermSpace` against sections 1 and 3 of the spec: prior, crossover, mutation, and the flat parameters."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from strategies import TERMS, genomes
from term_params import DOMAIN, SPACE, is_plain, middle, within

from optevo.optim.terms.genome import TermGenome
from optevo.spaces import TermSpace

N = 4000
PRIOR = {  # low, high, the scale on which it is uniform
    "lr": (-4, -2, math.log10),
    "beta1": (0.5, 0.99, float),
    "beta2": (0.9, 0.9999, float),
    "eps": (-9, -6, math.log10),
    "weight_decay": (-5, -3, math.log10),
    "clip_value": (0.5, 2.0, float),
}
FLAGS = {
    "use_momentum": 0.7,
    "use_second_moment": 0.7,
    "bias_correction": 0.6,
    "gradient_clipping": 0.2,
    "warmup": 0.3,
    "cosine_decay": 0.3,
}
WIDTH = {"lr": 1.0, "eps": 1.0, "weight_decay": 1.0, "beta1": 0.2, "beta2": 0.1}  # shares of sigma


def assert_rate(hits: int, n: int, p: float) -> None:
    """Within four and a half standard errors of `p`."""
    assert hits / n == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / n))


@pytest.fixture(scope="module")
def draws() -> list[dict]:
    rng = np.random.default_rng(0)
    return [SPACE.sample(rng) for _ in range(N)]


# The prior


@pytest.mark.parametrize("gene", PRIOR)
def test_a_number_is_uniform_over_its_prior(draws, gene):
    low, high, scale = PRIOR[gene]
    x = np.array([scale(params[gene]) for params in draws])
    assert low <= x.min()
    assert x.max() <= high
    assert stats.kstest((x - low) / (high - low), "uniform").pvalue > 1e-4


def test_warmup_steps_are_uniform_over_50_to_200(draws):
    counts = Counter(params["warmup_steps"] for params in draws)
    assert set(counts) == set(range(50, 201))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_is_true_as_often_as_the_spec_says(draws, flag):
    assert_rate(sum(params[flag] for params in draws), N, FLAGS[flag])


def test_the_number_of_terms_is_uniform_over_one_to_three(draws):
    counts = Counter(params["n_terms"] for params in draws)
    assert set(counts) == {1, 2, 3}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_every_term_is_as_likely_as_any_other_in_every_place(draws):
    for i in range(3):
        counts = Counter(params[f"term_{i}"] for params in draws if params["n_terms"] > i)
        assert set(counts) == set(TERMS)
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_alphas_are_uniform_over_minus_one_to_one(draws):
    x = np.array([params[f"alpha_{i}"] for params in draws for i in range(params["n_terms"])])
    assert np.abs(x).max() <= 1
    assert stats.kstest((x + 1) / 2, "uniform").pvalue > 1e-4


def test_genes_of_the_prior_are_independent(draws):
    numbers = [*PRIOR, *FLAGS, "n_terms", "warmup_steps"]
    table = np.array([[float(params[name]) for name in numbers] for params in draws])
    correlation = np.corrcoef(table, rowvar=False) - np.eye(len(numbers))
    assert np.abs(correlation).max() < 5 / math.sqrt(N)


def test_every_draw_is_a_genome_within_its_distributions_and_plain_python(draws):
    for params in draws:
        assert within(params)
        assert is_plain(params)
        assert isinstance(SPACE.candidate(params), TermGenome)


# Mutation


@pytest.fixture(scope="module", params=[1.0, 0.5])
def mutants(request) -> tuple[float, list[dict]]:
    rng = np.random.default_rng(1)
    return request.param, [SPACE.mutate(middle(), rng, request.param) for _ in range(N)]


@pytest.mark.parametrize("gene", WIDTH)
def test_a_number_mutates_with_its_rate_and_width(mutants, gene):
    decay, found = mutants
    scale = math.log10 if gene in ("lr", "eps", "weight_decay") else float
    steps = np.array([scale(params[gene]) - scale(middle()[gene]) for params in found])
    moved = steps[np.abs(steps) > 1e-13]
    sigma = 0.3 * decay * WIDTH[gene]
    assert_rate(len(moved), N, 0.35 * decay)
    assert stats.kstest(moved / sigma, "norm").pvalue > 1e-4


def test_each_alpha_is_multiplied_by_a_log_normal_with_its_rate(mutants):
    decay, found = mutants
    kept = [params for params in found if [params["term_0"], params["term_1"]] == ["GRAD", "SIGN_GRAD"]]
    kept = [params for params in kept if params["n_terms"] == 2]
    for i, sign in ((0, 1), (1, -1)):
        factors = np.array([sign * params[f"alpha_{i}"] for params in kept])
        moved = np.log(factors[factors != 1])
        assert_rate(len(moved), len(kept), 0.35 * decay)
        assert stats.kstest(moved / (0.3 * decay), "norm").pvalue > 1e-4


def test_a_flag_flips_with_its_rate_whatever_it_was(mutants):
    decay, found = mutants
    rng = np.random.default_rng(2)
    other = middle(**{flag: not middle()[flag] for flag in FLAGS})
    others = [SPACE.mutate(other, rng, decay) for _ in range(N)]
    for flag in FLAGS:
        assert_rate(sum(params[flag] != middle()[flag] for params in found), N, 0.1 * decay)
        assert_rate(sum(params[flag] != other[flag] for params in others), N, 0.1 * decay)


def test_clip_value_and_warmup_steps_never_mutate(mutants):
    _, found = mutants
    assert {(params["clip_value"], params["warmup_steps"]) for params in found} == {(1.25, 77)}


def test_structural_mutation_adds_removes_and_changes_equally_often(mutants):
    decay, found = mutants
    before = ("GRAD", "SIGN_GRAD")
    kinds: Counter[str] = Counter()
    for params in found:
        terms = SPACE.candidate(params).terms
        if len(terms) == 2:
            kinds["change"] += terms != before
            assert sum(a != b for a, b in zip(terms, before, strict=True)) <= 1
        elif len(terms) == 1:
            kinds["remove"] += 1
            assert terms[0] in before
        else:
            kinds["add"] += 1
            assert terms[:2] == before
            assert abs(params["alpha_2"]) <= 1
    assert set(kinds) == {"add", "remove", "change"}
    for n in kinds.values():
        assert_rate(n, N, 0.15 * decay / 3)


def test_a_mutant_has_one_to_four_terms_whatever_it_was():
    rng = np.random.default_rng(3)
    one, four = middle(terms=("GRAD",), alphas=(1.0,)), middle(terms=("GRAD",) * 4, alphas=(1.0,) * 4)
    assert {SPACE.mutate(one, rng, 1.0)["n_terms"] for _ in range(800)} == {1, 2}
    assert {SPACE.mutate(four, rng, 1.0)["n_terms"] for _ in range(800)} == {3, 4}


def test_a_removed_term_takes_its_own_alpha_along():
    rng = np.random.default_rng(4)
    parent = middle(terms=("GRAD", "MOMENTUM", "SIGN_GRAD"), alphas=(1.0, 2.0, -3.0))
    scale = {"GRAD": 1.0, "MOMENTUM": 2.0, "SIGN_GRAD": -3.0}
    for _ in range(600):
        genome = SPACE.candidate(SPACE.mutate(parent, rng, 1.0))
        if len(genome.terms) == 2:
            for term, alpha in zip(genome.terms, genome.alphas, strict=True):
                assert alpha / scale[term] > 0.2
                assert alpha / scale[term] < 5


@given(genomes(), st.integers(0, 2**32), st.sampled_from([0.5, 0.75, 1.0]))
def test_every_mutant_of_every_genome_is_valid(genome, seed, decay):
    rng = np.random.default_rng(seed)
    params = SPACE.params(genome)
    for _ in range(5):
        params = SPACE.mutate(params, rng, decay)
        assert within(params)
        assert is_plain(params)


@pytest.mark.parametrize("gene", DOMAIN)
@pytest.mark.parametrize("end", [0, 1])
def test_a_mutant_of_a_gene_at_its_bound_stays_inside(gene, end):
    rng = np.random.default_rng(5)
    low, high = DOMAIN[gene]
    parent = middle(**{gene: DOMAIN[gene][end]})
    values = [SPACE.mutate(parent, rng, 1.0)[gene] for _ in range(300)]
    assert all(low <= value <= high for value in values)
    assert len(set(values)) > 20


# Crossover


def numbered(first: bool, n: int) -> dict:
    """Parameters whose alphas say where they come from: 1, 2, … in the first parent, −1, … in the other."""
    alphas = tuple(float(i + 1 if first else -i - 1) for i in range(n))
    return middle(
        terms=("GRAD" if first else "SIGN_GRAD",) * n,
        alphas=alphas,
        lr=1e-3 if first else 1e-2,
        warmup_steps=10 if first else 20,
        clip_value=1.0 if first else 2.0,
        **dict.fromkeys(FLAGS, first),
        **({"beta1": 0.1, "beta2": 0.1, "eps": 1e-5, "weight_decay": 1e-5} if first else {}),
    )


@pytest.mark.parametrize(("n_first", "n_second"), [(1, 1), (1, 3), (2, 3), (3, 2), (4, 4), (4, 1)])
def test_a_child_has_the_head_of_one_parent_and_the_tail_of_the_other(n_first, n_second):
    rng = np.random.default_rng(6)
    first, second = numbered(True, n_first), numbered(False, n_second)
    found: Counter[tuple[float, ...]] = Counter()
    for _ in range(N // 4):
        child = SPACE.candidate(SPACE.crossover(first, second, rng))
        found[child.alphas] += 1
        assert child.terms == tuple("GRAD" if a > 0 else "SIGN_GRAD" for a in child.alphas)
    expected: Counter[tuple[float, ...]] = Counter()
    for i in range(1, n_first + 1):
        for j in range(n_second):
            head, tail = range(1, i + 1), range(j + 1, n_second + 1)
            child = tuple([float(a) for a in head] + [-float(a) for a in tail])[:4]
            expected[child] += 1
    assert set(found) == set(expected)
    if len(expected) > 1:
        shares = np.array([expected[c] for c in expected]) * (N // 4) / (n_first * n_second)
        assert stats.chisquare([found[c] for c in expected], shares).pvalue > 1e-4


def test_every_other_gene_comes_from_either_parent_with_one_half_and_alone():
    rng = np.random.default_rng(7)
    first, second = numbered(True, 2), numbered(False, 2)
    genes = [*WIDTH, *FLAGS, "clip_value", "warmup_steps"]
    assert all(first[gene] != second[gene] for gene in genes)
    table = []
    for _ in range(N):
        child = SPACE.crossover(first, second, rng)
        assert all(child[gene] in (first[gene], second[gene]) for gene in genes)
        table.append([float(child[gene] == first[gene]) for gene in genes])
    for column in np.array(table).T:
        assert_rate(int(column.sum()), N, 0.5)
    correlation = np.corrcoef(np.array(table), rowvar=False) - np.eye(len(genes))
    assert np.abs(correlation).max() < 5 / math.sqrt(N)


@given(genomes(), genomes(), st.integers(0, 2**32))
def test_every_child_of_any_two_genomes_is_valid(a, b, seed):
    child = SPACE.crossover(SPACE.params(a), SPACE.params(b), np.random.default_rng(seed))
    assert within(child)
    assert is_plain(child)
    assert 1 <= child["n_terms"] <= 4


def test_variation_leaves_its_parents_alone():
    rng = np.random.default_rng(8)
    first, second = numbered(True, 3), numbered(False, 2)
    for _ in range(50):
        SPACE.mutate(SPACE.crossover(first, second, rng), rng, 1.0)
    assert (first, second) == (numbered(True, 3), numbered(False, 2))


def test_variation_draws_from_the_generator_it_is_given_and_from_nothing_else():
    def trail(noise: int) -> list[dict]:
        np.random.seed(noise)  # noqa: NPY002  the global generator is what must not matter
        rng = np.random.default_rng(9)
        a, b = SPACE.sample(rng), SPACE.sample(rng)
        return [a, b, SPACE.mutate(SPACE.crossover(a, b, rng), rng, 1.0)]

    assert trail(1) == trail(2)


def test_a_genome_expresses_what_changes_its_canonical_form():
    space = TermSpace()
    rng = np.random.default_rng(0)
    for _ in range(200):
        params = space.sample(rng)
        form, used = space.candidate(params).canonical(), space.expressed(params)
        assert used.items() <= params.items()
        for flag in FLAGS:
            other = space.candidate({**params, flag: not params[flag]}).canonical()
            assert (flag in used) is (other != form)
        n = params["n_terms"]
        for i in range(4):
            assert (f"term_{i}" in used, f"alpha_{i}" in used) == (i < n, i < n)
        for gene in ("beta1", "beta2", "eps", "clip_value", "warmup_steps", "lr", "weight_decay"):
            value = params[gene] + 1 if gene == "warmup_steps" else params[gene] * 0.9
            other = space.candidate({**params, gene: value}).canonical()
            assert (gene in used) is (other != form), gene
