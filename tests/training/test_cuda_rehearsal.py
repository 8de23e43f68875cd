"""Training on a CUDA device that is not there: no two devices meet, and no step waits for the device."""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections import Counter
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, FakeCuda
from fake_cuda_tasks import BATCH, BLANK, LOOKS, STEPS, made
from modern_optimizers import MODERN
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.optim.terms import kernels
from optevo.optim.terms import stacked as stacked_terms
from optevo.optim.terms.export import export_source
from optevo.optim.terms.presets import PRESETS
from optevo.spaces import TermSpace
from optevo.tasks import Task
from optevo.training.precision import PRECISIONS
from optevo.training.run import Run
from optevo.training.single import train
from optevo.training.stacked import stacks, train_stacked


def moved(task: Task) -> int:
    """How many tensors a model has: each is copied to the device before the first step."""
    model = task.model(torch.Generator().manual_seed(0))
    return len(list(model.parameters())) + len(list(model.buffers()))


def constants(task: Task) -> Counter[str]:
    """Mean and deviation of images, copied once."""
    return Counter({"base.Normalise.__call__": 0 if task.name == "char_lm" else 2})


def scoring(task: Task, runs: int = 1) -> Counter[str]:
    """Reading a run's score, learning curve and last losses."""
    score = "text.CharLM.score" if task.name == "char_lm" else "base.Task.score"
    return Counter({score: runs, "single.mean_losses": runs, "single.finish": runs})


def train_together(task: Task, splits: Any, candidates: Any, **options: Any) -> list[Run]:
    """`train_stacked` of term genomes."""
    rules = TermSpace().stack(candidates, options["steps"])
    return train_stacked(task, splits, rules, len(candidates), **options)


# --- runs ---------------------------------------------------------------------------------------------------


#: Every task; the large ones take seconds a test.
EVERY_TASK = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("cifar10", "char_lm"))) for name in BLANK
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", EVERY_TASK)
def test_a_run_waits_for_its_looks_and_its_end_alone(cuda: FakeCuda, name: str, precision: str) -> None:
    task, splits = made(name)
    cuda.waits.clear()
    points: list[int] = []
    run = train(
        *(task, splits, PRESETS["evolved"]),
        **{"seed": 0, "steps": STEPS, "batch_size": BATCH, "precision": precision},
        on_point=lambda step, loss: points.append(step),
        check=cuda.begin_step,
    )
    assert run.diverged_at is None
    assert points == [1, 2, 4, 5, 6, 7, 8, 10, 11]
    assert not [wait for wait in cuda.waits if wait.step in (3, 9)]
    looks = Counter(
        {"single.fitted": moved(task), "single._first_bad": LOOKS, "single.mean_losses": len(points)}
    )
    assert cuda.places() == looks + constants(task) + scoring(task)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=[pytest.mark.slow] * (name in ("cifar10", "char_lm")))
        for name, precision in (*((name, "float32") for name in BLANK), ("cifar10", "bfloat16"))
    ],
)
def test_a_stack_waits_for_its_looks_and_its_end_alone(cuda: FakeCuda, name: str, precision: str) -> None:
    task, splits = made(name)
    cuda.waits.clear()
    candidates = [PRESETS["evolved"], PRESETS["sgd"], PRESETS["adam"]]
    runs = train_together(
        *(task, splits, candidates),
        **{"seed": 0, "steps": STEPS, "batch_size": BATCH, "precision": precision},
        check=cuda.begin_step,
    )
    assert [run.diverged_at for run in runs] == [None] * 3
    assert not [wait for wait in cuda.waits if wait.step in (3, 9)]
    # A look finds out whether anyone diverged, and who.
    looks = Counter({"stacked.train_stacked": moved(task) + 2 * LOOKS, "stacked.StackedTerms.__init__": 1})
    assert cuda.places() == looks + constants(task) + scoring(task, len(runs))
    assert stacks(task, CUDA)


def test_looks_are_25_steps_apart_where_tenths_are_longer(cuda: FakeCuda) -> None:
    task, splits = made("digits")
    train(task, splits, PRESETS["adam"], seed=0, steps=60, batch_size=BATCH, check=cuda.begin_step)
    looks = [wait.step for wait in cuda.waits if wait.where == "single._first_bad"]
    assert looks == sorted({25, 50, *range(6, 61, 6)})
    assert {wait.step for wait in cuda.waits} <= {0, 1, *looks}


def test_the_default_device_changes_nothing(cuda: FakeCuda) -> None:
    task, splits = made("digits")
    options = {"seed": 0, "steps": STEPS, "batch_size": BATCH, "check": cuda.begin_step}
    places = []
    for device in ("cpu", CUDA):
        stacked_terms._scalars.cache_clear()
        with torch.device(device):
            cuda.waits.clear()
            train(task, splits, PRESETS["adamw"], **options)
            train_together(task, splits, [PRESETS["adamw"], PRESETS["sgd"]], **options)
        places.append(cuda.places())
        task.normalise = copy.copy(task.normalise)
    assert places[0] == places[1]


def test_a_diverged_run_reads_where_and_is_not_scored(cuda: FakeCuda) -> None:
    task, splits = made("digits")

    def check() -> None:
        cuda.begin_step()
        cuda.answer = int(cuda.step == 5)  # every loss is too great, and the second one the first

    cuda.waits.clear()
    run = train(task, splits, PRESETS["sgd"], seed=0, steps=STEPS, batch_size=BATCH, check=check)
    assert (run.diverged_at, run.steps, run.metric) == (5, 5, None)
    waits = Counter(wait.where for wait in cuda.waits if wait.step == 5)
    assert waits == {"single._first_bad": 2, "single.mean_losses": 1}
    assert "base.Task.score" not in cuda.places()


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_stack_goes_on_without_one_that_diverged(cuda: FakeCuda, name: str) -> None:
    task, splits = made(name)

    def check() -> None:
        cuda.begin_step()
        cuda.answer = int(cuda.step == 5)  # the second candidate's losses are too great

    candidates = [PRESETS["evolved"], PRESETS["sgd"], PRESETS["adam"]]
    runs = train_together(task, splits, candidates, seed=0, steps=STEPS, batch_size=BATCH, check=check)
    assert [run.diverged_at for run in runs] == [None, 5, None]
    # That somebody did, and who: here number 1 three times over, and each time since when.
    dropping = Counter(wait.where for wait in cuda.waits if wait.step == 5)
    assert dropping == {"stacked.train_stacked": 2 + 3 * 2, "stacked._Stack.drop": 1}
    assert not [wait for wait in cuda.waits if wait.step in (3, 9)]


# --- optimizers ---------------------------------------------------------------------------------------------


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix, a vector and a kernel on the device."""
    return [
        nn.Parameter(torch.zeros(shape, dtype=dtype, device=CUDA)) for shape in ((8, 4), (8,), (2, 1, 3, 3))
    ]


def take_steps(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], scheduler: Any = None) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """A compiler for the device that leaves a kernel as it is; the kernels that it was given."""
    monkeypatch.setattr(torch, "compile", lambda kernel, **options: kernel)
    monkeypatch.setattr(kernels, "has_compiler", lambda device: device == "cuda")
    monkeypatch.setattr(kernels, "Tensor", FakeTensor)  # the class of our parameters
    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    known: dict[Any, Any] = {}
    monkeypatch.setattr(kernels, "_kernels", known)
    return known


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, None, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_waits_in_a_step(
    compiler: dict[Any, Any], cuda: FakeCuda, preset: str, compiled: bool | None, dtype: torch.dtype
) -> None:
    params = weights(dtype)
    optimizer = PRESETS[preset].optimizer(params, compiled=compiled)
    take_steps(optimizer, params, PRESETS[preset].scheduler(optimizer, total_steps=10))
    assert cuda.waits == []
    assert bool(compiler) == (compiled is not False)


@pytest.mark.parametrize("compiled", [False, True])
def test_groups_with_settings_of_their_own_do_not_wait(
    compiler: dict[Any, Any], cuda: FakeCuda, compiled: bool
) -> None:
    params = weights()
    groups = [
        {"params": params[:1], "lr": 1e-2, "betas": (0.8, 0.9), "maximize": True},
        {"params": params[1:2], "bias_correction": False, "weight_decay": 0.1},
        {"params": params[2:], "clip_value": 0.1, "coefficients": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)},
    ]
    optimizer = PRESETS["adam"].optimizer(groups, compiled=compiled)
    take_steps(optimizer, params)
    assert cuda.waits == []


@pytest.mark.parametrize("compiled", [False, True])
def test_bias_correction_counts_on_the_cpu_whatever_the_default_device(
    compiler: dict[Any, Any], cuda: FakeCuda, compiled: bool
) -> None:
    params = weights()
    with torch.device(CUDA):
        optimizer = PRESETS["adamw"].optimizer(params, compiled=compiled)
        take_steps(optimizer, params)
    assert cuda.waits == []
    assert {optimizer.state[p]["step"].device.type for p in params} == {"cpu"}
    assert {float(optimizer.state[p]["step"]) for p in params} == {3.0}


def test_a_learning_rate_on_the_device_costs_a_wait_a_step(cuda: FakeCuda) -> None:
    params, cuda.answer = weights(), 1
    optimizer = PRESETS["adam"].optimizer(params, lr=torch.full((), 1e-3, device=CUDA))
    cuda.waits.clear()
    take_steps(optimizer, params)
    assert cuda.places() == {"optimizer._group_scalars": 3}


@pytest.mark.parametrize("default", ["cpu", CUDA])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_exported_optimizer_waits_in_a_step(
    cuda: FakeCuda, preset: str, default: str | torch.device
) -> None:
    names: dict[str, Any] = {}
    exec(export_source(PRESETS[preset], class_name="Exported"), names)
    params = weights()
    with torch.device(default):
        take_steps(names["Exported"](params), params)
    assert cuda.waits == []


@pytest.mark.parametrize("default", ["cpu", CUDA])
@pytest.mark.parametrize("name", MODERN)
def test_no_genome_of_the_modern_catalogue_waits_in_a_step_nor_its_file(
    cuda: FakeCuda, name: str, default: str | torch.device
) -> None:
    genome, names = MODERN[name], dict[str, Any]()
    exec(genome.source("Exported", {}), names)
    for make in (functools.partial(genome.optimizer, compiled=False), names["Exported"]):
        params = weights()
        with torch.device(default):
            take_steps(make(params), params)
    assert cuda.waits == []


#: torch's own reads the norms of a weight and of its update at every step.
WAITS = {"adafactor": 2}


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_waits_in_a_step_but_adafactor(cuda: FakeCuda, name: str) -> None:
    package = BASELINES[name].factory.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    task, splits = made("digits")
    candidate = TunedBaseline(name, lr=1e-3, weight_decay=1e-3, schedule_name="warmup_cosine")
    train(task, splits, candidate, seed=0, steps=STEPS, batch_size=BATCH, check=cuda.begin_step)
    waits = [wait for wait in cuda.waits if wait.step in (3, 9)]
    assert len(waits) == 2 * 6 * WAITS.get(name, 0)
