"""How genomes of the modern catalogue are drawn, crossed and mutated."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modern_params import SPACE, modern_genomes, within

from optevo.optim.kinds import KINDS
from optevo.optim.schedules import DECAYS
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.table import MODERN_TERMS
from optevo.spaces.modern_variation import (
    BETAS,
    DESCENDING,
    LEADING,
    LOG_SIGMA,
    crossover,
    edited,
    leads,
    mutate,
    restructure,
    sample,
)

N = 1500
SECOND = SecondRule(kinds=("convolution",), terms=("ORTHO", "GRAD"), alphas=(1.0, 2.0), rate=4.0, beta1=0.95)
MIDDLE = ModernGenome(
    terms=("ADAM_TERM", "SLOW"),
    alphas=(1.0, -2.0),
    lr=1e-3,
    beta_slow=0.999,
    eps=1e-7,
    weight_decay=1e-2,
    gradient_clipping=True,
    clip_value=0.1,
    warmup=0.2,
    hold=0.2,
    decay="linear",
    final=0.5,
    second=SECOND,
)


@pytest.fixture(scope="module")
def draws() -> list[ModernGenome]:
    rng = np.random.default_rng(0)
    return [sample(rng) for _ in range(N)]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def test_a_random_genome_has_parameters_of_its_own(draws):
    for genome in draws[:300]:
        params = SPACE.params(genome)
        assert within(params)
        assert SPACE.candidate(params) == genome


def test_the_prior_is_broad_and_sensible(draws):
    assert share([genome.second is not None for genome in draws]) == pytest.approx(0.5, abs=0.06)
    assert share([genome.cautious for genome in draws]) == pytest.approx(0.3, abs=0.06)
    assert share([genome.decay == "none" for genome in draws]) == pytest.approx(0.1, abs=0.04)
    assert max(genome.warmup for genome in draws) <= 0.2
    leading = [genome for genome in draws if leads(genome.terms)]
    assert len(leading) / N == pytest.approx(0.95, abs=0.03)
    assert all(1e-4 <= genome.lr <= 10**-1.5 for genome in leading)
    assert {genome.terms for genome in draws if not leads(genome.terms)} == {(name,) for name in DESCENDING}
    weights = [
        alpha
        for genome in draws
        for term, alpha in zip(genome.terms, genome.alphas, strict=True)
        if term in LEADING
    ]
    assert share([weight > 0 for weight in weights]) > 0.9
    assert all(0.2 < abs(weight) < 2.1 for weight in weights)
    used = Counter(
        term for genome in draws for rule in (genome, genome.second) if rule for term in rule.terms
    )
    assert used.keys() == set(MODERN_TERMS)
    assert all(any(kind in genome.second.kinds for genome in draws if genome.second) for kind in KINDS)


# Mutation


@given(modern_genomes(), st.integers(0, 2**32), st.sampled_from([0.01, 0.5, 1.0]))
def test_a_mutant_of_any_genome_is_another_optimizer_of_the_space(genome, seed, decay):
    mutant = mutate(genome, np.random.default_rng(seed), decay)
    params = SPACE.params(mutant)
    assert within(params)
    assert SPACE.candidate(params) == mutant
    assert mutant.canonical() != genome.canonical()


def test_at_the_smallest_decay_the_rate_alone_moves():
    mutant = mutate(MIDDLE, np.random.default_rng(0), 1e-12)
    assert dataclasses.replace(mutant, lr=MIDDLE.lr) == MIDDLE
    assert 0 < abs(math.log10(mutant.lr / MIDDLE.lr)) < 0.01


@pytest.fixture(scope="module", params=[1.0, 0.5])
def mutants(request) -> tuple[float, list[ModernGenome]]:
    rng = np.random.default_rng(1)
    return request.param, [mutate(MIDDLE, rng, request.param) for _ in range(N)]


@pytest.mark.parametrize("gene", [*LOG_SIGMA, *BETAS])
def test_numbers_move_as_often_and_as_far_as_the_decay_says(mutants, gene):
    decay, found = mutants

    def scale(genome: ModernGenome) -> float:
        value = getattr(genome, gene)
        return math.log10(1 - value if gene in BETAS else value)

    # Rules that change places, and a weight decay that is dropped, are other changes than these.
    kept = [one for one in found if one.weight_decay > 0 and one.second and one.terms[0] != "ORTHO"]
    steps = np.array([scale(one) - scale(MIDDLE) for one in kept])
    moved = steps[np.abs(steps) > 1e-12]
    assert len(moved) / len(kept) == pytest.approx(0.3 * decay, abs=0.07)
    assert abs(moved.mean()) < 0.1
    width = decay * LOG_SIGMA.get(gene, 0.3)
    assert 0.7 * width < moved.std() < 1.2 * width


def test_every_gene_mutates(mutants):
    _, found = mutants
    for field in dataclasses.fields(ModernGenome):
        assert any(getattr(one, field.name) != getattr(MIDDLE, field.name) for one in found), field.name
    for field in dataclasses.fields(SecondRule):
        changed = [getattr(one.second, field.name) for one in found if one.second]
        assert any(value != getattr(SECOND, field.name) for value in changed), field.name
    assert {one.decay for one in found} == set(DECAYS)
    assert any(one.weight_decay == 0 for one in found)


def test_a_weight_decay_comes_back():
    rng, plain = np.random.default_rng(2), dataclasses.replace(MIDDLE, weight_decay=0.0)
    back = [one.weight_decay for one in (mutate(plain, rng, 1.0) for _ in range(100)) if one.weight_decay]
    assert len(back) > 10
    assert min(back) >= 1e-4


def test_structure_changes_in_every_way():
    rng, found = np.random.default_rng(3), Counter[str]()
    for _ in range(N):
        one = restructure(MIDDLE, rng)
        second = one.second
        if second is None:
            found["lost"] += 1
        elif second.kinds != SECOND.kinds:
            assert len(set(second.kinds) ^ set(SECOND.kinds)) == 1
            found["kinds"] += 1
        elif (second.terms, second.alphas, second.beta1) == (MIDDLE.terms, MIDDLE.alphas, MIDDLE.beta1):
            swapped = one.terms == SECOND.terms
            found["swapped" if swapped else "copied"] += 1
            if swapped:
                assert (one.lr, one.beta1, second.rate) == (4e-3, 0.95, 0.25)
                assert one.rates()["convolution"] == 0.25
        elif second != SECOND:
            assert abs(len(second.terms) - 2) <= 1
            found["second edited"] += 1
        else:
            assert one.terms != MIDDLE.terms
            found["first edited"] += 1
    assert set(found) == {"lost", "kinds", "swapped", "copied", "second edited", "first edited"}
    assert min(found.values()) > N / 16
    gained = {restructure(dataclasses.replace(MIDDLE, second=None), rng).second is None for _ in range(50)}
    assert gained == {True, False}


@given(modern_genomes(), st.integers(0, 2**32))
def test_a_rule_that_leads_goes_on_leading(genome, seed):
    rng = np.random.default_rng(seed)
    terms, alphas = edited(genome.terms, genome.alphas, 4, rng)
    assert terms != genome.terms
    assert 1 <= len(terms) == len(alphas) <= 4
    assert leads(terms) or not leads(genome.terms)


def test_a_rule_that_comes_to_lead_has_a_lower_rate():
    rng, sgd = np.random.default_rng(4), MODERN_PRESETS["sgd"]
    found = [restructure(sgd, rng) for _ in range(60)]
    assert any(leads(one.terms) for one in found)
    assert all(one.lr == (1e-3 if leads(one.terms) else 1e-2) for one in found)


# Crossover


@given(modern_genomes(), modern_genomes(), st.integers(0, 2**32))
def test_every_child_of_any_two_genomes_is_in_the_space(a, b, seed):
    child = crossover(a, b, np.random.default_rng(seed))
    assert within(SPACE.params(child))
    assert child.second in (a.second, b.second)
    assert child.lr in (a.lr, b.lr)


def test_a_child_has_blocks_of_its_parents():
    rng = np.random.default_rng(5)
    a, b = MIDDLE, dataclasses.replace(MODERN_PRESETS["lion"], eps=1e-6)
    children = [crossover(a, b, rng) for _ in range(N)]
    spliced = [one for one in children if one.terms not in (a.terms, b.terms)]
    assert {one.terms for one in spliced} == {
        ("ADAM_TERM", "LION"),
        ("ADAM_TERM", "SLOW", "LION"),
        ("LION", "ADAM_TERM", "SLOW"),
        ("LION", "SLOW"),
    }
    assert share([one in spliced for one in children]) == pytest.approx(0.3, abs=0.05)
    for one in children:
        first = a if one.terms[0] == a.terms[0] else b
        assert (one.lr, one.beta1) == (first.lr, first.beta1)

    def schedule(one: ModernGenome) -> tuple[float, float, str, float]:
        return one.warmup, one.hold, one.decay, one.final

    whole = [schedule(one) in (schedule(a), schedule(b)) for one in children]
    assert share(whole) == pytest.approx(0.8 + 0.2 / 8, abs=0.04)
    assert share([one.second is None for one in children]) == pytest.approx(0.5, abs=0.06)
    for gene in ("eps", "weight_decay", "clip_value", "gradient_clipping"):
        assert share([getattr(one, gene) == getattr(a, gene) for one in children]) == pytest.approx(
            0.5, abs=0.06
        ), gene


def test_variation_leaves_its_parents_alone_and_draws_from_its_generator_alone():
    def trail(noise: int) -> list[dict]:
        np.random.seed(noise)  # noqa: NPY002  the global generator is what must not matter
        rng = np.random.default_rng(9)
        a, b = SPACE.sample(rng), SPACE.presets()["muon"]
        before = [dict(a), dict(b)]
        child = SPACE.vary([a, b], rng, 1.0)
        alone = SPACE.vary([child], rng, 0.5)
        assert [a, b] == before
        return [a, child, alone]

    assert trail(1) == trail(2)
