"""The rehearsal itself: what is planted is found, and what is free stays free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, DeviceMismatchError, FakeCuda, gradients
from fake_cuda_tasks import BATCH, STEPS, made
from torch import Tensor, nn

from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.terms.presets import PRESETS
from optevo.study.evaluation import RatesConfig
from optevo.tasks import Split, Task, get_task
from optevo.tasks.vision import Digits
from optevo.training.precision import PRECISIONS, autocast
from optevo.training.rates import train_with_rates
from optevo.training.single import train


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
    assert found == {"test_fake_cuda.test_a_planted_item_is_found.<locals>.<lambda>": 2}


def test_a_planted_copy_is_found(cuda: FakeCuda) -> None:
    assert rehearsed(cuda, Copied()) == {"test_fake_cuda.Copied.batches": 2}


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


def test_learning_rate_trials_wait_at_the_ends_of_epochs_alone(cuda: FakeCuda) -> None:
    task, splits = made(get_task("digits"))
    rates = RatesConfig(first=(0.1,), more=(), epochs=1, epoch_steps=5, full_epochs=2)
    rates = rates.model_copy(update={"first_threshold": -1.0, "threshold": -1.0})
    candidate = TunedBaseline("rmsprop", 1.0, 0.0)
    options = {"seed": 0, "steps": 20, "batch_size": BATCH, "check": cuda.begin_step}
    train_with_rates(task, splits, candidate, rates, **options)
    # A trial of five steps, then a run of twenty, whose losses are looked at each tenth too.
    looks = {5, *range(7, 26, 2)}
    assert {wait.step for wait in cuda.waits if wait.step > 1} <= looks
    assert {5, 15, 25} <= {wait.step for wait in cuda.waits}
