"""The canonical form: equal for the same optimizer alone."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scalar_rule import by_the_spec
from strategies import TERMS, genome, genomes

from optevo.optim.terms.genome import TermGenome


@given(genomes(), st.randoms(use_true_random=False))
def test_the_order_of_terms_does_not_change_the_canonical_form(g, rng):
    pairs = list(zip(g.terms, g.alphas, strict=True))
    rng.shuffle(pairs)
    terms, alphas = zip(*pairs, strict=True)
    assert dataclasses.replace(g, terms=terms, alphas=alphas).canonical() == g.canonical()


def test_no_order_of_four_like_terms_changes_the_canonical_form_by_rounding():
    alphas = (0.1, 0.7, -0.3, 1e-9)
    forms = {genome(*["ADAM_TERM"] * 4, alphas=p).canonical() for p in itertools.permutations(alphas)}
    assert len(forms) == 1


def test_no_order_of_nesterov_and_its_parts_changes_the_canonical_form_by_rounding():
    pairs = (("NESTEROV", 0.1), ("NESTEROV", 0.7), ("MOMENTUM", -0.3), ("GRAD", 0.13))
    forms = set()
    for order in itertools.permutations(pairs):
        terms, alphas = zip(*order, strict=True)
        forms.add(genome(*terms, alphas=alphas, beta1=0.87).canonical())
    assert len(forms) == 1


@given(genomes(), st.integers(0, 3))
def test_a_term_cut_in_two_halves_is_the_same_optimizer(g, at):
    assume(len(g.terms) < 4 and at < len(g.terms))
    half = g.alphas[at] / 2
    alphas = (*g.alphas[:at], half, *g.alphas[at + 1 :], half)
    split = dataclasses.replace(g, terms=(*g.terms, g.terms[at]), alphas=alphas)
    assert split.canonical() == g.canonical()


@given(genomes(), st.sampled_from(TERMS), st.sampled_from([0.0, -0.0]))
def test_a_term_of_weight_zero_is_no_term(g, term, zero):
    assume(len(g.terms) < 4)
    longer = dataclasses.replace(g, terms=(*g.terms, term), alphas=(*g.alphas, zero))
    assert longer.canonical() == g.canonical()
    assert (longer.rule().reads_m, longer.rule().reads_v) == (g.rule().reads_m, g.rule().reads_v)


def test_no_momentum_and_beta1_of_zero_are_the_same_optimizer():
    for term in TERMS:
        for corrected in (False, True):
            off = genome(term, use_momentum=False, beta1=0.7, bias_correction=corrected)
            zero = genome(term, beta1=0.0, bias_correction=corrected)
            assert off.canonical() == zero.canonical(), term


def test_no_second_moment_and_beta2_of_zero_are_the_same_optimizer():
    for term in TERMS:
        for corrected in (False, True):
            off = genome(term, use_second_moment=False, beta2=0.7, bias_correction=corrected)
            zero = genome(term, beta2=0.0, bias_correction=corrected)
            assert off.canonical() == zero.canonical(), term


def test_nesterov_and_its_two_parts_are_the_same_optimizer():
    nesterov = genome("NESTEROV", alphas=(2.0,), beta1=0.5)
    parts = genome("GRAD", "MOMENTUM", beta1=0.5)
    assert nesterov.canonical() == parts.canonical()


def has_denominator(g: TermGenome) -> bool:
    rule = g.rule()
    return bool(rule.rms or rule.adam or rule.unit)


@given(genomes(), genomes())
def test_a_gene_that_nothing_reads_does_not_change_the_canonical_form(g, other):
    rule = g.rule()
    idle: dict[str, object] = {}
    if not {"MOMENTUM", "ADAM_TERM", "NESTEROV"} & set(g.terms):
        idle |= {"beta1": other.beta1, "use_momentum": other.use_momentum}
    if not {"RMS_NORM", "ADAM_TERM"} & set(g.terms):
        idle |= {"beta2": other.beta2, "use_second_moment": other.use_second_moment}
    if not g.use_second_moment:
        idle["beta2"] = other.beta2
    if not g.use_momentum:
        idle["beta1"] = other.beta1
    if not has_denominator(g):
        idle["eps"] = other.eps
    if not g.gradient_clipping:
        idle["clip_value"] = other.clip_value
    if not g.warmup:
        idle["warmup_steps"] = other.warmup_steps
    if not rule.reads_m and not rule.reads_v:
        idle["bias_correction"] = other.bias_correction
    assert dataclasses.replace(g, **idle).canonical() == g.canonical(), idle


@pytest.mark.parametrize(
    ("idle", "terms", "first", "second"),
    [
        (
            "beta1",
            ("NESTEROV",),
            {"use_momentum": False, "beta1": 0.9},
            {"use_momentum": False, "beta1": 0.3},
        ),
        ("beta2", ("MOMENTUM",), {"beta2": 0.9}, {"beta2": 0.99}),
        ("beta2", ("ADAM_TERM",), {"use_second_moment": False}, {"use_second_moment": False, "beta2": 0.5}),
        ("eps", ("NESTEROV", "SIGN_GRAD"), {"eps": 1e-8}, {"eps": 1e-5}),
        ("clip_value", ("GRAD",), {"clip_value": 0.5}, {"clip_value": 1.5}),
        ("warmup_steps", ("GRAD",), {"warmup_steps": 50}, {"warmup_steps": 150}),
        ("bias_correction", ("SIGN_GRAD", "UNIT_GRAD"), {}, {"bias_correction": True}),
        ("use_momentum", ("RMS_NORM",), {}, {"use_momentum": False}),
        ("use_second_moment", ("MOMENTUM",), {}, {"use_second_moment": False}),
        ("warmup of one step", ("GRAD",), {}, {"warmup": True, "warmup_steps": 1}),
        ("clipping before a sign", ("SIGN_GRAD",), {}, {"gradient_clipping": True}),
    ],
)
def test_an_irrelevant_gene_does_not_change_the_canonical_form(idle, terms, first, second):
    assert genome(*terms, **first).canonical() == genome(*terms, **second).canonical(), idle


@pytest.mark.parametrize(
    ("gene", "value", "rest"),
    [
        ("lr", 0.01 * (1 + 1e-6), {}),
        ("weight_decay", 1e-3, {}),
        ("alphas", (1.0 + 1e-6,), {}),
        ("beta1", 0.91, {}),
        ("beta2", 0.9991, {}),
        ("eps", 2e-8, {}),
        ("use_momentum", False, {}),
        ("use_second_moment", False, {}),
        ("bias_correction", True, {}),
        ("gradient_clipping", True, {}),
        ("clip_value", 0.5, {"gradient_clipping": True}),
        ("warmup", True, {}),
        ("warmup_steps", 51, {"warmup": True}),
        ("cosine_decay", True, {}),
    ],
)
def test_a_gene_that_is_read_changes_the_canonical_form(gene, value, rest):
    g = genome("ADAM_TERM", **rest)
    assert dataclasses.replace(g, **{gene: value}).canonical() != g.canonical()


@given(genomes(), genomes())
def test_optimizers_of_one_canonical_form_make_the_same_updates(g, other):
    """Equal forms, equal updates: tried on pairs one gene apart, where forms do coincide."""
    gradients = [0.3, -1.7, 0.0, 0.02, -0.9, 4.0]
    for gene in ("beta1", "beta2", "eps", "use_momentum", "use_second_moment", "bias_correction"):
        near = dataclasses.replace(g, **{gene: getattr(other, gene)})
        if near.canonical() == g.canonical():
            ours, theirs = by_the_spec(g, gradients), by_the_spec(near, gradients)
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9), gene
            assert near.lr == g.lr
