"""Training on a CUDA device that is not there: no two devices meet, and no step waits for the device."""

from __future__ import annotations

import copy
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, DeviceMismatchError, FakeCuda, gradients, rehearsing
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from optevo.optim import PRESETS
from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.optim.terms import kernels
from optevo.optim.terms import stacked as stacked_terms
from optevo.optim.terms.export import export_source
from optevo.spaces import TermSpace
from optevo.tasks import TASKS, Split, Task, get_task
from optevo.tasks.vision import Digits
from optevo.training.precision import PRECISIONS, autocast
from optevo.training.run import Run
from optevo.training.single import train
from optevo.training.stacked import stacks, train_stacked

#: Tenths of 12 steps end after all of them but the 3rd and the 9th: those two have no look.
STEPS, LOOKS, BATCH = 12, 10, 16
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    with rehearsing(monkeypatch) as device:
        yield device


def made(name: str | Task) -> tuple[Task, dict[str, Split]]:
    """A task with blank data of its shapes and dtypes on the device."""
    task = get_task(name) if isinstance(name, str) else name
    task.normalise = copy.copy(task.normalise)  # whose constants are kept for good
    if task.name == "char_lm":
        text = torch.zeros(64 * BATCH + 1, dtype=torch.uint8)
        split = Split(text[:-1].clone(), text[1:].clone())
    else:
        images = torch.zeros(4 * BATCH, *SHAPES[task.name], dtype=torch.uint8)
        split = Split(images, torch.zeros(4 * BATCH, dtype=torch.int64))
    return task, {part: split.to(CUDA) for part in ("train", "validation")}


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
    return Counter({score: runs, "single._curve": runs, "single.finish": runs})


def train_together(task: Task, splits: Any, candidates: Any, **options: Any) -> list[Run]:
    """`train_stacked` of term genomes."""
    rules = TermSpace().stack(candidates, options["steps"])
    return train_stacked(task, splits, rules, len(candidates), **options)


# --- runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TASKS)
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
    looks = Counter({"single.train": moved(task), "single._first_bad": LOOKS, "single._curve": len(points)})
    assert cuda.places() == looks + constants(task) + scoring(task)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "float32") for name in TASKS), ("cifar10", "bfloat16")]
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
    assert waits == {"single._first_bad": 2, "single._curve": 1}
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


# --- the rehearsal itself -----------------------------------------------------------------------------------


class Planted(Digits):
    """Digits whose loss does something more."""

    def __init__(self, fault: Callable[[Tensor, Tensor], Any]) -> None:
        self.fault = fault

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().loss(model, batch)
        self.fault(loss, batch[0])
        return loss


class Copied(Digits):
    """Digits whose batches come from the CPU."""

    def batches(self, split: Split, batch_size: int, generator: torch.Generator) -> Iterator[Any]:
        for inputs, targets in super().batches(split, batch_size, generator):
            yield inputs, torch.zeros(batch_size, dtype=torch.int64).to(targets.device)


def rehearsed(cuda: FakeCuda, task: Task) -> Counter[str]:
    """Where the two steps without a look wait."""
    task, splits = made(task)
    train(task, splits, PRESETS["sgd"], seed=0, steps=STEPS, batch_size=BATCH, check=cuda.begin_step)
    return Counter(wait.where for wait in cuda.waits if wait.step in (3, 9))


def test_a_planted_item_is_found(cuda: FakeCuda) -> None:
    found = rehearsed(cuda, Planted(lambda loss, inputs: loss.item()))
    assert found == {"test_cuda_rehearsal.test_a_planted_item_is_found.<locals>.<lambda>": 2}


def test_a_planted_copy_is_found(cuda: FakeCuda) -> None:
    assert rehearsed(cuda, Copied()) == {"test_cuda_rehearsal.Copied.batches": 2}


def test_a_planted_tensor_on_the_cpu_is_found(cuda: FakeCuda) -> None:
    with pytest.raises(DeviceMismatchError, match="is on the CPU"):
        rehearsed(cuda, Planted(lambda loss, inputs: inputs + torch.zeros(8)))


def test_a_planted_generator_on_the_cpu_is_found(cuda: FakeCuda) -> None:
    with pytest.raises(DeviceMismatchError, match="generator on cpu"):
        rehearsed(cuda, Planted(lambda loss, inputs: inputs.bernoulli_(0.5, generator=torch.Generator())))


def assign(x: Tensor, place: Any, value: Any) -> None:
    x[place] = value


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "int": lambda x: int(x[0]),
    "format": lambda x: f"{x[0]:.3f}",
    "tolist": lambda x: x.tolist(),
    "print": repr,
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "masked assignment": lambda x: assign(x, x > 0, torch.zeros(8, device=CUDA)),
    "number assigned": lambda x: assign(x, 0, 1.0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "to the CPU": lambda x: x.cpu(),
    "copied to the CPU": lambda x: torch.zeros(8).copy_(x),
    "from the CPU": lambda x: torch.zeros(8).to(x.device),
    "not pinned": lambda x: torch.zeros(8).to(x.device, non_blocking=True),
    "pinned, but blocking": lambda x: torch.zeros(8).pin_memory().to(x.device),
    "copied from the CPU": lambda x: x.copy_(torch.zeros(8)),
    "tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "list of places": lambda x: x[[0, 2]],
    "places on the CPU": lambda x: x[torch.tensor([0, 2])],
    "synchronize": lambda x: torch.cuda.synchronize(),
}
FREE: dict[str, Callable[[Tensor], Any]] = {
    "number": lambda x: x * 2 + 1,
    "number on the CPU": lambda x: x * torch.tensor(2.0),
    "shape": lambda x: len(x) + x.numel(),
    "slices": lambda x: x[1:5][::2],
    "places": lambda x: x[torch.arange(3, device=x.device)],
    "numbers assigned": lambda x: assign(x, slice(1, 3), 1.0),
    "masked_fill": lambda x: x.masked_fill_(x > 0, 0.0),
    "masked number": lambda x: torch.where(x > 0, x, 0.0),
    "pinned": lambda x: torch.zeros(8).pin_memory().to(x.device, non_blocking=True),
    "made pinned": lambda x: torch.tensor([1.0], pin_memory=True).to(x.device, non_blocking=True),
    "made there": lambda x: x.new_full((2,), 3.0),
    "drawn there": lambda x: torch.rand(8, generator=torch.Generator(CUDA), device=x.device),
}
MEETING: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x + torch.zeros(8),
    "places": lambda x: x.index_select(0, torch.tensor([0, 2])),
    "list": lambda x: torch.stack([x, torch.zeros(8)]),
    "foreach": lambda x: torch._foreach_add([x, x], [x, torch.zeros(8)]),
    "sum on the CPU": lambda x: torch.zeros(()).add_(x.sum()),
    "drawn": lambda x: torch.rand(8, generator=torch.Generator(), device=x.device),
}


def test_autocast_lowers_products_there(cuda: FakeCuda) -> None:
    x = torch.zeros(4, 4, device=CUDA)
    for precision in PRECISIONS:
        with autocast(CUDA, precision):
            assert str((x @ x).dtype) == f"torch.{precision}"


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_noted_once(cuda: FakeCuda, name: str) -> None:
    x = torch.zeros(8, device=CUDA)
    WAITING[name](x)
    assert len({wait.line for wait in cuda.waits}) == 1


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_not_noted(cuda: FakeCuda, name: str) -> None:
    FREE[name](torch.zeros(8, device=CUDA))
    assert cuda.waits == []


@pytest.mark.parametrize("name", MEETING)
def test_devices_that_meet_are_an_error(cuda: FakeCuda, name: str) -> None:
    with pytest.raises(DeviceMismatchError):
        MEETING[name](torch.zeros(8, device=CUDA))


@pytest.mark.parametrize("name", ["cifar10", "char_lm"])
def test_gradients_of_the_rehearsal_are_torchs(name: str) -> None:
    task = get_task(name)
    model = task.model(torch.Generator().manual_seed(0))
    if name == "char_lm":
        inputs = torch.arange(2 * 64).view(2, 64)
        batch = inputs, inputs + 1
    else:
        batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    loss = task.loss(model, batch)
    found = gradients([loss], [None])
    loss.backward()
    for p in model.parameters():
        torch.testing.assert_close(found[p], p.grad)
