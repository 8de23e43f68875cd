"""The usual optimizers as baselines: what each does to weights, its schedules and canonical forms."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from baseline_studies import (
    assert_same,
    every_baseline,
    stepped,
    tuned,
    weights,
)
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optevo.optim import PRESETS
from optevo.optim.baselines.registry import BASELINES, SCHEDULES, TunedBaseline
from optevo.optim.learned import LEARNED, LearnedSchedule
from optevo.optim.muon import MuonAdamW
from optevo.spaces import SPACES, BaselineSpace
from optevo.tasks.vision import Digits
from optevo.training.single import train


@every_baseline
def test_every_baseline_is_a_space(name: str):
    space = SPACES[name].make()
    assert isinstance(space, BaselineSpace)
    assert space.name == name
    assert space.grid() == {
        "lr": list(BASELINES[name].lr),
        "weight_decay": list(BASELINES[name].weight_decay),
    }


@pytest.mark.filterwarnings("ignore:Using backward")
@every_baseline
def test_every_baseline_learns_a_small_regression_with_one_of_its_learning_rates(name: str):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 5, generator=rng)
    targets = inputs @ torch.randn(5, 3, generator=rng) + 1
    reached = []
    for lr in BASELINES[name].lr:
        torch.manual_seed(0)  # Sophia's estimate draws from it
        model = nn.Linear(5, 3)
        optimizer, scheduler = tuned(name, lr, BASELINES[name].weight_decay[0]).build(model.parameters(), 100)
        every = getattr(optimizer, "graph_every", 0)
        losses = []
        for step in range(100):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward(create_graph=bool(every) and step % every == 0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        optimizer.zero_grad()
        reached.append(losses[-1] / losses[0])
    assert min(reached) < 0.8


BY_HAND: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, **a: torch.optim.SGD(p, momentum=0.9, nesterov=True, **a),
    "adam": lambda p, **a: torch.optim.Adam(p, betas=(0.9, 0.999), eps=1e-8, **a),
    "adamw": lambda p, **a: torch.optim.AdamW(p, betas=(0.9, 0.999), eps=1e-8, **a),
    "rmsprop": lambda p, **a: torch.optim.RMSprop(p, alpha=0.99, eps=1e-8, **a),
    "nadam": lambda p, **a: torch.optim.NAdam(p, decoupled_weight_decay=True, **a),
    "radam": lambda p, **a: torch.optim.RAdam(p, decoupled_weight_decay=True, **a),
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_baseline_of_torchs_steps_as_the_class_made_by_hand(name: str):
    ours, theirs = weights(), weights()
    optimizer, _ = tuned(name, 3e-2, 1e-1).build(ours, 10)
    other = BY_HAND[name](theirs, lr=3e-2, weight_decay=1e-1)
    assert_same(stepped(optimizer, ours), stepped(other, theirs), rtol=2e-6, atol=1e-7)


def test_an_option_of_a_study_file_reaches_the_optimizer():
    ours, theirs = weights(), weights()
    optimizer, _ = tuned("adamw", 3e-2, 1e-1, options={"betas": [0.5, 0.6], "eps": 0.1}).build(ours, 10)
    other = torch.optim.AdamW(theirs, lr=3e-2, betas=(0.5, 0.6), eps=0.1, weight_decay=1e-1)
    assert_same(stepped(optimizer, ours), stepped(other, theirs), rtol=2e-6, atol=1e-7)


#: Of the three parameters of `weights`, where these differ; weight decay goes with them.
RATES = {"evolved_modern": (1, 1, PRESETS["evolved_modern"].second.rate)}


@pytest.mark.filterwarnings("ignore:Using backward")
@every_baseline
def test_weight_decay_is_coupled_as_the_baseline_says(name: str):
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer, _ = tuned(name, 0.1, 0.5).build(params, 10)
    sum((0 * p**2).sum() for p in params).backward(create_graph=name == "sophia")
    optimizer.step()
    optimizer.zero_grad()
    rates = RATES.get(name, (1, 1, 1))
    shrunk = [b * (1 - rate * 0.1 * 0.5) for b, rate in zip(before, rates, strict=True)]
    if BASELINES[name].decay == "decoupled":
        assert_same([p.detach() for p in params], shrunk, rtol=1e-6, atol=1e-7)
    else:
        assert BASELINES[name].decay == "L2"
        params[0].grad = torch.zeros_like(params[0])
        optimizer.step()  # the momentum of the first, too: after one step, SGD with momentum tells nothing
        shrunk[0] *= 1 - 0.1 * 0.5
        assert not torch.allclose(params[0].detach(), shrunk[0], rtol=1e-3)
        assert not torch.allclose(params[0].detach(), before[0])


def test_lion_makes_the_papers_update():
    """Chen et al., Symbolic Discovery of Optimization Algorithms, algorithm 2."""
    lr, decay, (beta1, beta2) = 3e-2, 1e-1, (0.9, 0.99)
    ours, theirs = weights(), [p.detach() for p in weights()]
    optimizer, _ = tuned("lion", lr, decay).build(ours, 10)
    stepped(optimizer, ours, steps=6)
    moments = [torch.zeros_like(w) for w in theirs]
    for step in range(6):
        rng = torch.Generator().manual_seed(step)
        for w, m in zip(theirs, moments, strict=True):
            g = torch.randn(w.shape, generator=rng)
            c = beta1 * m + (1 - beta1) * g
            w.sub_(lr * (torch.sign(c) + decay * w))
            m.mul_(beta2).add_((1 - beta2) * g)
    assert_same([p.detach() for p in ours], theirs, rtol=1e-5, atol=1e-6)


def test_muon_is_torchs_on_matrices_and_adamw_on_the_rest():
    ours, theirs = weights(), weights()
    optimizer, _ = tuned("muon", 3e-2, 1e-1).build(ours, 10)
    muon = torch.optim.Muon(
        [theirs[0]], lr=3e-2, weight_decay=1e-1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(theirs[1:], lr=3e-2, weight_decay=1e-1)
    stepped(optimizer, ours)
    stepped(muon, theirs[:1])
    for step in range(5):
        rng = torch.Generator().manual_seed(step)
        torch.randn(theirs[0].shape, generator=rng)
        for p in theirs[1:]:
            p.grad = torch.randn(p.shape, generator=rng)
        adamw.step()
    assert_same([p.detach() for p in ours], [p.detach() for p in theirs], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(1, 3)], ids=["matrices", "no matrices"])
def test_muon_takes_models_of_one_kind_of_weights(kept: slice):
    params = weights()[kept]
    before = [p.detach().clone() for p in params]
    after = stepped(MuonAdamW(params), params)
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_scheduler_moves_both_parts_of_muon():
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer = MuonAdamW(params, lr=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 0.0 if step == 0 else 0.5)
    assert_same(stepped(optimizer, params, steps=2), before, rtol=0, atol=0)  # at lr 0 nothing moves
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05]
    assert all(
        not torch.equal(a, b) for a, b in zip(stepped(optimizer, params, steps=1), before, strict=True)
    )


def test_muon_goes_on_from_a_saved_state_as_if_it_had_not_stopped():
    whole, first = weights(), weights()
    unbroken = stepped(MuonAdamW(whole, lr=0.1), whole, steps=6)
    optimizer = MuonAdamW(first, lr=0.1)
    stepped(optimizer, first, steps=3)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    saved = copy.deepcopy(optimizer.state_dict())
    restored = MuonAdamW(second, lr=0.7, weight_decay=0.9)
    scheduler = LambdaLR(restored, lambda step: 1.0)
    restored.load_state_dict(saved)
    again = stepped(restored, second, steps=3, start=3)
    assert_same(again, unbroken, rtol=0, atol=0)
    for group in restored.param_groups:  # what a scheduler sets is still what the parts read
        group["lr"] = 0.0
    assert_same(stepped(restored, second, steps=1), again, rtol=0, atol=0)
    assert scheduler.optimizer is restored


def test_muon_returns_the_closures_loss_and_trains_on_its_gradients():
    params = weights()
    optimizer = MuonAdamW(params, lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] == pytest.approx(sum((p.detach() ** 2).sum().item() for p in weights()), rel=1e-6)
    assert losses[0] > losses[1] > losses[2]


def test_muon_takes_one_group_as_torchs_optimizers_do():
    ours, theirs = weights(), weights()
    grouped, flat = MuonAdamW([{"params": ours}], lr=0.1), MuonAdamW(theirs, lr=0.1)
    assert_same(stepped(grouped, ours), stepped(flat, theirs), rtol=0, atol=0)


def test_a_group_that_muon_is_given_later_is_trained():
    optimizer, late = MuonAdamW(weights(), lr=0.1), weights()
    before = [p.detach().clone() for p in late]
    optimizer.add_param_group({"params": late})
    after = stepped(optimizer, late, steps=1)
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_copy_of_muon_trains_on():
    model = nn.Linear(3, 2)
    pair = copy.deepcopy((model, MuonAdamW(model.parameters(), lr=0.1)))
    before = pair[0].weight.detach().clone()
    stepped(pair[1], list(pair[0].parameters()), steps=1)
    assert not torch.equal(pair[0].weight, before)


def test_ademamixs_ramps_last_as_long_as_the_run():
    for total in (7, 300):
        optimizer, _ = tuned("ademamix").build(weights(), total)
        assert {group["t_alpha_beta3"] for group in optimizer.param_groups} == {total}


class Watched:
    """A candidate that notes at every step of its optimizer whether the gradients have a graph."""

    by_kind = False

    def __init__(self, candidate: TunedBaseline) -> None:
        self.candidate, self.graphs = candidate, []

    def build(self, params: Any, total_steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        optimizer, scheduler = self.candidate.build(params, total_steps)
        optimizer.register_step_pre_hook(self.note)
        return optimizer, scheduler

    def note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        graphs = {grad.grad_fn is not None for grad in grads}
        assert len(graphs) == 1
        self.graphs.append(graphs.pop())


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, dict[str, Any]]:
    task = Digits()
    return task, task.load(Path())


@every_baseline
def test_only_sophia_is_given_the_gradients_graph_and_every_tenth_step(digits, name: str):
    watched = Watched(tuned(name))
    run = train(*digits, watched, seed=0, steps=22)
    assert run.diverged_at is None
    assert watched.graphs == [name == "sophia" and step % 10 == 0 for step in range(22)]


def test_sophia_learns_digits(digits):
    run = train(*digits, tuned("sophia", 0.1, 1e-3), seed=0, steps=80)
    assert run.metric > 0.5
    assert run.losses[-1] < 0.7 * run.losses[0]


def test_sophias_runs_repeat(digits):
    first, second = (train(*digits, tuned("sophia"), seed=3, steps=15) for _ in range(2))
    assert (first.metric, first.losses) == (second.metric, second.losses)


# Schedules


@pytest.mark.parametrize("total", [1, 4, 5, 10, 37, 500, 1000])
def test_warmup_cosine_is_a_linear_warmup_times_half_a_cosine(total: int):
    factor = tuned("adam", schedule_name="warmup_cosine").schedule(total)
    warmup = round(0.1 * total)
    for step in range(total + 1):
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        expected = rise * 0.5 * (1 + math.cos(math.pi * step / total))
        assert factor(step) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert factor(total) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("total", [1, 4, 5, 10, 37, 500, 1000])
def test_warmup_linear_rises_over_a_tenth_and_falls_to_zero_along_a_line(total: int):
    one = tuned("adam", schedule_name="warmup_linear")
    factor, warmup = one.schedule(total), round(0.1 * total)
    seen = [factor(step) for step in range(total + 5)]
    assert seen[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    assert seen[warmup:total] == pytest.approx([1 - k / (total - warmup) for k in range(total - warmup)])
    assert seen[total:] == [0.0] * 5
    assert one.describe().endswith("warmup over 10% of the run and linear decay")


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_schedule_has_a_tenth_of_warmup(name: str):
    one = tuned("adam", 0.02, schedule_name=name)
    assert [one.schedule(40)(t) for t in range(41)] == [
        LearnedSchedule(name, 40, lr=0.02, warmup_steps=4)(t) for t in range(41)
    ]
    assert one.describe().endswith(f"warmup over 10% of the run and cosine decay, times {name}")


def test_without_a_schedule_the_rate_is_constant():
    factor = tuned("adam").schedule(50)
    assert {factor(step) for step in range(60)} == {1.0}


@pytest.mark.filterwarnings("ignore:Detected call of")  # a step without gradients would do no more
@pytest.mark.parametrize("schedule", SCHEDULES)
@every_baseline
def test_a_scheduler_drives_the_learning_rate(name: str, schedule: str):
    one, params = tuned(name, 0.02, schedule_name=schedule), weights()
    optimizer, scheduler = one.build(params, 20)
    assert isinstance(scheduler, LRScheduler)
    seen = []
    for _ in range(20):
        seen.append({group["lr"] for group in optimizer.param_groups})
        scheduler.step()
    assert seen == [{0.02 * one.schedule(20)(step)} for step in range(20)]


# Canonical forms


def test_canonical_forms_are_equal_only_for_the_same_optimizer_numbers_options_and_schedule():
    different = [TunedBaseline(name, 1e-2, 1e-3) for name in BASELINES]
    different += [TunedBaseline("adamw", lr, 1e-3) for lr in (1e-3, math.nextafter(1e-2, 1))]
    different += [TunedBaseline("adamw", 1e-2, decay) for decay in (0.0, math.nextafter(1e-3, 1))]
    different += [TunedBaseline("adamw", 1e-3, 1e-2)]
    different += [TunedBaseline("adamw", 1e-2, 1e-3, name) for name in SCHEDULES if name != "none"]
    different += [
        TunedBaseline("adamw", 1e-2, 1e-3, options=options)
        for options in ({"eps": 1e-7}, {"betas": [0.8, 0.999]}, {"betas": [0.9, 0.99]})
    ]
    different += [TunedBaseline("sgd", 1e-2, 1e-3, options={"nesterov": False})]
    forms = [one.canonical() for one in different]
    assert len(set(forms)) == len(forms)


def test_the_same_optimizer_has_one_canonical_form():
    default = TunedBaseline("adamw", 1e-2, 1e-3)
    spelt = TunedBaseline("adamw", 1e-2, 1e-3, "none", {"eps": 1e-8, "betas": [0.9, 0.999]})
    assert default.canonical() == spelt.canonical()


def test_a_baseline_takes_another_rate_and_nothing_else_changes():
    one = TunedBaseline("adamw", 1e-3, 0.1, "warmup_cosine", {"eps": 1e-7})
    other = one.at_rate(0.5)
    assert (other.lr, one.lr) == (0.5, 1e-3)
    assert dataclasses.replace(other, lr=1e-3) == one
    with pytest.raises(ValueError, match="learning rate"):
        one.at_rate(0.0)


def test_a_term_genome_has_a_rate_of_its_own():
    with pytest.raises(TypeError, match="TermGenome has a learning rate of its own"):
        PRESETS["adam"].at_rate(0.1)
