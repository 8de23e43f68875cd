"""Muon and AdamW as one optimizer: kinds of parameters, groups that stay whole, and sharding."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from baseline_studies import assert_same, stepped, tuned
from contract import parameters, run, values
from torch import nn

from optevo.optim.muon import MuonAdamW, MuonConvAdamW

SHAPES = ((8, 3, 3, 3), (8,), (12, 8), (12,), (5, 12), (5,))  # a small convolutional network's
MUON = {"lr": 3e-2, "weight_decay": 0.1, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}


def weights() -> list[nn.Parameter]:
    return parameters(*SHAPES, dtype=torch.float32)


def alone(params: list[nn.Parameter], kinds: str, steps: int = 6) -> list[torch.Tensor]:
    """torch's own optimizers a parameter, "m" for Muon, which sees a convolution as a matrix."""
    seen = []
    for index, (p, kind) in enumerate(zip(params, kinds, strict=True)):
        w = nn.Parameter(p.detach().flatten(1).clone() if kind == "m" else p.detach().clone())
        optimizer: torch.optim.Optimizer = (
            torch.optim.Muon([w], **MUON)
            if kind == "m"
            else torch.optim.AdamW([w], lr=3e-2, weight_decay=0.1)
        )
        for k in range(steps):
            rng = torch.Generator().manual_seed(k)
            grads = [torch.randn(q.shape, generator=rng) for q in params]
            w.grad = grads[index].reshape(w.shape)
            optimizer.step()
        seen.append(w.detach().reshape(p.shape))
    return seen


def taken(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> str:
    """How each parameter was trained: "m" by Muon, "a" by AdamW."""
    stepped(optimizer, params, steps=1)
    return "".join("m" if "momentum_buffer" in optimizer.state[p] else "a" for p in params)


@pytest.mark.parametrize(("make", "kinds"), [(MuonAdamW, "aamama"), (MuonConvAdamW, "mamaaa")])
def test_each_kind_is_trained_as_torchs_own_optimizer_does(make: Any, kinds: str):
    params, start = weights(), weights()
    after = stepped(make(params, lr=3e-2), params, steps=6)
    expected = alone(start, kinds)
    for mine, torchs, kind in zip(after, expected, kinds, strict=True):
        # Muon bit for bit; AdamW's fused kernel rounds otherwise than the loop.
        assert_same([mine], [torchs], rtol=0 if kind == "m" else 2e-6, atol=0 if kind == "m" else 1e-7)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7)])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_is_trained_as_by_torchs_muon_to_the_last_bit(
    shape: tuple[int, int], nesterov: bool, dtype: torch.dtype
):
    ours, theirs = (parameters(shape, dtype=dtype) for _ in range(2))
    run(MuonAdamW(ours, lr=3e-2, nesterov=nesterov), ours, 5)
    run(torch.optim.Muon(theirs, nesterov=nesterov, **MUON), theirs, 5)
    assert all(torch.equal(a, b) for a, b in zip(values(ours), values(theirs), strict=True))


@pytest.mark.parametrize("shape", [(6, 3, 2), (6, 3, 2, 2), (4, 2, 2, 2, 2)])
def test_a_convolution_is_trained_as_its_matrix(shape: tuple[int, ...]):
    (conv,) = parameters(shape)
    matrix = nn.Parameter(conv.detach().flatten(1).clone())
    ours, theirs = MuonConvAdamW([conv], lr=0.1), MuonAdamW([matrix], lr=0.1)
    for k in range(4):
        conv.grad = torch.randn(shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        matrix.grad = conv.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    assert torch.equal(conv.flatten(1), matrix)
    assert ours.state[conv]["momentum_buffer"].shape == shape  # as whoever shards state expects


def test_a_convolution_in_channels_last_is_trained_as_any():
    plain = parameters((6, 3, 2, 2))[0]
    last = nn.Parameter(plain.detach().to(memory_format=torch.channels_last))
    for p in (plain, last):
        run(MuonConvAdamW([p], lr=0.1), [p], 1)
    torch.testing.assert_close(last.detach(), plain.detach(), rtol=0, atol=2e-3)
    assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ([None, None], "mamaaa"),
        ([None, False], "maaaaa"),  # (12, 8) is the last of those that don't say
        ([False, None], "aaaaaa"),
        ([True, False], "mamaaa"),
        ([True, True], "mamama"),
        ([False, True], "aaaama"),
    ],
)
def test_groups_may_say_what_is_trained_how(said: list[bool | None], kinds: str):
    params = weights()
    groups = [
        {"params": part, **({} if use is None else {"use_muon": use})}
        for part, use in zip((params[:4], params[4:]), said, strict=True)
    ]
    assert taken(MuonConvAdamW(groups), params) == kinds


def test_a_group_that_comes_later_changes_nothing_of_the_earlier_ones():
    params = weights()
    optimizer = MuonConvAdamW(params[4:])  # the classifier, while all else is frozen
    assert taken(optimizer, params[4:]) == "aa"
    optimizer.add_param_group({"params": params[:4]})
    assert taken(optimizer, params) == "mamaaa"


def test_a_checkpoint_brings_the_last_layer_with_it():
    params = weights()
    optimizer = MuonConvAdamW(params)
    taken(optimizer, params)
    state = optimizer.state_dict()
    again = MuonConvAdamW(params)
    again.load_state_dict(state)
    assert taken(again, params) == "mamaaa"
    assert again.state_dict()["param_groups"] == state["param_groups"]


@pytest.mark.parametrize("make", [MuonAdamW, MuonConvAdamW])
def test_groups_and_parameters_stay_as_they_were_given(make: Any):
    params = weights()
    optimizer = make([{"params": params[:3]}, {"params": params[3:], "lr": 0.5}])
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == [
        [id(p) for p in part] for part in (params[:3], params[3:])
    ]
    optimizer.add_param_group({"params": parameters((2, 2), (2,))})
    assert len(optimizer.param_groups) == 3
    named = make(nn.Linear(3, 2).named_parameters())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]


def test_muon_keeps_its_canonical_form_and_muon_conv_has_its_own():
    """Stored results are found under these."""
    assert tuned("muon", 1e-3, 0.1).canonical() == (
        '{"betas":[0.9,0.999],"eps":1e-08,"lr":0.001,"momentum":0.95,"nesterov":true,'
        '"optimizer":"optevo.optim.muon.MuonAdamW","schedule":"none","weight_decay":0.1}'
    )
    assert '"optimizer":"muon_conv"' in tuned("muon_conv", 1e-3, 0.1).canonical()


# --- sharding -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def groups_of(params: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:4], "use_muon": True}, {"params": params[4:], "use_muon": False, "lr": 1e-2}]


def shard(rank: int, world: int, port: int, expected: list[torch.Tensor]) -> None:
    """Six steps of a sharded optimizer, whose weights must be those of one that holds everything."""
    from torch import distributed  # noqa: PLC0415
    from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: PLC0415

    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        params = weights()
        sharded = ZeroRedundancyOptimizer(groups_of(params), MuonConvAdamW, lr=3e-2)
        assert len(sharded.param_groups) == len(sharded.optim.param_groups) == 2
        after = stepped(sharded, params, steps=3)
        sharded.consolidate_state_dict(0)
        if rank == 0:
            state = sharded.state_dict()
            assert len(state["state"]) == len(params)
        after = stepped(sharded, params, steps=3, start=3)
        assert_same(after, expected, rtol=0, atol=0)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_zero_shards_it(world: int):
    """`ZeroRedundancyOptimizer`, which counts a shard's groups."""
    pytest.importorskip("torch.distributed.optim")
    params = weights()
    expected = stepped(MuonConvAdamW(groups_of(params), lr=3e-2), params, steps=6)
    if world == 1:
        shard(0, 1, free_port(), expected)
    else:
        torch.multiprocessing.spawn(shard, (world, free_port(), expected), nprocs=world)
