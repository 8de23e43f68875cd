"""One run: a task trained with one candidate under one seed."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.tasks.faults import users_number
from optevo.training.fitness import FINAL_STEPS, MAX_LOSS, fitness, tenths, usable
from optevo.training.precision import PRECISIONS, autocast
from optevo.training.run import Run

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from optevo.optim.candidate import Candidate
    from optevo.tasks.base import Split, Task

# Steps between looks at the losses. A look waits for the device; the verdict is that of looking every step.
LOOK_EVERY = 25
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# What a step may raise that says the numbers, not the program, went wrong.
NUMERICAL = (FloatingPointError, OverflowError, ZeroDivisionError, torch.linalg.LinAlgError)


def train(
    task: Task,
    splits: dict[str, Split],
    candidate: Candidate,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    split: str = "validation",
    precision: str = "float32",
    on_point: Callable[[int, float], bool | None] = lambda step, loss: None,
    check: Callable[[], None] = lambda: None,
) -> Run:
    """Train a fresh model and score it.

    The first run on a CPU tells the C library, where it is glibc, to keep the memory that the process frees:
    fetched anew from the system at every step, it took a third of SmallCNN's time.

    Args:
        task: What to train.
        splits: Its data, all on the device to train on.
        candidate: Builds the optimizer and the scheduler.
        seed: Of the run; equal seeds give equal runs on one kind of machine.
        steps: Mini-batches.
        batch_size: Examples a mini-batch. Default: 128.
        split: Which part is scored. Default: "validation".
        precision: Of forward pass and loss, in training and in scoring: "float32", or "bfloat16" for torch's
            autocast. Parameters, their gradients, optimizer state and recorded losses are float32 either
            way. Default: "float32".
        on_point: Called with (steps taken, mean training loss of the tenth) at every tenth but the last.
            Where it returns True, the run ends there, without a score.
        check: Called every step; what it raises ends the run.

    Returns:
        The run. A diverged one ends at the next look and is not scored.

    Raises:
        ValueError: No such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    start = time.perf_counter()
    device = splits["train"].device
    marks = tenths(steps)

    def on_mark(fit: Fit) -> bool:
        return fit.taken < steps and bool(
            on_point(fit.taken, mean_losses(fit.losses, marks[: marks.index(fit.taken) + 1])[-1])
        )

    with isolated(task.name, seed, device):
        fit = fitted(
            task,
            splits["train"],
            candidate,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            precision=precision,
            marks=marks,
            on_mark=on_mark,
            check=check,
        )
        with scored_weights(fit.optimizer):
            run = finish(
                task=task,
                model=fit.model,
                split=splits[split],
                losses=fit.losses,
                seed=seed,
                taken=fit.taken,
                diverged_at=fit.diverged_at,
                precision=precision,
            )
    return dataclasses.replace(run, seconds=time.perf_counter() - start)


@dataclasses.dataclass
class Fit:
    """A model in training.

    Attributes:
        model: On the data's device.
        optimizer: Its optimizer; whoever scores the model does so under `scored_weights`.
        losses: Of every step that the run was to have, float32 of shape (steps,); 0 where none was taken.
        taken: Steps taken.
        diverged_at: As in `Run`.
    """

    model: nn.Module
    optimizer: Optimizer
    losses: Tensor
    taken: int = 0
    diverged_at: int | None = None


def fitted(
    task: Task,
    split: Split,
    candidate: Candidate,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    precision: str,
    marks: Sequence[int],
    on_mark: Callable[[Fit], bool],
    check: Callable[[], None],
    last: int | None = None,
    loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor] | None = None,
) -> Fit:
    """Train a fresh model; the caller isolates and scores it.

    Args:
        task: What to train.
        split: On which examples.
        candidate: Builds the optimizer and the scheduler.
        seed: Of the run.
        steps: Mini-batches that the schedule is for.
        batch_size: Examples a mini-batch.
        precision: As in `train`.
        marks: Steps after which the losses are looked at and `on_mark` is called, unless one is bad.
        on_mark: Whether the training ends here.
        check: Called every step; what it raises ends the run.
        last: The step after which the training ends in any case. Default: None, the schedule's last.
        loss: Stands in for the task's. Default: None.

    Returns:
        The model as it is after the last step, without gradients, and what is known of the run.
    """
    device, of_batch = split.device, loss or task.loss
    if device.type == "cpu":
        _keep_freed_memory()
    model = task.model(generator_for(torch.device("cpu"), task.name, seed, "model")).to(device)
    _channels_last(model)
    model.train()
    optimizer, scheduler = candidate.build(parameters(task, model, candidate), steps)
    batches = task.batches(split, batch_size, generator_for(device, task.name, seed, "batches"))
    fit, looked = Fit(model, optimizer, torch.zeros(steps, device=device)), 0
    graph_every = getattr(optimizer, "graph_every", 0)
    for taken in range(1, (last or steps) + 1):
        fit.taken = taken
        check()
        try:
            optimizer.zero_grad(set_to_none=True)
            batch = next(batches)
            with autocast(device, precision):
                value = of_batch(model, batch)
            fit.losses[taken - 1] = value.detach()
            backward(value, with_graph=graph_every > 0 and (taken - 1) % graph_every == 0)
            optimizer.step()
            scheduler.step()
        except Exception as error:
            # The loss may have gone bad earlier, unlooked at; then that is what happened.
            fit.diverged_at = _first_bad(fit.losses, looked, taken, loss_limit(task))
            if fit.diverged_at is None and isinstance(error, NUMERICAL):
                fit.diverged_at = taken - 1
            if fit.diverged_at is None:
                raise
        if fit.diverged_at is None and (taken in marks or taken % LOOK_EVERY == 0):
            fit.diverged_at, looked = _first_bad(fit.losses, looked, taken, loss_limit(task)), taken
        if fit.diverged_at is not None or (taken in marks and on_mark(fit)):
            break
    optimizer.zero_grad(set_to_none=True)
    return fit


def parameters(task: Task, model: nn.Module, candidate: Candidate) -> Iterable[Any]:
    """A model's parameters; for candidates that treat kinds differently, in groups where the task says kinds.

    Groups hold neighbours, so that the order of the parameters stays.

    Raises:
        UserError: The task says the kind of a parameter that there isn't.
    """
    said = task.kinds(model) if candidate.by_kind else {}
    if not said:
        return model.parameters()
    named = dict(model.named_parameters())
    if unknown := [name for name in said if name not in named]:
        expected = f"expected one of {', '.join([*named][:5])}{', …' * (len(named) > 5)}"
        raise UserError(f"task {task.name!r}: kinds() names {unknown[0]!r}, {expected}")
    return [
        {"params": [named[name] for name in names], "kind": kind}
        for kind, names in itertools.groupby(named, said.get)
    ]


@contextlib.contextmanager
def scored_weights(optimizer: Optimizer) -> Iterator[None]:
    """The weights to score a model with, where its optimizer trains others; afterwards the others again.

    Such an optimizer says so by two methods, as schedule-free ones have them: `eval`, which gives the model
    the weights to score, and `train`, which gives it back those to train.
    """
    to_score, to_train = getattr(optimizer, "eval", None), getattr(optimizer, "train", None)
    if not (callable(to_score) and callable(to_train)):
        yield
        return
    to_score()
    try:
        yield
    finally:
        to_train()


def finish(
    *,
    task: Task,
    model: nn.Module,
    split: Split,
    losses: Tensor,
    seed: int,
    taken: int,
    diverged_at: int | None,
    precision: str = "float32",
) -> Run:
    """Score a model, unless its run diverged or was ended, and say how that went; the caller has the time.

    Args:
        task: What it was trained on.
        model: On the split's device.
        split: What it is scored on.
        losses: Of every step that the run was to have, float32 of shape (steps,).
        seed: Of the run.
        taken: Steps taken.
        diverged_at: As in `Run`.
        precision: As in `train`. Default: "float32".

    Raises:
        UserError: The task's score is no number.
    """
    metric = mean_loss = None
    if diverged_at is None and taken == len(losses):
        with autocast(split.device, precision):
            metric = users_number(f"task {task.name!r}: score()", task.score(model, split))
        mean_loss = float(losses[-FINAL_STEPS:].mean())
        if not usable(metric):  # the last step did it, after the last loss
            diverged_at, metric, mean_loss = len(losses), None, None
    return Run(
        task=task.name,
        seed=seed,
        fitness=fitness(metric, mean_loss, bonus=task.has_bonus),
        metric=metric,
        loss=mean_loss,
        losses=tenth_losses(losses, taken),
        steps=taken,
        seconds=0.0,
        diverged_at=diverged_at,
    )


def backward(loss: Tensor, *, with_graph: bool) -> None:
    """Gradients of `loss`; `with_graph` for an optimizer that differentiates them again, as Sophia does."""
    if not with_graph:
        loss.backward()
        return
    with warnings.catch_warnings():
        # Parameter and gradient now refer to one another; the next step's zero_grad parts them.
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
        loss.backward(create_graph=True)


def _channels_last(model: nn.Module) -> None:
    """Convolutions' weights in the layout of the images.

    One-channel images don't say which layout they are in. Where the weights don't either, all activations
    come out the other way round, and a step of SmallCNN takes 70 ms instead of 44.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc serve tensors from its heap, and not give the heap's end back.

    It otherwise returns activations to the system as they are freed, and each step pays for zeroed pages
    again: 8,000 page faults, 69 instead of 50 ms a step of SmallCNN. The peak is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        # Old versions refuse more than 32 MiB, enough for a batch of 128.
        if not mallopt(_M_MMAP_THRESHOLD, 2**30):
            mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def loss_limit(task: Task) -> float:
    """The highest training loss of a task that is no divergence: published, where it has none of its own."""
    if task.max_loss is not None:
        return task.max_loss
    return math.inf if task.other_loss else MAX_LOSS


def not_fine(losses: Tensor, most: float) -> Tensor:
    """Which losses mean divergence: those not finite or above `most`, see `loss_limit`."""
    return ~(losses <= most) | torch.isinf(losses)  # NaN compares false


def _first_bad(losses: Tensor, start: int, end: int, most: float) -> int | None:
    where = not_fine(losses[start:end], most).nonzero()
    return start + int(where[0]) if len(where) else None


def tenth_losses(losses: Tensor, taken: int) -> tuple[float | None, ...]:
    """The mean over each tenth of a run up to step `taken`, as in `Run`; losses are those of `Fit`."""
    means = mean_losses(losses, [mark for mark in tenths(len(losses)) if mark <= taken])
    return tuple(mean if math.isfinite(mean) else None for mean in means)


def mean_losses(losses: Tensor, marks: Sequence[int]) -> list[float]:
    """The mean loss up to the first mark, and from each to the next."""
    values = losses[: marks[-1]].tolist() if marks else []
    return [sum(values[a:b]) / (b - a) for a, b in zip([0, *marks], marks, strict=False)]


def generator_for(device: torch.device, task: str, seed: int, purpose: str) -> torch.Generator:
    """A run's generator for one purpose, such as "model" or "batches"."""
    return torch.Generator(device).manual_seed(_seed(task, seed, purpose))


def _seed(task: str, seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{task}\n{seed}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextlib.contextmanager
def isolated(task: str, seed: int, device: torch.device) -> Iterator[None]:
    """Our own tasks read no global generator; a user's that does finds it seeded, and leaves no trace."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.random.default_generator.manual_seed(_seed(task, seed, "global"))
        if devices:
            torch.cuda.manual_seed(_seed(task, seed, "global"))
        yield
