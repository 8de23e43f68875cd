"""The contract of torch.optim.Optimizer, its cases named as in torch's own suite (test/test_optim.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contract import (
    GENOMES,
    adamw,
    assert_close,
    assert_equal,
    eager,
    every_genome,
    feed,
    parameters,
    run,
    torchs,
    values,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

from optevo.optim import ReferenceOptimizer, TermGenome
from optevo.optim.terms.presets import PRESETS

# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_errors_on_wrong_parameters(make):
    with pytest.raises(TypeError, match="params argument"):
        make(torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        make([1.0])
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="non-leaf"):
        make([p * 2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make([{"params": [p]}, {"params": [p]}])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        make([p, p])


# --- direction ------------------------------------------------------------------------------------


def descend(
    g: TermGenome, device: Any, dtype: torch.dtype, *, maximize: bool = False, chained: tuple[Any, ...] = ()
) -> tuple[float, float]:
    """torch's own toy: one linear layer in two groups, twenty steps; the loss before and after."""
    rng = torch.Generator().manual_seed(0)
    weight, bias = (
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(device, dtype))
        for s in ((10, 5), (10,))
    )
    x = torch.randn(5, generator=rng, dtype=torch.float64).to(device, dtype)
    optimizer = eager([{"params": [weight]}, {"params": [bias], "lr": g.lr / 2}], g, maximize=maximize)
    made = [make(optimizer) for make in chained]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(20):
        loss = optimizer.step(closure)
        for scheduler in made:
            if isinstance(scheduler, schedulers.ReduceLROnPlateau):
                scheduler.step(loss.detach())
            else:
                scheduler.step()
    return first, closure().item()


@every_genome
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forloop_goes_right_direction(g, dtype, device):
    before, after = descend(g, device, dtype)
    assert after < before
    before, after = descend(g, device, dtype, maximize=True)
    assert after > before


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 0.95**t),
    "StepLR": lambda o: schedulers.StepLR(o, step_size=5, gamma=0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, milestones=[3, 9]),
    "LinearLR": lambda o: schedulers.LinearLR(o, start_factor=0.3, total_iters=4),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, factor=0.4, total_iters=4),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, total_iters=15, power=2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=20),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=6),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=2e-3, total_steps=20),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, base_lr=1e-4, max_lr=1e-3, step_size_up=4),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CosineAnnealingLR(o, T_max=15)], [5]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.5, total_iters=3), schedulers.ExponentialLR(o, gamma=0.9)]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, threshold=1e6),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_drives_it_exactly_as_it_drives_torchs_adamw(name):
    seen = []
    for make in (eager, torchs):
        params = parameters()
        optimizer = make(params)
        scheduler = SCHEDULERS[name](optimizer)
        rates = []
        for k in range(18):
            feed(params, k)
            optimizer.step()
            scheduler.step(1.0) if name == "ReduceLROnPlateau" else scheduler.step()
            rates.append((optimizer.param_groups[0]["lr"], *optimizer.param_groups[0]["betas"]))
        seen.append((rates, values(params)))
    assert seen[0][0] == seen[1][0]
    assert_close(seen[0][1], seen[1][1])


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_every_group_has_its_own_learning_rate_and_weight_decay(make):
    ours, theirs = parameters(), parameters()
    for params, build in ((ours, make), (theirs, torchs)):
        optimizer = build(
            [
                {"params": params[:1], "lr": 0.03},
                {"params": params[1:2], "weight_decay": 0.3},
                {"params": params[2:], "lr": 0.01, "weight_decay": 0.0},
            ]
        )
        run(optimizer, params, 6)
    assert_close(values(ours), values(theirs))


def test_every_group_has_its_own_betas_eps_and_direction():
    ours, theirs = parameters(), parameters()
    for params, build in ((ours, eager), (theirs, torchs)):
        optimizer = build(
            [
                {"params": params[:1], "betas": (0.5, 0.9)},
                {"params": params[1:2], "eps": 1e-2},
                {"params": params[2:], "maximize": True},
            ]
        )
        run(optimizer, params, 6)
    assert_close(values(ours), values(theirs))


def test_a_group_may_bring_the_coefficients_of_another_rule():
    sign = PRESETS["signsgd"].rule()
    six = (sign.grad, sign.momentum, sign.rms, sign.adam, sign.sign, sign.unit)
    params, alone = parameters(), parameters()
    optimizer = eager([{"params": params[:2]}, {"params": params[2:], "coefficients": six}])
    run(optimizer, params, 4)
    run(eager(alone), alone, 4)
    other = parameters()
    lone = eager(other, PRESETS["signsgd"], lr=adamw.lr, weight_decay=adamw.weight_decay)
    run(lone, other, 4)
    assert_equal(values(params), values(alone)[:2] + values(other)[2:])
    assert not optimizer.state.get(params[2])


def test_a_group_carries_everything_the_step_reads():
    group = eager(parameters(), GENOMES["clipped"]).param_groups[0]
    assert set(group) >= {
        "lr",
        "weight_decay",
        "betas",
        "eps",
        "coefficients",
        "bias_correction",
        "clip_value",
        "maximize",
    }
    assert len(group["coefficients"]) == 6
    assert group["clip_value"] == 0.1
    assert eager(parameters()).param_groups[0]["clip_value"] is None


def test_a_learning_rate_changed_between_steps_is_obeyed():
    params, torch_params = parameters(), parameters()
    ours, theirs = eager(params), torchs(torch_params)
    for k, lr in enumerate((0.1, 0.0, 1e-3)):
        ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = lr
        run(ours, params, range(k, k + 1))
        run(theirs, torch_params, range(k, k + 1))
        assert_close(values(params), values(torch_params))


def test_a_given_learning_rate_and_weight_decay_override_the_genomes():
    group = eager(parameters(), lr=0.5, weight_decay=0.25).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    group = eager(parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (adamw.lr, adamw.weight_decay)
    group = eager(parameters(), lr=0.0, weight_decay=0.0).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.0, 0.0)


@every_genome
def test_a_group_may_be_added_after_steps_were_taken(g):
    params = parameters()
    optimizer = eager(params[:1], g)
    run(optimizer, params[:1], 3)
    optimizer.add_param_group({"params": params[1:], "lr": 0.5 * g.lr})
    for k in range(3, 6):
        feed(params, k)
        optimizer.step()
    late = parameters()[1:]
    alone = eager(late, g, lr=0.5 * g.lr)
    for k in range(3, 6):
        feed([*parameters()[:1], *late], k)
        alone.step()
    assert_equal(values(params)[1:], values(late))
    assert optimizer.param_groups[1]["coefficients"] == optimizer.param_groups[0]["coefficients"]
