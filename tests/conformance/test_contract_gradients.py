"""The contract of torch.optim.Optimizer, named as in torch's suite: gradients, layouts, closures."""

from __future__ import annotations

import functools

import pytest
import torch
from contract import (
    adamw,
    assert_close,
    eager,
    every_genome,
    feed,
    parameters,
    run,
    torchs,
    values,
)
from strategies import genome
from torch import Tensor, nn

from optevo.optim import GenomeOptimizer, ReferenceOptimizer


@every_genome
def test_a_parameter_without_gradient_is_skipped_and_its_step_not_counted(g):
    params, reference = parameters(), parameters()
    optimizer, plain = eager(params, g), ReferenceOptimizer(reference, g)
    for k in range(6):
        for ps, o in ((params, optimizer), (reference, plain)):
            feed(ps, k)
            if k % 2:
                ps[1].grad = None
            if k < 3:
                ps[2].grad = None
            before = values(ps)
            o.step()
            for p, was in zip(ps, before, strict=True):
                assert p.grad is not None or torch.equal(p, was)
    assert_close(values(params), values(reference))
    steps = [optimizer.state[p].get("step") for p in params]
    corrected = g.rule().bias_correction
    assert [None if s is None else int(s) for s in steps] == ([6, 3, 3] if corrected else [None] * 3)


def test_each_parameter_counts_its_own_steps_as_in_torchs_adamw():
    ours, theirs = parameters(), parameters()
    for params, optimizer in ((ours, eager(ours)), (theirs, torchs(theirs))):
        for k in range(6):
            feed(params, k)
            params[k % 3].grad = None
            optimizer.step()
    assert_close(values(ours), values(theirs))


@every_genome
def test_a_gradient_of_zero_is_a_gradient(g):
    """Weight decay acts and the step counts, unlike with no gradient."""
    params = parameters()
    before = values(params)
    optimizer = eager(params, g)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert_close(values(params), [w * (1 - g.lr * g.weight_decay) for w in before])


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_clears_every_gradient(set_to_none):
    params = parameters()
    optimizer = eager(params)
    feed(params, 0)
    optimizer.zero_grad(set_to_none=set_to_none)
    assert all(p.grad is None if set_to_none else not p.grad.any() for p in params)


@every_genome
def test_foreach_matches_forloop(g, device):
    fast, plain = parameters(device=device), parameters(device=device)
    run(eager(fast, g), fast, 7)
    run(ReferenceOptimizer(plain, g), plain, 7)
    assert_close(values(fast), values(plain))


@every_genome
def test_foreach_matches_forloop_in_float32(g, device):
    fast, plain = (parameters(dtype=torch.float32, device=device) for _ in range(2))
    run(eager(fast, g), fast, 7)
    run(ReferenceOptimizer(plain, g), plain, 7)
    assert_close(values(fast), values(plain), rtol=2e-5, atol=2e-6)


@every_genome
def test_bfloat16_parameters_follow_float32_ones(g):
    coarse, fine = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    for p in fine:
        p.data = p.data.float()
    run(eager(coarse, g), coarse, 3)
    run(eager(fine, g), fine, 3)
    assert_close([w.float() for w in values(coarse)], values(fine), rtol=0.05, atol=0.05)


SHAPES = {
    "transposed": lambda: torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).t(),
    "strided": lambda: torch.randn(4, 12, generator=torch.Generator().manual_seed(0))[:, ::2],
    "channels_last": lambda: torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
    "0-dim": lambda: torch.tensor(0.7),
    "empty": lambda: torch.empty(0),
    "empty with a shape": lambda: torch.empty(3, 0, 2),
    "one element": lambda: torch.tensor([0.3]),
}


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_of_any_layout_step_as_contiguous_ones(shape, compiled):
    odd = nn.Parameter(SHAPES[shape]())
    plain = nn.Parameter(odd.detach().clone(memory_format=torch.contiguous_format))
    stride = odd.stride()
    g = genome("ADAM_TERM", "SIGN_GRAD", alphas=(1.0, 0.5), bias_correction=True)
    ours, theirs = GenomeOptimizer([odd], g, compiled=compiled), ReferenceOptimizer([plain], g)
    for k in range(3):
        feed([odd, plain], 0)
        gradient = torch.randn(plain.shape, generator=torch.Generator().manual_seed(k))
        # A gradient's strides need not be its parameter's: autograd's often are not.
        odd.grad = gradient.clone() if k % 2 else torch.empty_like(odd).copy_(gradient)
        plain.grad = gradient
        ours.step()
        theirs.step()
    torch.testing.assert_close(odd.detach(), plain.detach(), rtol=1e-5, atol=1e-6)
    assert odd.stride() == stride


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_empty_parameter_does_not_disturb_its_neighbours(compiled):
    params, alone = parameters((3,), (0,), ()), parameters((3,), (0,), ())
    run(GenomeOptimizer(params, adamw, compiled=compiled), params, 3)
    run(torchs(alone), alone, 3)
    assert_close(values(params), values(alone))


# --- closures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_a_closure_runs_once_with_grad_and_its_loss_is_returned(make):
    (p,) = parameters((3,))
    optimizer = make([p])
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    expected = p.detach().square().sum().item()
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == expected
    assert calls == [True]
    assert optimizer.step() is None
    assert optimizer.step(lambda: 3.5) == 3.5
