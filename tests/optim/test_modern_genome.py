"""`ModernGenome`: its canonical form, equal for the same optimizer alone, its formula and its gate."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from modern_optimizers import modern
from modern_params import modern_genomes

from optevo.optim.kinds import KINDS
from optevo.optim.terms.modern import FLAGS, ModernGenome, SecondRule
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.table import MODERN_TERMS


def second(*kinds: str, terms: tuple[str, ...] = ("ORTHO",), **genes: Any) -> SecondRule:
    return SecondRule(**{"kinds": kinds, "terms": terms, "alphas": (1.0,) * len(terms), **genes})


def same(one: ModernGenome, other: ModernGenome) -> bool:
    return one.canonical() == other.canonical()


@given(modern_genomes(), st.randoms(use_true_random=False))
def test_the_order_of_terms_does_not_change_the_canonical_form(g: ModernGenome, rng: Any):
    pairs = list(zip(g.terms, g.alphas, strict=True))
    rng.shuffle(pairs)
    terms, alphas = zip(*pairs, strict=True)
    assert same(dataclasses.replace(g, terms=terms, alphas=alphas), g)


@given(modern_genomes(), st.integers(0, 3), st.sampled_from(MODERN_TERMS), st.sampled_from([0.0, -0.0]))
def test_a_term_cut_in_two_and_one_of_weight_zero_change_nothing(g, at, term, zero):
    assume(len(g.terms) < 4)
    assert same(dataclasses.replace(g, terms=(*g.terms, term), alphas=(*g.alphas, zero)), g)
    at %= len(g.terms)
    half = g.alphas[at] / 2
    alphas = (*g.alphas[:at], half, *g.alphas[at + 1 :], half)
    assert same(dataclasses.replace(g, terms=(*g.terms, g.terms[at]), alphas=alphas), g)


@given(modern_genomes(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
def test_a_second_rule_that_is_the_first_is_none(g: ModernGenome, kinds: list[str]):
    g = dataclasses.replace(g, terms=g.terms[:2], alphas=g.alphas[:2], second=None)
    alike = SecondRule(kinds=tuple(kinds), terms=g.terms, alphas=g.alphas, beta1=g.beta1)
    assert same(dataclasses.replace(g, second=alike), g)


@given(modern_genomes(), st.sampled_from([*FLAGS, "lr", "weight_decay", "head_rate", "vector_rate"]))
def test_a_repeated_canonical_form_is_a_repeated_rule_of_every_kind(g: ModernGenome, name: str):
    value = getattr(g, name)
    other = dataclasses.replace(g, **{name: not value if name in FLAGS else value * 0.99 + 1e-5})
    alike = all(g.rule_of(kind) == other.rule_of(kind) for kind in KINDS)
    assert same(g, other) == (alike and name in FLAGS)


SAME: dict[str, tuple[ModernGenome, ModernGenome]] = {
    "a hold before no decay": (modern("LION", hold=0.5), modern("LION", hold=0.1, final=0.3)),
    "a decay to 1": (modern("LION", decay="cosine", final=1.0), modern("LION")),
    "a decay of no length": (modern("LION", warmup=0.4, hold=0.6, decay="sqrt"), modern("LION", warmup=0.4)),
    "no momentum and β₁ = 0": (
        modern("ORTHO", "LION", "SLOW", use_momentum=False),
        modern("ORTHO", "LION", "SLOW", beta1=0.0),
    ),
    "LION without a moment": (modern("LION", use_momentum=False), modern("SIGN_GRAD", beta2=0.5)),
    "LION that sees the gradient alone": (modern("LION", beta_lion=0.0), modern("SIGN_GRAD")),
    "no second moment and β₂ = 0": (modern("SLOW", use_second_moment=False), modern("SLOW", beta2=0.0)),
    "what LION alone never reads": (
        modern("LION", eps=1e-5, beta2=0.5, beta_slow=0.95, bias_correction=False),
        modern("LION"),
    ),
    "what ORTHO reads for vectors alone": (
        modern("ORTHO", second=second("vector", terms=("LION",)), eps=1e-5, beta2=0.5, bias_correction=False),
        modern("ORTHO", second=second("vector", terms=("LION",))),
    ),
    "ORTHO for vectors": (
        modern("GRAD", second=second("vector")),
        modern("GRAD", second=second("vector", terms=("ADAM_TERM",))),
    ),
    "ORTHO but for vectors, which get what they would": (
        modern("ORTHO", second=second("vector", terms=("ADAM_TERM",))),
        modern("ORTHO"),
    ),
    "rules changed about": (
        modern("LION", lr=0.5e-2, beta1=0.5, second=second("convolution", "hidden", rate=2.0)),
        modern("ORTHO", second=second("head", "vector", terms=("LION",), beta1=0.5, rate=0.5)),
    ),
    "clipping of a sign": (modern("SIGN_GRAD", gradient_clipping=True), modern("SIGN_GRAD")),
    "caution of nothing": (modern("GRAD", alphas=(0.0,), cautious=True), modern("GRAD", alphas=(0.0,))),
    "−0": (modern("GRAD", weight_decay=-0.0), modern("GRAD")),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_optimizer_has_the_same_form(name: str):
    one, other = SAME[name]
    assert one != other or name == "−0"
    assert same(one, other)


OTHER: dict[str, tuple[ModernGenome, ModernGenome]] = {
    "what ORTHO reads for vectors": (modern("ORTHO"), modern("ORTHO", beta2=0.5)),
    "its correction there": (modern("ORTHO"), modern("ORTHO", bias_correction=False)),
    "β of LION": (modern("LION"), modern("LION", beta_lion=0.5)),
    "caution": (modern("GRAD"), modern("GRAD", cautious=True)),
    "a kind's rate": (modern("GRAD"), modern("GRAD", head_rate=2.0)),
    "a rate of a second rule": (
        modern("GRAD", second=second("head", terms=("GRAD",), rate=2.0)),
        modern("GRAD"),
    ),
    "kinds": (modern("GRAD", second=second("head")), modern("GRAD", second=second("hidden"))),
    "hold": (modern("GRAD", decay="linear"), modern("GRAD", decay="linear", hold=0.1)),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_optimizer_has_another_form(name: str):
    assert not same(*OTHER[name])


@pytest.mark.parametrize(
    ("genome", "text"),
    [
        (modern("ORTHO"), "Δ = 1·orth(0.1·g + 0.9·m); vectors: Δ = 1·m̂/(√v̂ + 1e-08)"),
        (
            modern("ORTHO", use_momentum=False, use_second_moment=False),
            "Δ = 1·orth(g); vectors: Δ = 1·g/(|g| + 1e-08)",
        ),
        (modern("LION", "SLOW", alphas=(-1.0, 2.0)), "Δ = −1·sign(0.9·m + 0.1·g) + 2·s/(√v̂ + 1e-08)"),
        (
            modern("GRAD", cautious=True, gradient_clipping=True, clip_value=0.5),
            "Δ = cautious(1·g)   with g clipped to ±0.5",
        ),
        (
            modern("GRAD", second=second("hidden", "vector", beta1=0.5)),
            "Δ = 1·g; hidden matrices: Δ = 1·orth(0.5·g + 0.5·m); vectors: Δ = 1·m̂/(√v̂ + 1e-08)",
        ),
        (
            modern("ORTHO", second=second("head", "vector", terms=("LION",))),
            "Δ = 1·orth(0.1·g + 0.9·m); embeddings and the last layer and vectors: Δ = 1·sign(0.9·m + 0.1·g)",
        ),
        (modern("GRAD", alphas=(0.0,)), "Δ = 0"),
    ],
)
def test_a_formula_says_what_every_kind_gets(genome: ModernGenome, text: str):
    assert genome.formula() == text


@pytest.mark.parametrize("name", MODERN_PRESETS)
def test_presets_pass_the_gate(name: str):
    assert MODERN_PRESETS[name].gate() is None


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("term", MODERN_TERMS)
def test_a_rule_that_climbs_is_turned_away(term: str, cautious: bool):
    up, down = (modern(term, alphas=(alpha,), cautious=cautious) for alpha in (-1.0, 1.0))
    assert down.gate() is None
    assert str(up.gate()).startswith("gate: cannot descend")


@pytest.mark.parametrize(
    ("genome", "said"),
    [
        (modern("GRAD", second=second("head", alphas=(-1.0,))), "gate: the second rule: cannot descend"),
        (modern("GRAD", alphas=(0.0,)), "gate: cannot descend"),
        # Their scales differ: an element of ORTHO is a fifth of one of ADAM_TERM.
        (modern("ORTHO", "ADAM_TERM", alphas=(1.0, -1.0)), "gate: cannot descend"),
        (modern("ORTHO", "ADAM_TERM", alphas=(1.0, -0.5)), "gate: cannot descend"),
        (modern("ORTHO", "ADAM_TERM", alphas=(5.0, -0.1)), None),
        # Nothing for vectors, which stay as they are, and less than nothing, which climbs.
        (modern("ORTHO", "ADAM_TERM", alphas=(-1.0, 1.0)), None),
        (modern("ORTHO", "ADAM_TERM", alphas=(-1.1, 1.0)), "gate: vectors: cannot descend"),
        (modern("ORTHO", "ADAM_TERM", alphas=(-1.1, 1.0), second=second("vector", terms=("GRAD",))), None),
    ],
)
def test_the_gate_sees_matrices_as_matrices(genome: ModernGenome, said: str | None):
    reason = genome.gate()
    assert reason is None if said is None else str(reason).startswith(said)


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        ({"kinds": "head"}, "Invalid kinds: 'head' is not a sequence"),
        ({"kinds": ("heads",)}, "Invalid kind: 'heads'"),
        ({"kinds": ()}, "expected some of"),
        ({"kinds": KINDS}, "not all"),
        ({"kinds": None}, "Invalid kinds: None"),
        ({"rate": float("nan")}, "Invalid rate: nan"),
        ({"terms": ("ORTHO",) * 3}, "Invalid terms: 3 of them"),
        ({"beta1": 1}, r"Invalid beta1: 1, expected a number in \[0, 0.999\]"),
    ],
)
def test_a_bad_second_rule_is_refused(genes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        SecondRule(**{"kinds": ("head",), "terms": ("ORTHO",), "alphas": (1.0,), **genes})
