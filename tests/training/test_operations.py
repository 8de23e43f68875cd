"""What a training step costs: counted by hand, of every optimizer, without a trace; runs of equal cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_tasks import Global
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.optim.graphs.presets import PRESETS as GRAPH_PRESETS
from optevo.optim.terms import kernels
from optevo.optim.terms.presets import PRESETS
from optevo.study.config import parse_config
from optevo.tasks import Split, Task, build
from optevo.training import bench
from optevo.training.base import Operations
from optevo.training.bench import Bench
from optevo.training.operations import ADAMW, COUNTED, OperationCounter, operations_a_step

BATCH, WIDTH = 8, 6


class Linear(Task):
    """One matrix from four numbers to six."""

    name = "linear"

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.linspace(-1, 1, 4 * 32).view(32, 4)
        split = Split(x, torch.arange(32) % WIDTH)
        return {"train": split, "validation": split, "test": split}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Linear(4, WIDTH, bias=False), generator)


class Made:
    """A candidate that is any optimizer."""

    by_kind = False

    def __init__(self, make: Any) -> None:
        self.make = make

    def build(self, params: Iterable[Any], total_steps: int) -> Any:
        optimizer = self.make(params)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


class Scripted(torch.optim.Optimizer):
    """Doubles all weights so often a step as the script says."""

    def __init__(self, params: Iterable[Any], script: list[Any]) -> None:
        super().__init__(params, {"lr": 1.0})
        self.script = iter(script)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        times = next(self.script)
        if isinstance(times, Exception):
            raise times
        for _ in range(times):
            self.param_groups[0]["params"][0].mul_(2.0)


def split() -> Split:
    return Linear().load(Path())["train"]


def counted(candidate: Any, batch_size: int = BATCH) -> Operations:
    return operations_a_step(Linear(), candidate, batch_size, split())


def operations(compute: Any) -> int:
    with OperationCounter() as counter:
        compute()
    return counter.total


# By hand


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: ones(3, 4) @ ones(4, 5), 2 * 3 * 4 * 5),
        (lambda: ones(2, 3, 4) @ ones(2, 4, 5), 2 * 2 * 3 * 4 * 5),
        (lambda: ones(3, 4) @ ones(4), 2 * 3 * 4),
        (lambda: ones(3, 5).addmm_(ones(3, 4), ones(4, 5)), 2 * 3 * 4 * 5),
        (lambda: torch.conv2d(ones(1, 2, 5, 5), ones(3, 2, 3, 3)), 2 * 3 * 3 * 3 * 2 * 9),
        (lambda: torch.linalg.eigh(ones(2, 3, 3)), 2 * 9 * 27),
        (lambda: ones(3, 4) + 1, 12),
        (lambda: ones(3, 4).mul_(2).sqrt_(), 24),
        (lambda: ones(3, 4) > 0, 12),
        (lambda: ones(3, 4).sum(), 12),
        (lambda: ones(3, 4).norm(), 12),
        (lambda: torch._foreach_norm([ones(3), ones(4)]), 7),
        (lambda: torch._foreach_lerp_([ones(3), ones(4)], [ones(3), ones(4)], 0.5), 7),
        (lambda: torch._foreach_sqrt([ones(3), ones(4)]), 7),
        (lambda: ones(3, 4).t().reshape(-1)[2:].clone().zero_(), 0),
        (lambda: torch.cat([ones(3), ones(4)]).to(torch.bfloat16), 0),
        (lambda: torch._foreach_copy_([ones(3)], [ones(3)]), 0),
        (lambda: torch.arange(5) * 2, 0),
        (lambda: torch.tensor(3.0).mul_(2), 0),
    ],
)
def test_an_operation_counts_as_the_docstring_says(compute: Any, expected: int):
    assert operations(compute) == expected


def test_forward_and_backward_have_each_its_products():
    """Inputs need no gradient, so that the backward pass has one product, as the forward pass has."""
    products = 2 * 2 * BATCH * 4 * WIDTH
    small, large = (counted(Made(lambda p: SGD(p, lr=0.1)), size).model for size in (BATCH, 2 * BATCH))
    assert products < small < 1.5 * products
    assert 1.9 * small < large <= 2 * small


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (SGD, {}),
        (SGD, {"momentum": 0.9}),
        (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (SGD, {"maximize": True}),
        (Adam, {}),
        (Adam, {"weight_decay": 0.1}),
        (AdamW, {}),
        (AdamW, {"weight_decay": 0.0}),
        (AdamW, {"amsgrad": True}),
        (torch.optim.Adagrad, {}),
        (torch.optim.Adagrad, {"weight_decay": 0.1}),
    ],
)
def test_a_fused_optimizer_counts_as_its_unfused_form(make: Any, arguments: dict[str, Any]):
    fused, unfused = (
        counted(Made(lambda p, how=how: make(p, lr=0.1, **how, **arguments))).update
        for how in ({"fused": True}, {"foreach": True})
    )
    assert fused == unfused > 0


def test_adamw_is_what_others_are_measured_by():
    found = counted(TunedBaseline("adamw", 1e-3, 1e-2))
    assert found.update == found.adamw == ADAMW * 4 * WIDTH
    assert found.relative == 1
    assert counted(PRESETS["adamw"]) == found


# Of every optimizer, without a trace


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_counted_alike_each_time(name: str):
    candidate = TunedBaseline(name, 1e-3, 1e-2, "warmup_cosine")
    assert counted(candidate) == counted(candidate)
    assert counted(candidate).update > 0


@pytest.mark.parametrize("name", [*PRESETS, "opt1", "opt4_as_coded", "opt10"])
def test_every_preset_is_counted_alike_each_time(name: str):
    candidate = PRESETS[name] if name in PRESETS else GRAPH_PRESETS[name].at_rate(0.1)
    assert counted(candidate) == counted(candidate)
    assert counted(candidate).update >= 2 * 4 * WIDTH


def test_the_orthogonal_factor_costs_its_products():
    found = counted(TunedBaseline("muon", 1e-3, 1e-2)).update
    n, m = 4, WIDTH
    iterations = 5 * (2 * n * n * m + 2 * n * n * n + 2 * n * n * m)
    assert iterations < found < iterations + 12 * n * m + 5 * n * n


def test_what_is_drawn_from_the_global_generator_leaves_no_trace():
    task = Global()
    train = task.load(Path())["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        first = operations_a_step(task, PRESETS["adam"], 4, train)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(6)
        assert operations_a_step(task, PRESETS["adam"], 4, train) == first


def test_nothing_is_compiled_for_a_count(monkeypatch: pytest.MonkeyPatch):
    def compiled(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    monkeypatch.setattr(kernels, "has_compiler", lambda device: True)
    assert kernels.pays([nn.Parameter(ones(3))])
    monkeypatch.setattr(kernels, "compiled_update", compiled)
    assert counted(PRESETS["adam"]).update == ADAMW * 4 * WIDTH


def test_an_update_that_is_dearer_now_and_then_counts_by_its_mean():
    script = [100, *[1] * (COUNTED - 1), 11]
    assert counted(Made(lambda p: Scripted(p, script))).update == 2 * 4 * WIDTH


@pytest.mark.parametrize(("script", "expected"), [([1, 3, OverflowError()], 3), ([OverflowError()], ADAMW)])
def test_an_update_whose_numbers_go_wrong_counts_as_far_as_it_came(script: list[Any], expected: int):
    assert counted(Made(lambda p: Scripted(p, script))).update == expected * 4 * WIDTH


def test_an_update_that_fails_otherwise_is_not_hidden():
    with pytest.raises(TypeError):
        counted(Made(lambda p: Scripted(p, [TypeError()])))


def test_without_data_the_task_loads_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTEVO_DATA", "nowhere")
    assert operations_a_step(Linear(), PRESETS["adam"], BATCH) == counted(PRESETS["adam"])


# Runs of equal cost


@pytest.mark.parametrize(
    ("update", "steps"), [(100, 700), (99, 700), (102, 698), (50, 733), (0, 770), (10**9, 1)]
)
def test_a_dear_update_gets_fewer_steps(update: int, steps: int):
    found = Operations(model=1000, update=update, adamw=100)
    assert found.steps_for(700) == steps
    assert steps == 1 or steps * found.total <= 700 * 1100


def test_adamw_gets_exactly_the_budget_s_steps():
    for model in (1, 7, 3_957_760, 10**12 + 7):
        for steps in (1, 3, 500, 10**7):
            assert Operations(model, 8 * 6570, 8 * 6570).steps_for(steps) == steps


def make_bench(budget: str, steps: int = 40, **evaluation: Any) -> Bench:
    one = {"tasks": ["digits"], "steps": steps, "budget": budget, **evaluation}
    sampler = {"kind": "random", "n_trials": 4}
    return Bench(parse_config({"name": "one", "sampler": sampler, "evaluation": one}, "test"), "cpu", Path())


def test_a_run_has_the_operations_of_adamw_s_steps():
    dear, cheap, adamw = (TunedBaseline(name, 1e-3, 1e-2) for name in ("muon", "sgd", "adamw"))
    equal, usual = make_bench("flops"), make_bench("steps")
    assert equal.run(adamw, 0, 0).losses == usual.run(adamw, 0, 0).losses
    assert equal.run(adamw, 0, 0).metric == usual.run(adamw, 0, 0).metric
    assert equal.run(cheap, 0, 0).steps == 40
    found = equal.operations(dear, 0)
    run = equal.run(dear, 0, 0)
    assert run.steps == found.steps_for(40) < 15
    assert len(run.losses) == 10  # tenths of its own run
    assert usual.run(dear, 0, 0).steps == 40


def test_a_schedule_is_for_the_candidate_s_own_steps(monkeypatch: pytest.MonkeyPatch):
    seen = []
    build_it = TunedBaseline.build

    def noted(self: TunedBaseline, params: Any, total_steps: int) -> Any:
        seen.append(total_steps)
        return build_it(self, params, total_steps)

    equal, dear = make_bench("flops"), TunedBaseline("muon", 1e-3, 1e-2, "warmup_cosine")
    steps = equal.operations(dear, 0).steps_for(40)
    monkeypatch.setattr(TunedBaseline, "build", noted)
    equal.run(dear, 0, 0)
    assert seen == [steps]


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_what_is_told_of_a_run_lies_on_the_axis_of_adamw_s_steps(name: str):
    points: list[int] = []
    make_bench("flops", 36).run(
        TunedBaseline(name, 1e-3, 1e-2), 0, 0, on_point=lambda step, loss: points.append(step)
    )
    assert points == [round(36 * i / 10) for i in range(1, 10)]


def test_a_run_shorter_than_ten_steps_is_told_of_in_order():
    points: list[int] = []
    make_bench("flops", 12).run(
        TunedBaseline("muon", 1e-3, 1e-2), 0, 0, on_point=lambda step, loss: points.append(step)
    )
    assert points == [4, 8]


def test_one_canonical_form_is_counted_once(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def counting(*said: Any) -> Operations:
        asked.append(said)
        return Operations(10, 10, 10)

    monkeypatch.setattr(bench, "operations_a_step", counting)
    equal = make_bench("flops", 2)
    for candidate in (PRESETS["adam"], PRESETS["sgd"], PRESETS["adam"]):
        for seed in (0, 1):
            equal.run(candidate, 0, seed)
    assert len(asked) == 2


def test_a_rule_without_a_rate_is_counted_at_any():
    space = {"kind": "graph", "presets": ["opt10"]}
    sampler = {"kind": "random", "n_trials": 4}
    evaluation = {"tasks": ["digits"], "steps": 2000, "rates": {}}
    data = {"name": "one", "space": space, "sampler": sampler, "evaluation": evaluation}
    one = Bench(parse_config(data, "test"), "cpu", Path())
    assert one.operations(GRAPH_PRESETS["opt10"], 0).update > 0
