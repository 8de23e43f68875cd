"""Cautious AdamW, MARS, SOAP and schedule-free AdamW: the articles' updates, and weights that are scored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
from baseline_studies import assert_same, stepped, tuned, weights
from torch import Tensor, nn

from optevo.optim.adam_variants import MARS, CautiousAdamW
from optevo.optim.schedule_free import ScheduleFreeAdamW
from optevo.optim.soap import SOAP

LR, DECAY, EPS = 3e-2, 1e-1, 1e-8
Optimizer = torch.optim.Optimizer


def wide() -> list[nn.Parameter]:
    return weights(torch.float64)


def gradients(step: int, shapes: list[torch.Size]) -> list[Tensor]:
    """Those of `baseline_studies.stepped`."""
    rng = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=rng).double() for shape in shapes]


def by_hand(update: Callable[[Tensor, Tensor, dict[str, Any], int], None], steps: int) -> list[Tensor]:
    """The weights after `steps` steps of an update, which is told the number of its step, from 1 on."""
    params: list[Tensor] = [p.detach() for p in wide()]
    states = [dict[str, Any]() for _ in params]
    for t in range(1, steps + 1):
        for p, g, state in zip(params, gradients(t - 1, [p.shape for p in params]), states, strict=True):
            update(p, g, state, t)
    return params


def adam(g: Tensor, state: dict[str, Any], t: int, beta1: float, beta2: float) -> Tensor:
    state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
    return state["m"] / (1 - beta1**t) / ((state["v"] / (1 - beta2**t)).sqrt() + EPS)


def test_cautious_adamw_masks_what_points_against_the_gradient():
    """Liang et al., algorithm 1, scaled as in their code."""

    def update(p: Tensor, g: Tensor, state: dict[str, Any], t: int) -> None:
        u = adam(g, state, t, 0.9, 0.999)
        agrees = u * g > 0
        p.mul_(1 - LR * DECAY).sub_(LR * u * agrees / max(1e-3, agrees.double().mean().item()))

    params = wide()
    ours = stepped(CautiousAdamW(params, LR, weight_decay=DECAY), params, 8)
    assert_same(ours, by_hand(update, 8), rtol=1e-12, atol=1e-14)


def test_cautious_adamw_stands_still_where_nothing_agrees():
    p = nn.Parameter(torch.zeros(1))
    optimizer = CautiousAdamW([p], weight_decay=0.0)
    for sign in (1.0, 1.0, -0.1):
        before = p.item()
        p.grad = torch.tensor([sign])
        optimizer.step()
    assert p.item() == before != 0


def test_mars_corrects_gradients_by_how_they_changed():
    """Yuan et al., algorithm 2 with equation 2.4's clipping; AdamW for vectors."""
    beta1, beta2, gamma = 0.95, 0.99, 0.025

    def update(p: Tensor, g: Tensor, state: dict[str, Any], t: int) -> None:
        if p.ndim < 2:
            u = adam(g, state, t, 0.9, 0.95)
        else:
            c = g + gamma * beta1 / (1 - beta1) * (g - state.get("g", 0))
            u, state["g"] = adam(c / max(1.0, c.norm().item()), state, t, beta1, beta2), g
        p.mul_(1 - LR * DECAY).sub_(LR * u)

    params = wide()
    ours = stepped(MARS(params, LR, weight_decay=DECAY), params, 8)
    assert_same(ours, by_hand(update, 8), rtol=1e-12, atol=1e-14)


def test_schedule_free_adamw_trains_at_y_and_is_scored_at_x():
    """Defazio et al., algorithm 1: three sequences, where the class keeps two."""
    beta1, beta2, warmup = 0.9, 0.999, 4

    def update(p: Tensor, g: Tensor, state: dict[str, Any], t: int) -> None:
        z, x = state.setdefault("z", p.clone()), state.setdefault("x", p.clone())
        rate = LR * min(1.0, t / warmup)
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
        z -= rate * (g / ((state["v"] / (1 - beta2**t)).sqrt() + EPS) + DECAY * p)
        state["sum"] = state.get("sum", 0.0) + rate**2
        x.lerp_(z, rate**2 / state["sum"])
        p.copy_((1 - beta1) * z + beta1 * x)
        if t == 8:
            averages.append(x)

    averages: list[Tensor] = []
    params = wide()
    optimizer = ScheduleFreeAdamW(params, LR, weight_decay=DECAY, warmup_steps=warmup)
    assert_same(stepped(optimizer, params, 8), by_hand(update, 8), rtol=1e-11, atol=1e-13)
    optimizer.eval()
    assert_same([p.detach() for p in params], averages, rtol=1e-10, atol=1e-12)


def test_ademamix_adds_a_slow_average_that_comes_in_over_the_run():
    """Pagliardini et al., arXiv 2409.03137, algorithm 1 with its schedulers of α and β₃."""
    steps, alpha, (beta1, beta2, beta3) = 8, 5.0, (0.9, 0.999, 0.9999)

    def update(p: Tensor, g: Tensor, state: dict[str, Any], t: int) -> None:
        share, start, end = t / steps, math.log(beta1), math.log(beta3)
        beta = min(math.exp(start * end / ((1 - share) * end + share * start)), beta3)
        state["slow"] = beta * state.get("slow", 0) + (1 - beta) * g
        fast = adam(g, state, t, beta1, beta2)
        root = (state["v"] / (1 - beta2**t)).sqrt() + EPS
        p.sub_(LR * (fast + min(alpha * share, alpha) * state["slow"] / root + DECAY * p))

    params = wide()
    optimizer, _ = tuned("ademamix", LR, DECAY).build(params, steps)
    assert_same(stepped(optimizer, params, steps), by_hand(update, steps), rtol=1e-10, atol=1e-12)


def test_an_exported_schedule_free_adamw_says_how_it_is_used():
    assert "Call eval() on it before" in tuned("schedule_free").source("Evolved", {})
    assert "Call eval() on it before" not in tuned("adamw").source("Evolved", {})


def library(name: str, params: list[nn.Parameter]) -> Optimizer:
    """pytorch_optimizer's class, with arguments under which it is to do what ours does."""
    if name == "soap":
        for p in params:
            p.data *= 1 - LR * DECAY  # ours decays in the first step too
        return pytorch_optimizer.SOAP(params, lr=LR, weight_decay=DECAY, precondition_frequency=3)
    if name == "mars":
        return pytorch_optimizer.MARS(params, lr=LR, lr_1d=LR, weight_decay=DECAY, weight_decay_1d=DECAY)
    return pytorch_optimizer.ScheduleFreeAdamW(params, lr=LR, weight_decay=DECAY, warmup_steps=3)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("soap", lambda params: SOAP(params, LR, weight_decay=DECAY, precondition_frequency=3)),
        ("mars", lambda params: MARS(params, LR, weight_decay=DECAY)),
        ("schedule_free", lambda params: ScheduleFreeAdamW(params, LR, weight_decay=DECAY, warmup_steps=3)),
    ],
)
def test_they_step_as_pytorch_optimizers_do(name: str, make: Callable[[list[nn.Parameter]], Optimizer]):
    ours, theirs = wide(), wide()
    other = library(name, theirs)
    # Of MARS and SOAP, eps is added before the bias correction there; their √v has another 1e-15 in it.
    assert_same(stepped(make(ours), ours, 12), stepped(other, theirs, 12), rtol=1e-5, atol=1e-5)


def test_soaps_bases_are_orthonormal_and_only_of_dimensions_that_are_small_enough():
    params = [nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double())]
    optimizer = SOAP(params, LR, max_precondition_dim=5, precondition_frequency=2)
    stepped(optimizer, params, 7)
    state = optimizer.state[params[0]]
    assert {key for key in state if key.startswith("basis")} == {"basis_1"}
    assert_same([state["basis_1"].T @ state["basis_1"]], [torch.eye(4).double()], rtol=0, atol=1e-12)


def test_soap_without_bases_is_adam_a_step_late():
    ours, theirs = wide()[1:2], wide()[1:2]
    optimizer = SOAP(ours, LR, betas=(0.9, 0.999), weight_decay=0.0)
    adamw = torch.optim.AdamW(theirs, LR, weight_decay=0.0)
    assert_same(stepped(optimizer, ours, 6)[:1], stepped(adamw, theirs, 5, start=1)[:1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scoring_leaves_no_trace_in_a_schedule_free_training(dtype: torch.dtype):
    plain, scored = weights(dtype), weights(dtype)
    optimizer = ScheduleFreeAdamW(scored, LR)

    def look() -> None:
        before = [p.detach().clone() for p in scored]
        optimizer.eval()
        optimizer.eval()
        assert all(not torch.equal(p, b) for p, b in zip(scored[:1], before[:1], strict=True)) or not moved
        optimizer.train()
        optimizer.train()
        assert_same([p.detach() for p in scored], before, rtol=0, atol=0)
        moved.append(True)

    moved: list[bool] = []
    assert_same(
        stepped(optimizer, scored, 6, after=look),
        stepped(ScheduleFreeAdamW(plain, LR), plain, 6),
        rtol=0,
        atol=0,
    )


def test_a_step_with_averaged_weights_is_refused():
    params = weights()
    optimizer = ScheduleFreeAdamW(params)
    stepped(optimizer, params, 2)
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"train\(\) before a step"):
        optimizer.step()


def test_a_checkpoint_of_averaged_weights_goes_on_as_if_it_had_not_been_taken():
    whole, first = weights(torch.bfloat16), weights(torch.bfloat16)
    unbroken = stepped(ScheduleFreeAdamW(whole, LR), whole, 6)
    optimizer = ScheduleFreeAdamW(first, LR)
    stepped(optimizer, first, 3)
    optimizer.eval()
    second = [nn.Parameter(p.detach().clone()) for p in first]
    restored = ScheduleFreeAdamW(second, 0.5)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    restored.train()
    assert_same(stepped(restored, second, 3, start=3), unbroken, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ScheduleFreeAdamW(p, betas=(0.0, 0.9)), "beta parameter at index 0"),
        (lambda p: ScheduleFreeAdamW(p, warmup_steps=-1), "warmup_steps"),
        (lambda p: SOAP(p, precondition_frequency=0), "precondition_frequency"),
        (lambda p: SOAP(p, max_precondition_dim=math.nan), "max_precondition_dim"),
        (lambda p: MARS(p, gamma=-0.1), "gamma"),
        (lambda p: MARS(p, betas_1d=(0.9, 1.5)), "betas_1d"),
        (lambda p: CautiousAdamW(p, betas=(0.9, 1.5)), "beta parameter at index 1"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make: Callable[..., Optimizer], words: str):
    with pytest.raises(ValueError, match=f"Invalid {words}"):
        make(weights())
