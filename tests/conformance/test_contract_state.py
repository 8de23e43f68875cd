"""The contract of torch.optim.Optimizer, named as in torch's suite: state and checkpoints."""

from __future__ import annotations

import copy
import pickle

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

from optevo.optim import PRESETS


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


@every_genome
def test_save_load_equality_with_weights_only(g):
    whole = parameters()
    expected = run(eager(whole, g), whole, 9)
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 4)
    loaded = through_a_file(optimizer.state_dict())
    resumed = eager(params, g)
    resumed.load_state_dict(loaded)
    assert_equal(run(resumed, params, range(4, 9)), expected)


def test_a_checkpoint_brings_its_rule_with_it():
    whole = parameters()
    expected = run(eager(whole), whole, 9)
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 4)
    resumed = eager(params, PRESETS["signsgd"])
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_equal(run(resumed, params, range(4, 9)), expected)


def test_a_checkpoint_of_another_size_is_refused():
    optimizer = eager(parameters())
    with pytest.raises(ValueError, match=r"parameter group.*size|match the size"):
        optimizer.load_state_dict(eager(parameters((2,))).state_dict())


def test_can_load_older_state_dict():
    """A checkpoint from before a group knew `maximize` loads, and steps."""
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 2)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("maximize")
    resumed = eager(params)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["maximize"] is False
    run(resumed, params, range(2, 3))


def test_load_nontensor_step():
    whole = parameters()
    expected = run(eager(whole), whole, 5)
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        entry["step"] = float(entry["step"])
    resumed = eager(params)
    resumed.load_state_dict(state)
    assert_equal(run(resumed, params, range(3, 5)), expected)
    assert_equal([torch.as_tensor(resumed.state[params[0]]["step"])], [torch.tensor(5.0)])


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


@pytest.mark.parametrize(("named_before", "named_after"), [(True, True), (True, False), (False, True)])
def test_can_load_from_to_named_state_dict(named_before, named_after):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    take = {True: model.named_parameters, False: model.parameters}
    optimizer = eager(take[named_before]())
    params = list(model.parameters())
    run(optimizer, params, 3)
    resumed = eager(take[named_after]())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if named_after:
        assert resumed.param_groups[0]["param_names"] == [n for n, _ in model.named_parameters()]
    twins = copy.deepcopy(params)
    twin = eager(twins)
    twin.load_state_dict(
        {
            **(state := copy.deepcopy(optimizer.state_dict())),
            "param_groups": [
                {k: v for k, v in g.items() if k != "param_names"} for g in state["param_groups"]
            ],
        }
    )
    assert_equal(run(resumed, params, range(3, 6)), run(twin, twins, range(3, 6)))


@every_genome
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_a_copied_optimizer_goes_on_with_its_copied_parameters(g, clone):
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 3)
    twin = clone(optimizer)
    twins = twin.param_groups[0]["params"]
    before = values(params)
    ours = run(twin, twins, range(3, 6))
    assert_equal(values(params), before)
    assert_equal(ours, run(optimizer, params, range(3, 6)))
    assert "exp_avg" not in str(repr(twin))


def test_its_repr_shows_the_groups():
    assert "lr" in repr(eager(parameters()))
