"""Tasks with their data on a device, ready to train candidates on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from optevo.errors import UserError
from optevo.optim.terms.genome import TermGenome
from optevo.spaces import Candidate
from optevo.study.config import StudyConfig
from optevo.tasks.base import SPLITS, Split, Task
from optevo.training.base import BaseBench, make_tasks
from optevo.training.precision import autocast
from optevo.training.run import Run
from optevo.training.single import train
from optevo.training.stacked import stacks, train_stacked


class Bench(BaseBench):
    """Tasks with their data on a device, ready to train candidates on.

    Args:
        config: The study.
        device: Where to train.
        data_root: Where data sets lie.
        tasks: The study's tasks, where they have been made. Default: None, make them.

    Raises:
        UserError: Data is missing or damaged, CUDA is asked for where there is none, or a task scores by
            itself.
    """

    def __init__(
        self, config: StudyConfig, device: str, data_root: Path, tasks: Sequence[Task] | None = None
    ) -> None:
        self.config = config
        self.device = resolve_device(device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # for users' code that names no number
        self.tasks: list[tuple[Task, dict[str, Split]]] = []
        for task in make_tasks(config) if tasks is None else tasks:
            if not isinstance(task, Task):
                raise UserError(f"task {task.name!r} scores candidates by itself; `make_bench` takes it")
            splits = _load(task, data_root)
            if config.evaluation.split != "test":
                splits.pop("test", None)  # nobody can look at what isn't there
            self.tasks.append((task, {name: split.to(self.device) for name, split in splits.items()}))

    def rehearse(self) -> dict[str, int]:
        """One forward pass of each task, so that what is wrong with one is found before a study begins.

        Returns:
            Floating-point operations of each task's forward pass, by name: what racing orders runs by. A
            count and no time, so that it is the same on every machine.

        Raises:
            UserError: A model cannot be built, or the batch size doesn't fit the data.
        """
        costs = {}
        for task, splits in self.tasks:
            model = task.model(torch.Generator().manual_seed(0)).to(self.device)
            generator = torch.Generator(self.device).manual_seed(0)
            batches = task.batches(splits["train"], self.config.evaluation.batch_size, generator)
            precise = autocast(self.device, self.config.evaluation.precision)
            with torch.no_grad(), precise, FlopCounterMode(display=False) as counter:
                task.loss(model, next(batches))
            costs[task.name] = counter.get_total_flops()
        return costs

    def run(self, candidate: Candidate, task: int, seed: int, **options: Any) -> Run:
        """Train `candidate` on one task with one seed, with the study's budget."""
        one, splits = self.tasks[task]
        return train(one, splits, candidate, seed=seed, **self._budget, **options)

    def run_together(
        self, candidates: Sequence[Candidate], task: int, seed: int, check: Callable[[], None]
    ) -> list[Run]:
        """The same for several: as one stacked model where the device and the model gain by it."""
        one, splits = self.tasks[task]
        genomes = [candidate for candidate in candidates if isinstance(candidate, TermGenome)]
        if len(genomes) == len(candidates) > 1 and self.stacks(task):
            return train_stacked(one, splits, genomes, seed=seed, check=check, **self._budget)
        return [self.run(candidate, task, seed, check=check) for candidate in candidates]

    @functools.cache  # noqa: B019  a worker has one bench
    def stacks(self, task: int) -> bool:
        """Whether candidates of a task train as one model on this device."""
        return stacks(self.tasks[task][0], self.device)

    @property
    def _budget(self) -> dict[str, Any]:
        evaluation = self.config.evaluation
        return evaluation.model_dump(include={"steps", "batch_size", "split", "precision"})


def resolve_device(name: str) -> torch.device:
    """`auto`, or a device's name.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name!r} was asked for, but torch sees no CUDA device; use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    return device


def worker_devices(name: str, workers: int | None) -> list[str]:
    """A device for each worker process: `auto` and `cuda` spread them over the GPUs, where there are any.

    Args:
        name: As in `resolve_device`.
        workers: Processes. None: one a core on a CPU, one a GPU.
    """
    device = resolve_device(name)
    if device.type == "cpu":
        cores = len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1
        return ["cpu"] * (workers or cores)
    chosen = [str(device)]
    if device.index is None:
        chosen = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [chosen[i % len(chosen)] for i in range(workers or len(chosen))]


def share_device(device: str, processes: int) -> None:
    """Limit this process to its part of a GPU's memory: one that asks for more fails, not the others."""
    if device != "cpu" and processes > 1:
        # A tenth is for the contexts.
        torch.cuda.set_per_process_memory_fraction(0.9 / processes, device)


def _load(task: Task, data_root: Path) -> dict[str, Split]:
    splits = task.load(data_root)
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"task {task.name!r}: load() returned no {missing[0]!r} split")
    return splits
