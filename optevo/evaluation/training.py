"""One run: a task trained with one candidate under one seed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optevo.evaluation.fitness import FINAL_STEPS, MAX_LOSS, fitness

if TYPE_CHECKING:
    from optevo.spaces.base import Candidate
    from optevo.tasks.base import Split, Task

# Steps between looks at the losses. A look waits for the device; the verdict is that of looking every step.
LOOK_EVERY = 25
# What a step may raise that says the numbers, not the program, went wrong.
_NUMERICAL = (FloatingPointError, OverflowError, ZeroDivisionError, torch.linalg.LinAlgError)


@dataclass(frozen=True)
class Run:
    """One task with one seed.

    Attributes:
        task: The task's name.
        seed: Decides the initial weights, batch order, augmentation and dropout.
        fitness: See `optevo.evaluation.fitness`; −1 for a diverged run.
        metric: What the task's `score` returned; None for a diverged run.
        loss: Mean training loss of the last 50 steps; None for a diverged run.
        losses: Mean training loss over each tenth of the run, None where it is not finite.
        steps: Training steps taken.
        seconds: Wall-clock time, scoring included.
        diverged_at: The first step, from 0, whose loss was not finite or above 50; the number of steps where
            only the score was not finite.
    """

    task: str
    seed: int
    fitness: float
    metric: float | None
    loss: float | None
    losses: tuple[float | None, ...]
    steps: int
    seconds: float
    diverged_at: int | None


def train(
    task: Task,
    splits: dict[str, Split],
    candidate: Candidate,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    split: str = "validation",
    on_point: Callable[[int, float], None] = lambda step, loss: None,
    check: Callable[[], None] = lambda: None,
) -> Run:
    """Train a fresh model and score it.

    Args:
        task: What to train.
        splits: Its data, all on the device to train on.
        candidate: Builds the optimizer and the scheduler.
        seed: Of the run; equal seeds give equal runs on one kind of machine.
        steps: Mini-batches.
        batch_size: Examples a mini-batch. Default: 128.
        split: Which part is scored. Default: "validation".
        on_point: Called with (steps taken, mean training loss of the tenth) at every tenth but the last.
        check: Called every step; what it raises ends the run.

    Returns:
        The run. A diverged one ends at the next look and is not scored.
    """
    start = time.perf_counter()
    device = splits["train"].device
    with _isolated(task.name, seed, device):
        model = task.model(_generator(torch.device("cpu"), task.name, seed, "model")).to(device)
        model.train()
        optimizer, scheduler = candidate.build(model.parameters(), steps)
        batches = task.batches(splits["train"], batch_size, _generator(device, task.name, seed, "batches"))
        losses = torch.zeros(steps, device=device)
        marks = sorted({round(steps * i / 10) for i in range(1, 11)} - {0})
        looked, diverged_at, taken = 0, None, 0
        for taken in range(1, steps + 1):
            check()
            try:
                optimizer.zero_grad(set_to_none=True)
                loss = task.loss(model, next(batches))
                losses[taken - 1] = loss.detach()
                loss.backward()
                optimizer.step()
                scheduler.step()
            except Exception as error:
                # The loss may have gone bad earlier, unlooked at; then that is what happened.
                diverged_at = _first_bad(losses, looked, taken)
                if diverged_at is None and isinstance(error, _NUMERICAL):
                    diverged_at = taken - 1
                if diverged_at is None:
                    raise
            if diverged_at is None and (taken in marks or taken % LOOK_EVERY == 0):
                diverged_at, looked = _first_bad(losses, looked, taken), taken
            if diverged_at is not None:
                break
            if taken in marks and taken < steps:
                on_point(taken, _curve(losses, marks[: marks.index(taken) + 1])[-1])
        curve = _curve(losses, [m for m in marks if m <= taken])
        metric = mean_loss = None
        if diverged_at is None:
            metric = task.score(model, splits[split])
            mean_loss = float(losses[-FINAL_STEPS:].mean())
            if not math.isfinite(metric):  # the last step did it, after the last loss
                diverged_at, metric, mean_loss = steps, None, None
    return Run(
        task=task.name,
        seed=seed,
        fitness=fitness(metric, mean_loss),
        metric=metric,
        loss=mean_loss,
        losses=tuple(loss if math.isfinite(loss) else None for loss in curve),
        steps=taken,
        seconds=time.perf_counter() - start,
        diverged_at=diverged_at,
    )


def _first_bad(losses: Tensor, start: int, end: int) -> int | None:
    bad = ~(losses[start:end] <= MAX_LOSS)  # NaN compares false
    bad |= torch.isinf(losses[start:end])
    where = bad.nonzero()
    return start + int(where[0]) if len(where) else None


def _curve(losses: Tensor, marks: list[int]) -> list[float]:
    values = losses[: marks[-1]].tolist() if marks else []
    return [sum(values[a:b]) / (b - a) for a, b in zip([0, *marks], marks, strict=False)]


def _generator(device: torch.device, task: str, seed: int, purpose: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(task, seed, purpose))


def _seed(task: str, seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{task}\n{seed}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def _isolated(task: str, seed: int, device: torch.device) -> Iterator[None]:
    """Our own tasks read no global generator; a user's that does finds it seeded, and leaves no trace."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.random.default_generator.manual_seed(_seed(task, seed, "global"))
        if devices:
            torch.cuda.manual_seed(_seed(task, seed, "global"))
        yield
