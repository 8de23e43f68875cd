"""The contract of torch.optim.Optimizer, named as in torch's suite: state and checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from contract import (
    assert_close,
    assert_equal,
    eager,
    every_genome,
    parameters,
    run,
    through_a_file,
    values,
)
from torch import nn

from optevo.optim.terms.presets import PRESETS


@every_genome
def test_there_is_no_state_that_the_rule_does_not_read(g):
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 2)
    rule = g.rule()
    expected = {"exp_avg": rule.reads_m, "exp_avg_sq": rule.reads_v, "step": rule.bias_correction}
    for p in params:
        assert set(optimizer.state[p]) == {key for key, read in expected.items() if read}
        assert all(
            t.shape == p.shape and t.dtype == p.dtype
            for key, t in optimizer.state[p].items()
            if key != "step"
        )


def test_the_step_count_is_a_float32_tensor_on_the_cpu(device):
    params = parameters(device=device)
    optimizer = eager(params)
    run(optimizer, params, 2)
    step = optimizer.state[params[0]]["step"]
    assert (step.dtype, step.device.type, step.item()) == (torch.float32, "cpu", 2.0)


@every_genome
def test_state_dict_deterministic(g, device):
    """torch's test: load into a fresh optimizer, go on, and both stay the same to the last bit."""
    params = parameters(device=device)
    optimizer = eager(params, g)
    run(optimizer, params, 4)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    twin = eager(twins, g)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_equal(run(optimizer, params, range(4, 9)), run(twin, twins, range(4, 9)))
    assert str(optimizer.state_dict()) == str(twin.state_dict())


def test_a_checkpoint_brings_its_rule_with_it():
    whole = parameters()
    expected = run(eager(whole), whole, 9)
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 4)
    resumed = eager(params, PRESETS["signsgd"])
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_equal(run(resumed, params, range(4, 9)), expected)


def test_loading_into_bfloat16_parameters_keeps_the_step_float32():
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 300)
    coarse = [nn.Parameter(p.detach().bfloat16()) for p in params]
    loaded = eager(coarse)
    loaded.load_state_dict(through_a_file(optimizer.state_dict()))
    run(loaded, coarse, range(1))
    state = loaded.state[coarse[0]]
    assert (state["step"].dtype, state["step"].item()) == (torch.float32, 301.0)
    assert state["exp_avg"].dtype == torch.float32


@pytest.mark.cuda
def test_state_dict_with_cuda_params():
    if not torch.cuda.is_available():
        pytest.skip("torch.cuda.is_available() is false on this machine")
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 3)
    moved = [nn.Parameter(p.detach().cuda()) for p in params]
    loaded = eager(moved)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, params, range(3, 6))
    run(loaded, moved, range(3, 6))
    assert loaded.state[moved[0]]["exp_avg"].is_cuda
    assert_close([w.cpu() for w in values(moved)], values(params))
