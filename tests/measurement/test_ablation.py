"""A winner taken apart: what each variant lacks, and what it keeps of the winner and of AdamW."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from strategies import random_genome
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.candidate import WINNER
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.variants import HYPER, SCALED, SCHEDULED, TUNED, Rescheduled
from optevo.optim.terms.variants import variants as made_variants

ADAMW = TunedBaseline("adamw", 3e-3, 1e-2)
FLAGS = {
    "use_momentum": "without momentum",
    "use_second_moment": "without second moment",
    "bias_correction": "without bias correction",
    "gradient_clipping": "without gradient clipping",
    "warmup": "without warmup",
    "cosine_decay": "without cosine decay",
}
WHOLE = TermGenome(  # with everything that can be taken away
    terms=("GRAD", "NESTEROV", "ADAM_TERM", "SIGN_GRAD"),
    alphas=(0.5, -0.25, 1.5, 0.75),
    lr=2e-3,
    beta1=0.8,
    beta2=0.95,
    eps=1e-6,
    weight_decay=5e-3,
    bias_correction=True,
    gradient_clipping=True,
    clip_value=0.5,
    warmup=True,
    warmup_steps=7,
    cosine_decay=True,
)


def variants(winner: TermGenome, adamw: Any = None) -> dict[str, Any]:
    """The variants by name."""
    return made_variants(winner, adamw).candidates


GENOMES = {**PRESETS, "whole": WHOLE, **{f"random {seed}": random_genome(seed) for seed in range(12)}}
every_genome = pytest.mark.parametrize("winner", GENOMES.values(), ids=GENOMES)


def weights() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((6, 4), (4,))
    return [nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64)) for s in shapes]


def trained(
    optimizer: torch.optim.Optimizer, scheduler: Any, params: Sequence[nn.Parameter], steps: int = 12
) -> tuple[list[float], list[torch.Tensor]]:
    """Learning rates of the steps, and the parameters after them, on fixed gradients."""
    rates, rng = [], torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=rng, dtype=torch.float64)
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        rates.append(rate)
        optimizer.step()
        scheduler.step()
    return rates, [p.detach().clone() for p in params]


def assert_same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], rtol: float = 1e-9) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-12)


def factors(one: Any, total: int = 40) -> list[float]:
    return [one.schedule(total)(step) for step in range(total + 1)]


# Variants


def test_a_winner_with_everything_has_a_variant_without_each_part():
    assert [*variants(WHOLE, ADAMW)] == [
        WINNER,
        "without GRAD",
        "without NESTEROV",
        "without ADAM_TERM",
        "without SIGN_GRAD",
        *FLAGS.values(),
        "without schedule",
        "without weight decay",
        SCALED,
        HYPER,
        TUNED,
        SCHEDULED,
    ]


@every_genome
def test_the_winner_itself_is_among_its_variants(winner: TermGenome):
    assert variants(winner)[WINNER] is winner


@every_genome
def test_a_variant_without_a_term_has_all_others_with_their_weights(winner: TermGenome):
    made = variants(winner)
    kinds = {*winner.terms} if len({*winner.terms}) > 1 else set()
    for kind in kinds & {name.removeprefix("without ") for name in made}:
        variant = made[f"without {kind}"]
        left = [(t, a) for t, a in zip(winner.terms, winner.alphas, strict=True) if t != kind]
        assert list(zip(variant.terms, variant.alphas, strict=True)) == left
        assert {**variant.to_dict(), "terms": 0, "alphas": 0} == {**winner.to_dict(), "terms": 0, "alphas": 0}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("GRAD", {"grad"}), ("ADAM_TERM", {"adam", "eps"}), ("SIGN_GRAD", {"sign"})],
)
def test_without_a_term_its_coefficient_is_gone_from_the_rule(kind: str, fields: set[str]):
    """Nesterov's term has a part in two of them."""
    whole = dataclasses.replace(WHOLE, terms=WHOLE.terms[::2] + WHOLE.terms[3:], alphas=(0.5, 1.5, 0.75))
    before, after = (one.rule() for one in (whole, variants(whole)[f"without {kind}"]))
    moments = {"beta1", "beta2", "bias_correction"}  # not read without the Adam term
    for field in dataclasses.fields(before):
        value = getattr(after, field.name)
        if field.name in fields:
            assert not value
        elif field.name not in moments:
            assert value == getattr(before, field.name)


@every_genome
def test_a_variant_without_a_flag_differs_in_that_flag_alone(winner: TermGenome):
    made = variants(winner)
    for flag, name in FLAGS.items():
        if name in made:
            assert made[name].to_dict() == {**winner.to_dict(), flag: False}
            assert getattr(winner, flag)


@every_genome
def test_what_a_variant_says_is_absent_is_absent_from_rule_and_schedule(winner: TermGenome):
    made = variants(winner)
    absent: dict[str, Callable[[TermGenome], bool]] = {
        "without momentum": lambda one: not one.rule().reads_m,
        "without second moment": lambda one: not one.rule().reads_v,
        "without bias correction": lambda one: not one.rule().bias_correction,
        "without gradient clipping": lambda one: one.rule().clip_value is None,
        "without weight decay": lambda one: one.weight_decay == 0,
        "without schedule": lambda one: set(factors(one)) == {1.0},
        "without warmup": lambda one: one.schedule(40)(0) == 1.0,
        "without cosine decay": lambda one: (
            factors(one)[40] == pytest.approx(min(1.0, factors(winner)[0] * 41))
        ),
    }
    for name, holds in absent.items():
        if name in made:
            assert holds(made[name]), name


@every_genome
def test_every_part_that_matters_has_its_variant(winner: TermGenome):
    made, rule = variants(winner), winner.rule()
    assert ("without momentum" in made) == rule.reads_m
    assert ("without second moment" in made) == (rule.reads_v and winner.use_second_moment)
    assert ("without bias correction" in made) == rule.bias_correction
    assert ("without weight decay" in made) == (winner.weight_decay > 0)
    assert ("without warmup" in made) == (winner.warmup and winner.warmup_steps > 1)
    assert ("without cosine decay" in made) == winner.cosine_decay


@pytest.mark.parametrize("adamw", [None, ADAMW])
@every_genome
def test_no_two_variants_are_the_same_optimizer_but_adamws_own(winner: TermGenome, adamw: Any):
    made = variants(winner, adamw)
    forms = [one.canonical() for name, one in made.items() if name not in (HYPER, SCALED, TUNED, SCHEDULED)]
    assert len(set(forms)) == len(forms)


@every_genome
def test_the_variants_of_the_account_are_there_for_every_winner(winner: TermGenome):
    assert HYPER in variants(winner)
    assert {WINNER, TUNED, SCHEDULED, SCALED} <= variants(winner, ADAMW).keys()
    assert {TUNED, SCHEDULED}.isdisjoint(variants(winner))


@every_genome
def test_adamws_rule_with_the_winners_numbers_is_torchs_adamw(winner: TermGenome):
    one, rule = variants(winner)[HYPER], winner.rule()
    ours, theirs = weights(), weights()
    other = torch.optim.AdamW(
        theirs,
        lr=winner.lr,
        betas=(rule.beta1 or 0.9, rule.beta2 or 0.999),
        eps=winner.eps,
        weight_decay=winner.weight_decay,
    )
    rates, after = trained(*one.build(ours, 12), ours)
    expected, expected_after = trained(other, LambdaLR(other, winner.schedule(12)), theirs)
    assert rates == expected
    assert_same(after, expected_after)


def test_adamw_with_the_winners_weights_makes_steps_as_large_as_its_terms_add_up_to():
    made = variants(WHOLE)
    rule, scaled = made[HYPER].rule(), made[SCALED].rule()
    total = sum(map(abs, WHOLE.rule().coefficients))
    assert scaled == dataclasses.replace(rule, adam=pytest.approx(total, rel=1e-12))
    assert made[SCALED].lr == made[HYPER].lr
    assert factors(made[SCALED]) == factors(made[HYPER]) == factors(WHOLE)


def test_terms_that_cancel_make_no_large_steps():
    nearly = dataclasses.replace(WHOLE, terms=("SIGN_GRAD", "SIGN_GRAD"), alphas=(3.0, -2.9))
    assert variants(nearly)[SCALED].rule().adam == pytest.approx(0.1)


def test_tuned_adamw_is_measured_as_it_was_tuned():
    assert variants(WHOLE, ADAMW)[TUNED] is ADAMW


# Another's schedule


@pytest.mark.parametrize(
    "one",
    [
        ADAMW,
        dataclasses.replace(ADAMW, schedule_name="warmup_cosine"),
        TunedBaseline("muon", 3e-3, 1e-2, "warmup_cosine"),
        TunedBaseline("sgd", 3e-3, 1e-2, "warmup_cosine"),
        PRESETS["evolved"],
    ],
    ids=["constant", "warmup_cosine", "muon", "sgd", "genome"],
)
@pytest.mark.parametrize(
    "other",
    [WHOLE, PRESETS["adam"], dataclasses.replace(ADAMW, schedule_name="warmup_cosine")],
    ids=["both", "constant", "baseline"],
)
def test_an_optimizer_under_anothers_schedule_has_its_own_peak_rate_times_the_others_factor(
    one: Any, other: Any
):
    params, total = weights(), 30
    optimizer, scheduler = Rescheduled(one, other).build(params, total)
    rates, _ = trained(optimizer, scheduler, params, steps=total)
    assert rates == [one.lr * other.schedule(total)(step) for step in range(total)]


@pytest.mark.parametrize("schedule", ["none", "warmup_cosine"])
def test_an_optimizer_under_anothers_schedule_trains_as_one_that_was_made_so(schedule: str):
    ours, theirs = weights(), weights()
    one = Rescheduled(dataclasses.replace(ADAMW, schedule_name=schedule), WHOLE)
    other = torch.optim.AdamW(theirs, lr=3e-3, weight_decay=1e-2)
    _, after = trained(*one.build(ours, 12), ours)
    assert_same(after, trained(other, LambdaLR(other, WHOLE.schedule(12)), theirs)[1])


def test_under_anothers_schedule_is_another_optimizer_and_is_not_exported():
    one, two = Rescheduled(ADAMW, WHOLE), Rescheduled(ADAMW, PRESETS["adam"])
    assert len({one.canonical(), two.canonical(), ADAMW.canonical(), WHOLE.canonical()}) == 4
    assert one.formula() == ADAMW.formula()
    assert "warmup over 7 steps" in one.describe()
    with pytest.raises(ValueError, match="export"):
        one.source("Evolved", {})
