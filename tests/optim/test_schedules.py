"""The schedule genes: warmup and cosine decay as a function of the step, and as a torch scheduler."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import genome
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optevo.optim import GenomeOptimizer, TermGenome, WarmupCosine
from optevo.optim.schedules import ShareSchedule


def factor_by_the_spec(t: int, total: int, warmup: int, cosine: bool) -> float:
    factor = (t + 1) / warmup if t < warmup else 1.0
    return factor * 0.5 * (1 + math.cos(math.pi * t / total)) if cosine else factor


def parameter() -> torch.nn.Parameter:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    return p


def scheduled(g: TermGenome, total: int, **kwargs) -> tuple[GenomeOptimizer, LRScheduler]:
    optimizer = g.optimizer([parameter()], compiled=False, **kwargs)
    return optimizer, g.scheduler(optimizer, total)


def lrs(optimizer: GenomeOptimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


SCHEDULES = [(0, False), (7, False), (0, True), (7, True), (1, True), (40, True)]


@given(st.integers(1, 300), st.integers(0, 300), st.booleans(), st.data())
def test_the_factor_is_the_specs_at_every_step(total, warmup, cosine, data):
    t = data.draw(st.integers(0, total))
    expected = factor_by_the_spec(t, total, warmup, cosine)
    assert WarmupCosine(total, warmup_steps=warmup, cosine=cosine)(t) == pytest.approx(
        expected, rel=1e-12, abs=1e-15
    )


@pytest.mark.parametrize(("warmup", "cosine"), SCHEDULES)
def test_the_factor_stays_where_it_ended_after_the_last_step(warmup, cosine):
    schedule = WarmupCosine(20, warmup_steps=warmup, cosine=cosine)
    assert [schedule(t) for t in (21, 25, 40, 1000)] == [schedule(20)] * 4


def test_a_learning_rate_that_decayed_to_nothing_does_not_come_back():
    assert WarmupCosine(20, cosine=True)(33) == pytest.approx(0.0, abs=1e-15)


def test_without_schedule_genes_the_factor_is_one():
    assert [WarmupCosine(20)(t) for t in range(30)] == [1.0] * 30


def test_the_first_step_of_a_warmup_is_not_lost():
    assert WarmupCosine(100, warmup_steps=10)(0) == pytest.approx(0.1)
    assert WarmupCosine(100, warmup_steps=10)(9) == 1.0


@given(st.integers(1, 50), st.integers(0, 60), st.booleans(), st.integers(0, 200))
def test_the_factor_is_never_negative_and_never_above_one(total, warmup, cosine, t):
    assert 0.0 <= WarmupCosine(total, warmup_steps=warmup, cosine=cosine)(t) <= 1.0


@pytest.mark.parametrize(("warmup", "cosine"), SCHEDULES)
def test_a_schedule_survives_pickling_and_copying(warmup, cosine):
    schedule = WarmupCosine(20, warmup_steps=warmup, cosine=cosine)
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert [twin(t) for t in range(25)] == [schedule(t) for t in range(25)]


@pytest.mark.parametrize(("warmup", "cosine"), SCHEDULES)
def test_the_scheduler_is_a_lambda_lr_that_follows_the_spec(warmup, cosine):
    g = genome("GRAD", warmup=warmup > 0, warmup_steps=max(warmup, 1), cosine_decay=cosine)
    optimizer, scheduler = scheduled(g, 20)
    assert isinstance(scheduler, LambdaLR)
    expected = [g.lr * factor_by_the_spec(t, 20, warmup, cosine) for t in range(20)]
    assert lrs(optimizer, scheduler, 20) == pytest.approx(expected, rel=1e-12, abs=1e-18)


def test_a_gene_that_is_off_leaves_its_number_unused():
    g = genome("GRAD", warmup=False, warmup_steps=10, cosine_decay=False)
    optimizer, scheduler = scheduled(g, 20)
    assert lrs(optimizer, scheduler, 5) == [g.lr] * 5


def test_the_scheduler_scales_a_learning_rate_given_by_hand():
    g = genome("GRAD", warmup=True, warmup_steps=4)
    optimizer, scheduler = scheduled(g, 20, lr=0.5)
    assert lrs(optimizer, scheduler, 5) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])


def test_the_scheduler_scales_each_group_by_the_same_factor():
    g = genome("GRAD", warmup=True, warmup_steps=4)
    optimizer = GenomeOptimizer([{"params": [parameter()], "lr": 0.5}, {"params": [parameter()]}], g)
    g.scheduler(optimizer, 20)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.125, g.lr / 4])


def test_build_returns_the_optimizer_and_its_scheduler():
    g = genome("GRAD", warmup=True, warmup_steps=4)
    optimizer, scheduler = g.build([parameter()], 20)
    assert isinstance(optimizer, GenomeOptimizer)
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert lrs(optimizer, scheduler, 4) == pytest.approx([g.lr * k / 4 for k in (1, 2, 3, 4)])


def test_the_optimizer_alone_has_no_hidden_schedule():
    g = genome("SIGN_GRAD", warmup=True, warmup_steps=10, cosine_decay=True)
    p = parameter()
    optimizer = g.optimizer([p], weight_decay=0.0)
    optimizer.step()
    assert torch.allclose(p, torch.full_like(p, 1 - g.lr), rtol=1e-12)


@pytest.mark.parametrize(("warmup", "cosine"), SCHEDULES)
def test_the_scheduler_goes_on_from_a_checkpoint_where_it_was(warmup, cosine):
    g = genome("GRAD", warmup=warmup > 0, warmup_steps=max(warmup, 1), cosine_decay=cosine)
    whole = lrs(*scheduled(g, 20), 20)
    optimizer, scheduler = scheduled(g, 20)
    lrs(optimizer, scheduler, 8)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    resumed, resumed_scheduler = scheduled(g, 20)
    resumed.load_state_dict(checkpoint["optimizer"])
    resumed_scheduler.load_state_dict(checkpoint["scheduler"])
    assert lrs(resumed, resumed_scheduler, 12) == whole[8:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"total_steps": 0},
        {"total_steps": math.nan},
        {"warmup": -0.1},
        {"warmup": 0.6, "hold": 0.5},
        {"decay": "cosin"},
        {"final": 2.0},
    ],
)
def test_a_schedule_of_shares_that_is_none_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=f"Invalid {[*wrong][-1]}"):
        ShareSchedule(**{"total_steps": 10, **wrong})


@pytest.mark.parametrize(
    ("decay", "final", "expected"),
    [
        ("none", 0.0, [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0]),
        ("linear", 0.5, [0.5, 1, 1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5]),
        ("cosine", 0.0, [0.5, 1, 1, 1, 1, *(0.5 + 0.5 * math.cos(math.pi * s / 5) for s in range(1, 6))]),
        ("sqrt", 0.0, [0.5, 1, 1, 1, 1, *(1 - math.sqrt(s / 5) for s in range(1, 6))]),
    ],
)
def test_shares_of_a_run(decay: str, final: float, expected: list[float]):
    schedule = ShareSchedule(9, warmup=2 / 9, hold=2 / 9, decay=decay, final=final)
    assert [schedule(t) for t in range(10)] == pytest.approx(expected, abs=1e-12)
    assert schedule(50) == schedule(9)


def test_shares_are_those_of_any_run():
    short, long = (ShareSchedule(n, warmup=0.1, hold=0.3, decay="cosine") for n in (100, 1000))
    assert [short(t) for t in range(100)] == pytest.approx([long(10 * t + 9) for t in range(100)], abs=0.03)
