"""A winner of the modern catalogue without each of its parts."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from modern_params import modern_genomes

from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.candidate import WINNER
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.modern_variants import variants
from optevo.optim.terms.variants import ACCOUNT, HYPER, SCALED
from optevo.optim.variants import SCHEDULED, TUNED
from optevo.spaces import ModernSpace

ADAMW = TunedBaseline("adamw", 1e-3, 0.1)
GENOME = ModernGenome(
    terms=("ADAM_TERM", "GRAD", "LION"),
    alphas=(1.0, 4.0, -0.5),
    lr=1e-3,
    beta1=0.8,
    weight_decay=0.1,
    gradient_clipping=True,
    cautious=True,
    vector_rate=2.0,
    head_rate=0.5,
    warmup=0.1,
    hold=0.2,
    decay="linear",
    final=0.1,
    second=SecondRule(
        kinds=("convolution", "hidden"), terms=("ORTHO", "LION"), alphas=(1.0, 2.0), rate=4.0, beta1=0.95
    ),
)


def changed(candidate: Any) -> dict[str, Any]:
    """The genes in which a variant is another than the winner."""
    genes = {field.name: getattr(candidate, field.name) for field in dataclasses.fields(GENOME)}
    return {name: value for name, value in genes.items() if value != getattr(GENOME, name)}


def second(**genes: Any) -> dict[str, Any]:
    assert GENOME.second is not None
    return {"second": dataclasses.replace(GENOME.second, **genes)}


def test_each_part_is_taken_away_alone():
    found = {name: changed(one) for name, one in variants(GENOME).candidates.items()}
    alone = {"terms": ("ADAM_TERM", "LION"), "alphas": (1.0, -0.5)}
    assert {name: genes for name, genes in found.items() if name not in (SCALED, HYPER)} == {
        WINNER: {},
        "the first rule everywhere": {"second": None},
        "the second rule everywhere": {
            "terms": ("ORTHO", "LION"),
            "alphas": (1.0, 2.0),
            "lr": 4e-3,
            "beta1": 0.95,
            "second": None,
        },
        "without the second rule's rate": second(rate=1.0),
        "without the second rule's β₁": second(beta1=0.8),
        "the first rule for the kind convolution": second(kinds=("hidden",)),
        "the first rule for the kind hidden": second(kinds=("convolution",)),
        "without ADAM_TERM": {"terms": ("GRAD", "LION"), "alphas": (4.0, -0.5)},
        "without GRAD": alone,
        "without LION": {
            "terms": ("ADAM_TERM", "GRAD"),
            "alphas": (1.0, 4.0),
            **second(terms=("ORTHO",), alphas=(1.0,)),
        },
        "without ORTHO": second(terms=("LION",), alphas=(2.0,)),
        "without momentum": {"use_momentum": False},
        "without second moment": {"use_second_moment": False},
        "without bias correction": {"bias_correction": False},
        "without gradient clipping": {"gradient_clipping": False},
        "without caution": {"cautious": False},
        "without the rate of vectors": {"vector_rate": 1.0},
        "without the rate of the head": {"head_rate": 1.0},
        "without warmup": {"warmup": 0.0},
        "without hold": {"hold": 0.0},
        "without decay of the rate": {"decay": "none"},
        "with a decay to 0": {"final": 0.0},
        "without schedule": {"warmup": 0.0, "hold": 0.0, "decay": "none"},
        "without weight decay": {"weight_decay": 0.0},
    }


def test_adamw_s_rule_has_the_winner_s_numbers_at_the_size_of_its_leading_terms():
    made = variants(GENOME).candidates
    for name, coefficient in ((HYPER, 1.0), (SCALED, 1.5)):
        one = made[name]
        assert isinstance(one, ModernGenome)
        assert one.rule().coefficients == {"adam": coefficient}
        assert not one.cautious
        assert one.rule().clip_value is None
        assert set(one.rates().values()) == {1.0}
        assert one.second_rule() is None
        same = ("lr", "beta1", "beta2", "eps", "weight_decay", "warmup", "hold", "decay", "final")
        assert {n: getattr(one, n) for n in same} == {n: getattr(GENOME, n) for n in same}
    sgd = variants(MODERN_PRESETS["sgd"]).candidates[SCALED]
    assert sgd.step_size() == MODERN_PRESETS["sgd"].lr


def test_the_account_is_that_of_the_published_catalogue():
    assert variants(GENOME).account == ()
    made = ModernSpace().variants(GENOME, ADAMW)
    assert made.account == ACCOUNT
    assert {name for _, *names in ACCOUNT for name in names} <= made.candidates.keys()
    assert made.candidates[TUNED] is ADAMW
    assert made.candidates[SCHEDULED].schedule(100)(5) == GENOME.schedule(100)(5)


def test_plain_adamw_has_few_variants():
    assert list(variants(MODERN_PRESETS["adamw"]).candidates) == [
        WINNER,
        "without momentum",
        "without second moment",
        "without bias correction",
        "without weight decay",
        SCALED,
        HYPER,
    ]


@given(modern_genomes())
def test_every_genome_comes_apart_into_different_optimizers(genome: ModernGenome):
    made = variants(genome, ADAMW).candidates
    assert next(iter(made)) == WINNER
    forms = [one.canonical() for name, one in made.items() if name not in (SCALED, HYPER)]
    assert len(set(forms)) == len(forms)
