"""`GraphOptimizer` beyond torch's contract: time, pieces of memory, dropout, bad numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from contract import assert_equal, feed, parameters, run, through_a_file, values
from graph_optimizers import GRAPHS, STEPS
from torch import Tensor, nn

from optevo.optim.graphs import GraphOptimizer
from optevo.optim.graphs import optimizer as module
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.presets import PRESETS
from optevo.optim.graphs.program import program
from optevo.optim.schedules import OneCycleMomentum

every_graph = pytest.mark.parametrize("name", GRAPHS)
SHAPES = ((5, 8), (3,), (), (0, 2), (4, 3, 2, 2), (17,))


def alone(genome: GraphGenome, params: list[nn.Parameter], steps: int) -> list[Tensor]:
    """Weights after updates of each whole tensor by the equation's function, its numbers made here."""
    rule = program(genome.equation.text())
    momenta = OneCycleMomentum(
        STEPS, warmup_steps=round(genome.warmup * STEPS), hold_steps=round(genome.hold * STEPS)
    )
    states = [[torch.zeros_like(p).flatten() for _ in rule.states] for p in params]
    weights = [p.detach().flatten().clone() for p in params]
    for k in range(1, steps + 1):
        feed(params, k - 1)
        t = min(k, STEPS) - 1
        decays = [decay.value(t, STEPS) for decay in rule.decays]
        for p, w, state in zip(params, weights, states, strict=True):
            if w.numel():
                rule.update(w, p.grad.flatten(), *state, genome.lr, momenta(t), k, *decays, None)
    return [w.view(p.shape) for w, p in zip(weights, params, strict=True)]


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "drops"])
@pytest.mark.parametrize(("block", "packed"), [(65_536, 16_384), (7, 16), (16, 1)])
def test_pieces_of_memory_are_updated_as_whole_tensors(
    name: str, block: int, packed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, put together or in blocks; past the end, decays and momentum keep their last values."""
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "PACKED", packed)
    genome = GRAPHS[name]
    params, others = parameters(*SHAPES), parameters(*SHAPES)
    optimizer = genome.optimizer(params, STEPS)
    assert_equal(run(optimizer, params, STEPS + 5), alone(genome, others, STEPS + 5))


@every_graph
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(name: str, dtype: torch.dtype) -> None:
    ends = []
    for stop in (None, 5):
        params = parameters((2 * module.PACKED,), (3, 4), dtype=dtype)
        optimizer, scheduler = GRAPHS[name].build(params, 12)
        for k in range(12):
            if k == stop:
                saved = through_a_file({"o": optimizer.state_dict(), "s": scheduler.state_dict()})
                # Whatever it was made with: the checkpoint brings rule, length and shares along.
                optimizer = GraphOptimizer(params, "none id(g)", total_steps=3, seed=8)
                scheduler = GRAPHS[name].scheduler(optimizer, 12)
                optimizer.load_state_dict(saved["o"])
                scheduler.load_state_dict(saved["s"])
            run(optimizer, params, range(k, k + 1))
            scheduler.step()
        ends.append(values(params))
    assert_equal(*ends)


def test_dropout_draws_anew_each_step_and_by_its_seed_alone() -> None:
    def ends(seed: int, steps: range) -> Tensor:
        (p,) = parameters((1000,))
        optimizer = GraphOptimizer([p], "none dropout0.3(one)", total_steps=9, lr=1.0, seed=seed)
        p.grad = torch.ones_like(p)
        optimizer.step()
        with torch.no_grad():
            for _ in steps:
                before = p.clone()
                optimizer.step()
        return before - p.detach() if steps else p.detach()

    first, again, second, other = ends(0, range(0)), ends(0, range(0)), ends(0, range(1)), ends(1, range(0))
    assert torch.equal(first, again)
    start = parameters((1000,))[0].detach()
    dropped = ((start - first) == 0).double().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.06)  # four standard deviations
    assert not torch.equal(start - first, second)
    assert not torch.equal(first, other)
    torch.testing.assert_close((start - first).max().item(), 1 / 0.7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [4, 2 * 65_536])
def test_an_update_that_is_not_finite_makes_the_parameter_nan(bad: float, size: int) -> None:
    """Though tanh of infinity is a number, and though the loss of one dead unit may be."""
    for text in ("none id(g)", "momentum mul(g,g)", "nesterov clipnorm1(g)"):
        p, other = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))
        optimizer = GraphOptimizer([p, other], text, total_steps=9)
        p.grad, other.grad = torch.ones(size), torch.ones(size)
        optimizer.step()
        assert p.isfinite().all()
        p.grad[1] = bad
        optimizer.step()
        assert p[:4].isnan().all(), text
        assert size == 4 or other.isfinite().all()


def test_there_is_no_state_that_the_rule_does_not_read() -> None:
    expected = {
        "none id(g)": set(),
        "none add(v_hat,qh_s)": {"v", "s"},
        "nesterov ema0.95(ema0.95(g))": {"n1", "n2", "b"},
        "lookahead runmax(l_hat)": {"c", "n1", "b"},
    }
    for text, names in expected.items():
        params = parameters()
        optimizer = GraphOptimizer(params, text, total_steps=9)
        run(optimizer, params, 2)
        for p in params:
            assert set(optimizer.state[p]) == {*names, "step"}
            assert all(optimizer.state[p][name].shape == p.shape for name in names)


def test_every_group_may_have_its_own_rule_and_time() -> None:
    params, others = parameters(), parameters()
    own: list[dict[str, Any]] = [
        {"equation": "momentum [a1]*g"},
        {"total_steps": 7, "warmup": 0.5, "hold": 0.25},
        {"momentum": 0.5},
    ]
    rule = "nesterov [a3]*tanh(g)"
    groups = [{"params": [p], **one} for p, one in zip(params, own, strict=True)]
    run(GraphOptimizer(groups, rule, total_steps=20), params, 9)
    for p, one in zip(others, own, strict=True):
        settings = {"equation": rule, "total_steps": 20, **one}
        optimizer = GraphOptimizer([p], **settings)
        for k in range(9):
            feed(others, k)
            optimizer.step()
    assert_equal(values(params), values(others))


BAD: dict[str, list[Any]] = {
    "equation": ["none sin(g)", "id(g)", "", None, 3, ["none id(g)"]],
    "total_steps": [0, -1, 10.5, math.nan, math.inf, True, None, "ten", torch.tensor([1, 2])],
    "warmup": [-0.1, 1.1, math.nan, True, None, "a tenth"],
    "hold": [-0.1, 1.1, math.nan, True, None],
    "momentum": [-0.1, math.nan, math.inf, True, "fast"],
    "seed": [-1, 0.5, math.nan, True, None, 2**80],
}


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name, all_of in BAD.items() for bad in all_of])
def test_bad_numbers_are_refused_everywhere_by_name(name: str, bad: object) -> None:
    """As an argument, in a group, in a later group and in a checkpoint; and all stays as it was."""
    given = {"equation": "none id(g)", "total_steps": 9}
    params = parameters()
    optimizer = GraphOptimizer(params, **given)
    state = optimizer.state_dict()
    state["param_groups"][0][name] = bad
    for attempt in (
        lambda: GraphOptimizer(parameters(), **{**given, name: bad}),
        lambda: GraphOptimizer([{"params": parameters(), name: bad}], **given),
        lambda: optimizer.add_param_group({"params": parameters(), name: bad}),
        lambda: optimizer.load_state_dict(state),
    ):
        with pytest.raises(ValueError, match=f"Invalid {name}|Tensor {name}"):
            attempt()
    assert len(optimizer.param_groups) == 1
    others = parameters()
    assert_equal(run(optimizer, params, 2), run(GraphOptimizer(others, **given), others, 2))


def test_warmup_and_hold_together_are_at_most_the_run() -> None:
    with pytest.raises(ValueError, match="Invalid hold"):
        GraphOptimizer(parameters(), "none id(g)", total_steps=9, warmup=0.6, hold=0.6)
    with pytest.raises(ValueError, match="Invalid hold"):
        GraphGenome(PRESETS["opt10"].equation, 0.1, warmup=0.6, hold=0.6)
    for total_steps in range(1, 40):  # where both shares would be rounded up
        params = parameters((2,))
        genome = GraphGenome(PRESETS["opt10"].equation, 0.1, warmup=0.9, hold=0.1)
        optimizer, scheduler = genome.build(params, total_steps)
        run(optimizer, params, 1)
        scheduler.step()


def test_numpys_numbers_are_kept_as_pythons() -> None:
    numbers = {
        "total_steps": np.int64(9),
        "warmup": np.float32(0.5),
        "hold": np.float64(0.25),
        "momentum": np.float32(0.5),
        "seed": np.int32(3),
    }
    params, others = parameters(), parameters()
    optimizer = GraphOptimizer(params, "nesterov dropout0.5(g)", **numbers)
    plain = GraphOptimizer(
        others, "nesterov dropout0.5(g)", **{name: number.item() for name, number in numbers.items()}
    )
    assert_equal(run(optimizer, params, 3), run(plain, others, 3))
    (group,) = through_a_file(optimizer.state_dict())["param_groups"]
    assert {name: type(group[name]) for name in numbers} == {
        name: type(number.item()) for name, number in numbers.items()
    }


@pytest.mark.parametrize("layout", ["channels last", "gaps", "gradient of other strides"])
def test_large_parameters_of_any_layout_are_updated_as_contiguous_ones(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKED", 16)
    start = parameters((4, 3, 5, 5))[0].detach()
    odd = torch.empty(4, 3, 5, 10, dtype=start.dtype)[..., ::2].copy_(start)
    if layout != "gaps":
        odd = start.clone(memory_format=torch.channels_last)
    ours, plain = [nn.Parameter(odd)], [nn.Parameter(start.clone())]
    for name in ("remembers", "bounded"):
        optimizer, other = (GRAPHS[name].optimizer(one, STEPS) for one in (ours, plain))
        for k in range(3):
            feed(ours, k)
            feed(plain, k)
            if layout != "gradient of other strides":
                ours[0].grad = torch.empty_like(odd).copy_(plain[0].grad)
            optimizer.step()
            other.step()
        torch.testing.assert_close(ours[0].detach(), plain[0].detach(), rtol=1e-13, atol=1e-15)
        assert ours[0].stride() == odd.stride()
