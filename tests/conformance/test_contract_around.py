"""The contract of torch.optim.Optimizer, named as in torch's suite: hooks, scaling, averaging."""

from __future__ import annotations

import math

import pytest
import torch
from contract import (
    assert_close,
    assert_equal,
    eager,
    every_genome,
    feed,
    parameters,
    run,
    through_a_file,
    values,
)
from strategies import genome, random_genome
from torch import nn


def test_step_hooks_run_before_and_after_each_step():
    params = parameters()
    optimizer = eager(params)
    seen = []
    first = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    run(optimizer, params, 2)
    first.remove()
    run(optimizer, params, 1)
    assert seen == ["pre", "post", "pre", "post", "post"]


def test_state_dict_hooks_run():
    optimizer = eager(parameters())
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, state: seen.append("post"))
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load post"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", "post", "load pre", "load post"]


@every_genome
def test_a_grad_scaler_unscales_and_skips_overflows(g):
    torch.manual_seed(0)
    model, plain = nn.Linear(4, 2), nn.Linear(4, 2)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(8, 4)
    scaled, unscaled = eager(model.parameters(), g), eager(plain.parameters(), g)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for k in range(4):
        scaled.zero_grad()
        loss = model(x).square().mean()
        scaler.scale(loss).backward()
        if k == 1:
            model.weight.grad[0, 0] = math.inf
        scaler.step(scaled)
        scaler.update()
        if k != 1:
            unscaled.zero_grad()
            plain(x).square().mean().backward()
            unscaled.step()
    assert scaler.get_scale() == 512.0
    assert_close(values(list(model.parameters())), values(list(plain.parameters())), rtol=1e-5, atol=1e-6)


def test_an_averaged_model_follows_the_training():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = eager(model.parameters())
    swa = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    seen = []
    for k in range(3):
        seen.append(run(optimizer, list(model.parameters()), range(k, k + 1)))
        average.update_parameters(model)
        swa.step()
    means = [torch.stack(ws).mean(0) for ws in zip(*seen, strict=True)]
    assert_close(values(list(average.module.parameters())), means)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_gradient_norm_clipping_from_outside_works_before_it():
    params = parameters()
    optimizer = eager(params, genome("GRAD", lr=0.1), weight_decay=0.0)
    before = values(params)
    feed(params, 0)
    nn.utils.clip_grad_norm_(params, 0.01)
    optimizer.step()
    moved = torch.cat([(a - b).flatten() for a, b in zip(values(params), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-4)


def test_it_can_step_in_backward_hooks():
    """One optimizer a parameter, stepped as its gradient arrives: torch's memory-saving recipe."""
    torch.manual_seed(0)
    model, plain = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    plain.load_state_dict(model.state_dict())
    optimizers = {p: eager([p]) for p in model.parameters()}

    def step(p: nn.Parameter) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    whole = eager(plain.parameters())
    for k in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        model(x).square().sum().backward()
        whole.zero_grad()
        plain(x).square().sum().backward()
        whole.step()
    assert_close(values(list(model.parameters())), values(list(plain.parameters())))


def test_frozen_and_thawed_parameters_are_welcome():
    params = parameters()
    params[0].requires_grad_(False)
    optimizer = eager(params)
    before = values(params)
    for p in params[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(params[0], before[0])
    params[0].requires_grad_(True)
    run(optimizer, params, 1)
    assert not torch.equal(params[0], before[0])


@pytest.mark.parametrize("seed", range(5))
def test_random_rules_keep_the_contract_through_a_checkpoint(seed):
    g = random_genome(seed)
    whole = parameters()
    optimizer, scheduler = g.build(whole, 12)
    for k in range(12):
        run(optimizer, whole, range(k, k + 1))
        scheduler.step()
    params = parameters()
    optimizer, scheduler = g.build(params, 12)
    for k in range(12):
        if k == 5:
            saved = through_a_file({"o": optimizer.state_dict(), "s": scheduler.state_dict()})
            optimizer, scheduler = g.build(params, 12)
            optimizer.load_state_dict(saved["o"])
            scheduler.load_state_dict(saved["s"])
        run(optimizer, params, range(k, k + 1))
        scheduler.step()
    assert_equal(values(params), values(whole))
