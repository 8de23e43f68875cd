"""The schedules of the second system: warmup, hold and cosine, one-cycle momentum, and learned factors."""

from __future__ import annotations

import io
import math
import pickle

import numpy as np
import pytest
import torch
from graph_oracles import TRAJECTORIES
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from optevo.optim.learned import LEARNED, LearnedSchedule, learned_scheduler, learned_source
from optevo.optim.schedules import OneCycleMomentum, WarmupHoldCosine

INPUTS = TRAJECTORIES["inputs"]
TOTAL, LR = INPUTS["T"], INPUTS["lr"]
SHARES = {"warmup_steps": INPUTS["W"], "hold_steps": INPUTS["H"]}
LENGTHS = st.integers(1, 60).flatmap(
    lambda total: st.integers(0, total).flatmap(
        lambda warmup: st.tuples(st.just(total), st.just(warmup), st.integers(0, total - warmup))
    )
)


def test_the_base_schedule_of_the_oracle() -> None:
    schedule = WarmupHoldCosine(TOTAL, **SHARES)
    np.testing.assert_allclose([LR * schedule(t) for t in range(TOTAL)], INPUTS["lr_sched"], rtol=1e-9)


def test_the_momentum_schedule_of_the_oracle() -> None:
    schedule = OneCycleMomentum(TOTAL, **SHARES)
    np.testing.assert_allclose([schedule(t) for t in range(TOTAL)], INPUTS["mom_sched"], rtol=1e-9)


@pytest.mark.parametrize("name", LEARNED)
def test_the_learned_schedules_of_the_oracle(name: str) -> None:
    schedule = LearnedSchedule(name, TOTAL, lr=LR, **SHARES)
    expected = TRAJECTORIES["lr_schedules"][name.upper()]
    np.testing.assert_allclose([LR * schedule(t) for t in range(TOTAL)], expected, rtol=1e-9)


def test_there_are_nine_learned_schedules_with_the_published_ranges() -> None:
    assert list(LEARNED) == [f"lr{k}" for k in range(1, 10)]
    ranges = {"lr1": (0.157, 1.96), "lr2": (0.157, 4.67), "lr3": (0, 8.3), "lr5": (1.09, 9.4)}
    ranges |= {"lr7": (1, 1.41), "lr9": (0, 0.76)}
    for name, bounds in ranges.items():
        table = LEARNED[name].table(1000)
        assert (min(table), max(table)) == pytest.approx(bounds, rel=5e-3, abs=1e-6)
    assert LEARNED["lr8"].value(0, 1000) == pytest.approx(1e7)


@given(LENGTHS)
def test_the_base_schedule_is_the_specs_whatever_the_shares(lengths: tuple[int, int, int]) -> None:
    total, warmup, hold = lengths
    schedule = WarmupHoldCosine(total, warmup_steps=warmup, hold_steps=hold)
    for t in range(total):
        if t < warmup:
            expected = t / warmup
        elif t <= warmup + hold and hold > 0:
            expected = 1.0
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (t - warmup - hold) / (total - warmup - hold)))
        assert schedule(t) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert [schedule(t) for t in (total, total + 1, 10 * total)] == [0.0] * 3


@given(LENGTHS)
def test_momentum_is_three_linspaces_end_to_end(lengths: tuple[int, int, int]) -> None:
    total, warmup, hold = lengths
    schedule = OneCycleMomentum(total, warmup_steps=warmup, hold_steps=hold)
    expected = [
        *np.linspace(0.95, 0.85, warmup),
        *[0.85] * hold,
        *np.linspace(0.85, 0.95, total - warmup - hold),
    ]
    np.testing.assert_allclose([schedule(t) for t in range(total)], expected, rtol=1e-12)
    assert [schedule(t) for t in (total, total + 7)] == [schedule(total - 1)] * 2


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("total", [1, 2, 13, 500])
def test_learned_rates_are_finite_and_end_at_the_least(name: str, total: int) -> None:
    schedule = LearnedSchedule(name, total, lr=0.5, warmup_steps=total // 10)
    assert all(0 < schedule(t) < 100 for t in range(total))
    assert 0.5 * schedule(0) == pytest.approx(2e-7)
    assert [0.5 * schedule(t) for t in (total, 2 * total)] == pytest.approx([1e-7] * 2)


@pytest.mark.parametrize("cls", [WarmupHoldCosine, OneCycleMomentum])
@pytest.mark.parametrize(
    ("total", "steps", "said"),
    [
        (0, {}, "Invalid total_steps: 0"),
        (10, {"warmup_steps": -1}, "Invalid warmup_steps: -1"),
        (10, {"warmup_steps": 11}, "Invalid warmup_steps: 11, expected 0 to 10"),
        (10, {"hold_steps": -1}, "Invalid hold_steps: -1"),
        (10, {"warmup_steps": 6, "hold_steps": 5}, "Invalid hold_steps: 5, expected at most 4"),
    ],
)
def test_steps_that_make_no_run_are_refused(cls: type, total: int, steps: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cls(total, **steps)


def optimizer(*lrs: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs])


def test_every_group_has_the_schedule_with_its_own_rate() -> None:
    one = optimizer(LR, 10 * LR)
    scheduler = learned_scheduler(one, "lr2", TOTAL, **SHARES)
    assert isinstance(scheduler, LambdaLR)
    seen = []
    for _ in range(TOTAL):
        seen.append([group["lr"] for group in one.param_groups])
        one.step()
        scheduler.step()
    small, large = zip(*seen, strict=True)
    np.testing.assert_allclose(small, TRAJECTORIES["lr_schedules"]["LR2"], rtol=1e-9)
    np.testing.assert_allclose(np.array(large[1:]) - 1e-7, 10 * (np.array(small[1:]) - 1e-7), rtol=1e-9)


def test_a_learned_scheduler_goes_on_from_a_checkpoint() -> None:
    whole, first, second = optimizer(LR), optimizer(LR), optimizer(LR)
    unbroken, broken = (learned_scheduler(one, "lr6", 30, warmup_steps=3) for one in (whole, first))
    for _ in range(12):
        whole.step()
        unbroken.step()
        first.step()
        broken.step()
    file = io.BytesIO()
    torch.save((first.state_dict(), broken.state_dict()), file)
    file.seek(0)
    resumed = learned_scheduler(second, "lr6", 30, warmup_steps=3)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for _ in range(20):
        assert second.param_groups[0]["lr"] == whole.param_groups[0]["lr"]
        for one in (whole, unbroken, second, resumed):
            one.step()


def test_schedules_are_pickled() -> None:
    learned = LearnedSchedule("lr3", 50, lr=0.1, warmup_steps=5)
    again = pickle.loads(pickle.dumps(learned))
    assert [again(t) for t in range(51)] == [learned(t) for t in range(51)]


def test_unknown_schedules_and_rates_of_0_are_refused() -> None:
    with pytest.raises(KeyError, match="unknown learned schedule 'lr0': did you mean"):
        learned_scheduler(optimizer(0.1), "lr0", 10)
    with pytest.raises(ValueError, match="Invalid learning rate: 0"):
        learned_scheduler(optimizer(0.0), "lr1", 10)


@pytest.mark.parametrize("name", LEARNED)
def test_source_is_the_same_schedule_without_optevo(name: str) -> None:
    names: dict[str, object] = {"math": math}
    source = learned_source(name)
    assert "import" not in source
    exec(compile(source, "exported", "exec"), names)
    schedule = names["LearnedSchedule"]
    assert isinstance(schedule, type)
    exported = schedule(name, 40, lr=0.3, warmup_steps=4)
    ours = LearnedSchedule(name, 40, lr=0.3, warmup_steps=4)
    assert [exported(t) for t in range(41)] == [ours(t) for t in range(41)]
