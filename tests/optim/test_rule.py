"""The algebra: genomes are checked, folded to six coefficients, named canonically, written as a formula."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scalar_rule import by_the_rule, by_the_spec, weighted_terms
from strategies import GENES, ORACLE, genome, genomes, oracle_genome

from optevo.optim.terms.genome import TermGenome

COEFFICIENTS = ("grad", "momentum", "rms", "adam", "sign", "unit")


def coefficients(g: TermGenome) -> dict[str, float]:
    """The non-zero coefficients of a genome's rule."""
    rule = g.rule()
    return {name: getattr(rule, name) for name in COEFFICIENTS if getattr(rule, name) != 0}


def presets() -> dict[str, TermGenome]:
    from optevo.optim.terms.presets import PRESETS  # noqa: PLC0415  the presets' package may import torch

    return PRESETS


# --- what a genome may be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("terms", ("GRAD", "FROBNICATE")),
        ("alphas", (5.1, 1.0)),
        ("alphas", (-5.1, 1.0)),
        ("alphas", (math.nan, 1.0)),
        ("alphas", (math.inf, 1.0)),
        ("lr", 0.5),
        ("lr", 1e-6),
        ("lr", 0.0),
        ("lr", -0.01),
        ("lr", math.nan),
        ("beta1", 1.0),
        ("beta1", 0.9995),
        ("beta1", -0.1),
        ("beta1", math.nan),
        ("beta2", 0.99995),
        ("beta2", -0.1),
        ("beta2", math.nan),
        ("eps", 1e-3),
        ("eps", 1e-11),
        ("eps", 0.0),
        ("weight_decay", 0.1),
        ("weight_decay", -1e-7),
        ("weight_decay", -0.001),
        ("clip_value", 0.0),
        ("clip_value", -1.0),
        ("clip_value", math.nan),
        ("warmup_steps", -1),
        ("warmup_steps", 2.5),
    ],
)
def test_a_value_outside_its_domain_is_refused_with_the_field_and_the_value(field, value):
    genes = {"terms": ("GRAD", "MOMENTUM"), "alphas": (1.0, 1.0), "lr": 1e-2, field: value}
    with pytest.raises(ValueError, match=field.rstrip("s")) as error:
        TermGenome(**genes)
    bad = {"terms": "FROBNICATE", "alphas": value[0] if field == "alphas" else None}.get(field, value)
    assert str(bad) in str(error.value)


@pytest.mark.parametrize("terms", [(), ("GRAD",) * 5])
def test_a_genome_has_one_to_four_terms(terms):
    with pytest.raises(ValueError, match="terms"):
        TermGenome(terms=terms, alphas=(1.0,) * len(terms), lr=1e-2)


def test_every_term_has_its_alpha():
    with pytest.raises(ValueError, match="alphas"):
        TermGenome(terms=("GRAD", "MOMENTUM"), alphas=(1.0,), lr=1e-2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alphas", (-5.0,)),
        ("alphas", (5.0,)),
        ("lr", 1e-5),
        ("lr", 1e-1),
        ("beta1", 0.0),
        ("beta1", 0.999),
        ("beta2", 0.0),
        ("beta2", 0.9999),
        ("eps", 1e-10),
        ("eps", 1e-4),
        ("weight_decay", 1e-6),
        ("weight_decay", 1e-2),
        ("clip_value", 1e-3),
    ],
)
def test_the_ends_of_a_domain_are_inside_it(field, value):
    assert getattr(genome("ADAM_TERM", **{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "low", "high"), [("lr", -5, -1), ("eps", -10, -4), ("weight_decay", -6, -2)]
)
def test_the_ends_of_a_logarithmic_domain_survive_their_exponent(field, low, high):
    for end in (low, high):
        assert genome("ADAM_TERM", **{field: 10.0**end}).formula()


def test_the_repositorys_name_of_unit_grad_is_read_and_stored_as_unit_grad():
    assert genome("SQRT_GRAD", "GRAD").terms == ("UNIT_GRAD", "GRAD")
    assert TermGenome.from_dict({"terms": ["SQRT_GRAD"], "alphas": [1.0], "lr": 1e-2}).terms == ("UNIT_GRAD",)


def test_a_genome_has_the_documented_defaults():
    g = TermGenome(terms=("GRAD",), alphas=(1.0,), lr=1e-2)
    assert (g.beta1, g.beta2, g.eps, g.weight_decay) == (0.9, 0.999, 1e-8, 1e-4)
    assert (g.use_momentum, g.use_second_moment, g.bias_correction) == (True, True, False)
    assert (g.gradient_clipping, g.clip_value) == (False, 1.0)
    assert (g.warmup, g.warmup_steps, g.cosine_decay) == (False, 100, False)


def test_a_genome_is_keyword_only_frozen_and_hashable():
    with pytest.raises(TypeError):
        TermGenome(("GRAD",), (1.0,), 1e-2)
    g = genome("GRAD")
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.lr = 1.0
    assert len({g, genome("GRAD")}) == 1
    assert g != genome("GRAD", lr=1e-3)


def test_lists_are_stored_as_tuples_so_a_genome_stays_hashable():
    g = TermGenome(terms=["GRAD"], alphas=[1.0], lr=1e-2)
    assert g == genome("GRAD")
    assert hash(g) == hash(genome("GRAD"))


@given(genomes())
def test_a_genome_survives_json(g):
    assert TermGenome.from_dict(json.loads(json.dumps(g.to_dict()))) == g


def test_a_dict_holds_every_gene_by_its_name():
    assert set(genome("GRAD").to_dict()) == set(GENES)


def test_an_unknown_gene_in_a_dict_is_refused_by_name():
    with pytest.raises((ValueError, TypeError), match="betta1"):
        TermGenome.from_dict({**genome("GRAD").to_dict(), "betta1": 0.9})


# --- folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "coefficient"),
    [
        ("GRAD", "grad"),
        ("MOMENTUM", "momentum"),
        ("RMS_NORM", "rms"),
        ("ADAM_TERM", "adam"),
        ("SIGN_GRAD", "sign"),
        ("UNIT_GRAD", "unit"),
    ],
)
def test_each_plain_term_is_one_coefficient(term, coefficient):
    assert coefficients(genome(term, alphas=(-2.5,))) == {coefficient: -2.5}


def test_repeated_terms_add_up():
    assert coefficients(genome(*["SIGN_GRAD", "GRAD"] * 2, alphas=(1.0, 2.0, 0.5, -3.0))) == {
        "sign": 1.5,
        "grad": -1.0,
    }


def test_nesterov_splits_into_gradient_and_momentum_by_beta1():
    assert coefficients(genome("NESTEROV", alphas=(2.0,), beta1=0.75)) == {"grad": 1.5, "momentum": 0.5}


def test_nesterov_splits_by_its_own_beta1_and_not_by_a_fixed_one():
    split = coefficients(genome("NESTEROV", beta1=0.5))
    assert split == {"grad": 0.5, "momentum": 0.5}


@pytest.mark.parametrize("off", [{"use_momentum": False}, {"beta1": 0.0}])
def test_without_momentum_the_first_moment_is_the_gradient(off):
    g = genome("MOMENTUM", "NESTEROV", "ADAM_TERM", alphas=(1.0, 2.0, 4.0), **off)
    assert coefficients(g) == {"grad": 3.0, "rms": 4.0}
    assert not g.rule().reads_m
    assert g.rule().reads_v


@pytest.mark.parametrize("off", [{"use_second_moment": False}, {"beta2": 0.0}])
def test_without_second_moment_rms_norm_is_the_unit_gradient(off):
    g = genome("RMS_NORM", "UNIT_GRAD", alphas=(1.0, 2.0), **off)
    assert coefficients(g) == {"unit": 3.0}
    assert not g.rule().reads_v


@pytest.mark.parametrize("off", [{"use_second_moment": False}, {"beta2": 0.0}])
def test_without_second_moment_the_adam_term_keeps_its_momentum_and_needs_no_v(off):
    rule = genome("ADAM_TERM", alphas=(2.0,), **off).rule()
    assert rule.adam == 2.0
    assert (rule.reads_m, rule.reads_v) == (True, False)


@pytest.mark.parametrize("no_m", [{"use_momentum": False}, {"beta1": 0.0}])
@pytest.mark.parametrize("no_v", [{"use_second_moment": False}, {"beta2": 0.0}])
def test_without_both_moments_the_adam_term_is_the_unit_gradient(no_m, no_v):
    g = genome("ADAM_TERM", "RMS_NORM", alphas=(2.0, 1.0), **no_m, **no_v)
    assert coefficients(g) == {"unit": 3.0}
    assert not g.rule().reads_m
    assert not g.rule().reads_v


@pytest.mark.parametrize(
    ("terms", "reads_m", "reads_v"),
    [
        (("GRAD", "SIGN_GRAD", "UNIT_GRAD"), False, False),
        (("MOMENTUM",), True, False),
        (("NESTEROV",), True, False),
        (("RMS_NORM",), False, True),
        (("ADAM_TERM",), True, True),
    ],
)
def test_a_rule_reads_only_the_moments_of_its_terms(terms, reads_m, reads_v):
    rule = genome(*terms).rule()
    assert (rule.reads_m, rule.reads_v) == (reads_m, reads_v)


def test_terms_that_cancel_need_no_moment():
    g = genome("ADAM_TERM", "GRAD", "ADAM_TERM", alphas=(1.5, 1.0, -1.5))
    assert coefficients(g) == {"grad": 1.0}
    assert (g.rule().reads_m, g.rule().reads_v) == (False, False)


def test_a_rule_has_a_clip_value_only_where_the_gradient_is_clipped():
    assert genome("GRAD", clip_value=0.5).rule().clip_value is None
    assert genome("GRAD", clip_value=0.5, gradient_clipping=True).rule().clip_value == 0.5


def test_a_rule_corrects_bias_only_where_a_moment_is_read():
    assert not genome("SIGN_GRAD", bias_correction=True).rule().bias_correction
    assert genome("MOMENTUM", bias_correction=True).rule().bias_correction
    assert not genome("ADAM_TERM", bias_correction=True, beta1=0.0, beta2=0.0).rule().bias_correction


GRADIENTS = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 1e1), st.floats(-1e1, -1e-3)), min_size=1, max_size=12
)


@given(genomes(), GRADIENTS)
@example(genome("ADAM_TERM", use_second_moment=False), [0.0, 1.0, 0.0])
@example(genome("NESTEROV", "RMS_NORM", beta1=0.0, bias_correction=True), [0.0, -2.0])
@example(genome("ADAM_TERM", use_momentum=False, bias_correction=True), [0.5, 0.0, -2.0])
def test_six_coefficients_say_what_the_terms_say(g, gradients):
    # Terms may cancel, so an error is measured against the largest of them.
    scale = max(abs(x) for weighted in weighted_terms(g, gradients) for x in weighted)
    assert by_the_rule(g, gradients) == pytest.approx(by_the_spec(g, gradients), rel=1e-9, abs=1e-12 * scale)


def test_every_oracle_genome_folds():
    for case in ORACLE["cases"]:
        g = oracle_genome(case)
        assert set(coefficients(g)) <= set(COEFFICIENTS), case["id"]
        assert TermGenome.from_dict(g.to_dict()).canonical() == g.canonical(), case["id"]


# --- the formula ----------------------------------------------------------------------------------


def test_the_formula_of_the_published_winner_reads_as_in_the_documents():
    formula = presets()["evolved"].formula()
    assert formula.startswith("Δ = ")
    assert re.search(r"0\.73\d*·sign\(g\)", formula)
    assert re.search(r"3\.64·m̂?/\(√v̂? \+ 5\.4\d*e-0?9\)", formula)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    ("terms", "genes", "has", "has_not"),
    [
        (("SIGN_GRAD",), {}, ["sign(g)"], ["m", "v"]),
        (("MOMENTUM",), {}, ["m"], ["v", "sign"]),
        (("ADAM_TERM",), {}, ["m", "√v"], ["sign"]),
        (("ADAM_TERM",), {"use_second_moment": False}, ["m", "|g|"], ["v"]),
        (("UNIT_GRAD",), {}, ["|g|"], ["m", "v"]),
    ],
)
def test_the_formula_names_what_the_rule_reads_and_nothing_else(terms, genes, has, has_not, corrected):
    formula = genome(*terms, alphas=(2.0,), bias_correction=corrected, **genes).formula()
    assert all(part in formula for part in has), formula
    assert not any(part in formula for part in has_not), formula


def test_the_formula_puts_hats_on_corrected_moments_alone():
    assert "m̂/(√v̂" in genome("ADAM_TERM", bias_correction=True).formula()
    assert "m/(√v " in genome("ADAM_TERM").formula()


def test_the_formula_says_where_the_gradient_is_clipped():
    clipped = genome("GRAD", gradient_clipping=True, clip_value=0.375).formula()
    assert clipped != genome("GRAD").formula()
    assert "0.375" in clipped


@given(genomes())
@example(genome("GRAD", "GRAD", alphas=(1.0, -1.0)))
@example(genome("GRAD", alphas=(0.0,)))
def test_every_genome_has_a_formula_of_one_line(g):
    assert g.formula().startswith("Δ = ")
    assert len(g.formula().splitlines()) == 1
    assert g.formula().removeprefix("Δ = ").strip()


def test_a_negative_coefficient_reads_as_a_subtraction():
    assert "+ -" not in genome("GRAD", "MOMENTUM", alphas=(1.0, -2.0)).formula()


# --- the presets ----------------------------------------------------------------------------------


def test_the_presets_are_the_specs():
    p = presets()
    assert {"sgd", "adam", "adamw", "rmsprop", "signsgd", "evolved"} <= set(p)
    plain = {"eps": 1e-8, "weight_decay": 1e-4}
    assert p["sgd"].canonical() == genome("MOMENTUM", lr=1e-2, beta1=0.9, **plain).canonical()
    adam = genome("ADAM_TERM", lr=1e-3, beta1=0.9, beta2=0.999, bias_correction=True, **plain)
    assert p["adam"].canonical() == adam.canonical()
    assert p["adamw"].canonical() == dataclasses.replace(adam, weight_decay=1e-2).canonical()
    rms = genome("RMS_NORM", lr=1e-3, beta2=0.99, use_momentum=False, **plain)
    assert p["rmsprop"].canonical() == rms.canonical()
    assert set(p["signsgd"].terms) == {"SIGN_GRAD"}


def test_the_evolved_preset_is_the_published_winner():
    e = presets()["evolved"]
    assert sorted(e.terms) == ["ADAM_TERM", "ADAM_TERM", "SIGN_GRAD", "SIGN_GRAD"]
    assert e.rule().sign == pytest.approx(0.41205802174892475 + 0.32238621456272765, rel=1e-14)
    assert e.rule().adam == pytest.approx(2.0030004279455267 + 1.6322011630060542, rel=1e-14)
    assert math.log10(e.lr) == pytest.approx(-2.9198932483267144, abs=1e-13)
    assert math.log10(e.eps) == pytest.approx(-8.26423960220415, abs=1e-13)
    assert math.log10(e.weight_decay) == pytest.approx(-3.0112238437153316, abs=1e-13)
    assert (e.beta1, e.beta2) == (0.8553020861538518, 0.9357561078635277)
    assert (e.use_momentum, e.use_second_moment, e.bias_correction) == (True, True, False)
    assert (e.gradient_clipping, e.warmup, e.warmup_steps, e.cosine_decay) == (False, True, 100, True)
