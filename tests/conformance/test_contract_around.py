"""The contract of torch.optim.Optimizer, named as in torch's suite: hooks, scaling, averaging."""

from __future__ import annotations

import pytest
import torch
from contract import (
    assert_close,
    assert_equal,
    eager,
    feed,
    parameters,
    run,
    through_a_file,
    values,
)
from strategies import genome, random_genome
from torch import nn


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
