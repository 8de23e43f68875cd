"""Many candidates updated at once: each row comes out as it would alone."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import TERMS, genome, genomes
from term_optimizers import EAGER, random_gradients, weights_after
from torch import Tensor

from optevo.optim import TermGenome
from optevo.optim.terms.kernels import stacked_update
from optevo.optim.terms.optimizer import step_scalars


def stack_and_rows(
    stack: list[TermGenome], gradients: list[Tensor], *, work: bool = False
) -> tuple[Tensor, Tensor]:
    """The weights (K, P) of K genomes after all gradients, updated at once and one by one."""
    k, p = gradients[0].shape
    start = torch.linspace(-1, 1, k * p, dtype=gradients[0].dtype).reshape(k, p)
    rules = [g.rule() for g in stack]
    together = start.clone()
    m = torch.zeros_like(start) if any(rule.reads_m for rule in rules) else None
    v = torch.zeros_like(start) if any(rule.reads_v for rule in rules) else None
    memory = torch.empty(4, k, p, dtype=start.dtype) if work else None
    for t, gradient in enumerate(gradients, start=1):
        rows = [
            step_scalars(
                rule.coefficients,
                lr=g.lr,
                betas=(rule.beta1 or 0.0, rule.beta2 or 0.0),
                eps=rule.eps or 0.0,
                weight_decay=g.weight_decay,
                clip_value=rule.clip_value,
                k=t if rule.bias_correction else 0,
            ).folded()
            for g, rule in zip(stack, rules, strict=True)
        ]
        before = gradient.clone()
        stacked_update(together, gradient, m, v, torch.tensor(rows, dtype=start.dtype).T, memory)
        torch.testing.assert_close(gradient, before, rtol=0, atol=0, equal_nan=True)
    alone = [
        weights_after(functools.partial(EAGER, genome=g), w, [x[i] for x in gradients])[-1]
        for i, (g, w) in enumerate(zip(stack, start, strict=True))
    ]
    return together, torch.stack(alone)


@given(st.lists(genomes(), min_size=1, max_size=5), st.integers(0, 10_000), st.booleans())
@example([genome("SIGN_GRAD"), genome("ADAM_TERM"), genome("GRAD", "GRAD", alphas=(1.0, -1.0))], 0, True)
@example([genome("ADAM_TERM", use_second_moment=False), genome("RMS_NORM")], 1, False)
@example([genome("UNIT_GRAD"), genome("GRAD")], 2, False)
@example([genome(t, bias_correction=True, gradient_clipping=True, clip_value=0.1) for t in TERMS], 3, True)
def test_a_stacked_update_is_each_rows_own(stack, seed, work):
    gradients = random_gradients(seed, (len(stack), 6), 6, torch.float64)
    together, alone = stack_and_rows(stack, gradients, work=work)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11 * float(b.abs().max().clamp(min=1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_stacked_row_of_zero_gradients_moves_by_weight_decay_alone(dtype):
    stack = [genome(t) for t in TERMS]
    together, alone = stack_and_rows(stack, [torch.zeros(len(stack), 6, dtype=dtype)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("others", [(), ("GRAD",), ("MOMENTUM",), ("RMS_NORM",), ("ADAM_TERM", "UNIT_GRAD")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_stacked_rows_of_infinite_gradients_stay_finite_as_alone(others, dtype):
    stack = [genome("SIGN_GRAD"), *(genome(t) for t in others), genome("ADAM_TERM", gradient_clipping=True)]
    stack = stack if others else stack[:1]
    wild = torch.tensor([math.inf, -math.inf, 0.0, 1.5], dtype=dtype).repeat(len(stack), 1)
    together, alone = stack_and_rows(stack, [wild.sign(), wild, wild.sign()])
    assert torch.equal(together.isfinite(), alone.isfinite())
    finite = alone.isfinite()
    torch.testing.assert_close(together[finite], alone[finite])
