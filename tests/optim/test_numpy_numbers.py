"""Candidates of numbers out of somebody's table are those of Python's numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from optevo.optim import TermGenome
from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.presets import PRESETS

EVOLVED = PRESETS["evolved"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lr", np.float32(2**-10)), ("lr", np.array(2**-10)), ("beta1", np.float16(0.5))],
        *[("warmup_steps", np.int64(10)), ("warmup", np.bool_(True)), ("clip_value", np.int8(1))],
    ],
)
def test_a_genome_of_numpys_numbers_is_the_one_of_pythons(name: str, value: Any):
    ours = dataclasses.replace(EVOLVED, **{name: value})
    plain = dataclasses.replace(EVOLVED, **{name: value.item()})
    assert ours == plain
    assert ours.canonical() == plain.canonical()
    assert ours.source("Evolved", {}) == plain.source("Evolved", {})


def test_so_is_one_of_numpys_arrays():
    made = TermGenome(terms=np.array(["GRAD", "MOMENTUM"]), alphas=np.array([1.0, 0.5]), lr=0.01)
    assert made == TermGenome(terms=("GRAD", "MOMENTUM"), alphas=(1.0, 0.5), lr=0.01)


def test_so_is_one_of_the_modern_catalogue():
    made, plain = (
        ModernGenome(
            **{"terms": terms, "alphas": (number(1.0), number(0.5)), "lr": number(2**-10)},
            **{"warmup": number(0.25), "cautious": flag(True)},
            second=SecondRule(kinds=kinds, terms=terms[1:], alphas=(number(1),), rate=number(0.5)),
        )
        for terms, kinds, number, flag in (
            (np.array(["GRAD", "ORTHO"]), np.array(["head"]), np.float32, np.bool_),
            (("GRAD", "ORTHO"), ("head",), float, bool),
        )
    )
    assert made == plain
    assert made.canonical() == plain.canonical()
    assert made.source("Evolved", {}) == plain.source("Evolved", {})


def test_a_baseline_of_numpys_numbers_is_the_one_of_pythons():
    ours = TunedBaseline("adamw", np.float32(2**-10), np.float16(0.5))
    assert ours == TunedBaseline("adamw", 2**-10, 0.5)
    assert ours.canonical() == TunedBaseline("adamw", 2**-10, 0.5).canonical()
    assert type(ours.lr) is float
