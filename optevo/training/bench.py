"""Tasks with their data on a device, ready to train candidates on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from optevo.errors import UserError
from optevo.tasks.base import SPLITS, Split, Task
from optevo.tasks.faults import users_code
from optevo.training.base import BaseBench, OnPoint, Operations, Stack, make_tasks
from optevo.training.devices import resolve_device
from optevo.training.fitness import tenths
from optevo.training.operations import operations_a_step
from optevo.training.rates import train_with_rates
from optevo.training.rehearsal import rehearse
from optevo.training.run import Run
from optevo.training.single import train
from optevo.training.stacked import stacks, train_stacked

if TYPE_CHECKING:
    from optevo.optim.candidate import Candidate
    from optevo.study.config import StudyConfig


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
        self._counted: dict[tuple[str, str, int], Operations] = {}
        for task in make_tasks(config) if tasks is None else tasks:
            if not isinstance(task, Task):
                raise UserError(f"task {task.name!r} scores candidates by itself; `make_bench` takes it")
            splits = load_splits(task, data_root)
            if config.evaluation.split != "test":
                splits.pop("test", None)  # nobody can look at what isn't there
            self.tasks.append((task, moved(task, splits, self.device)))

    def rehearse(self) -> dict[str, int]:
        """One forward pass of each task, so that what is wrong with one is found before a study begins.

        Returns:
            Floating-point operations of each task's forward pass, by name: what racing orders runs by. A
            count and no time, so that it is the same on every machine.

        Raises:
            UserError: The batch size doesn't fit the data, or a user's task has a fault.
        """
        budget = self.config.evaluation.model_dump(include={"batch_size", "split", "precision"})
        return {task.name: rehearse(task, splits, **budget) for task, splits in self.tasks}

    def run(self, candidate: Candidate, task: int, seed: int, **options: Any) -> Run:
        """Train `candidate` on one task with one seed, with the study's budget."""
        (one, splits), rates = self.tasks[task], self.config.evaluation.rates
        if rates is not None:
            return train_with_rates(one, splits, candidate, rates, seed=seed, **self._budget, **options)
        budget = self._budget
        if self.config.evaluation.budget == "flops":
            budget["steps"] = self.operations(candidate, task).steps_for(self._budget["steps"])
            if (on_point := options.get("on_point")) is not None:
                options["on_point"] = _on_axis(on_point, budget["steps"], self._budget["steps"])
        return train(one, splits, candidate, seed=seed, **budget, **options)

    def operations(self, candidate: Candidate, task: int) -> Operations:
        """What a training step costs, counted once for each canonical form."""
        (one, splits), batch_size = self.tasks[task], self.config.evaluation.batch_size
        if self.config.evaluation.rates is not None:  # it has no rate yet; any costs the same
            candidate = candidate.at_rate(1e-3)
        key = candidate.canonical(), one.name, batch_size
        if key not in self._counted:
            self._counted[key] = operations_a_step(one, candidate, batch_size, splits["train"])
        return self._counted[key]

    def run_together(
        self,
        candidates: Sequence[Candidate],
        task: int,
        seed: int,
        check: Callable[[], None],
        stack: Stack = lambda candidates, steps: None,
        *,
        on_points: Sequence[OnPoint] = (),
    ) -> list[Run]:
        """The same for several: as one stacked model where the device and the model gain by it."""
        if len(candidates) > 1 and self.stacks(task):
            rules = stack(candidates, self.config.evaluation.steps)
            if rules is not None:
                one, splits = self.tasks[task]
                options: dict[str, Any] = {"seed": seed, "on_points": on_points, "check": check}
                return train_stacked(one, splits, rules, len(candidates), **options, **self._budget)
        each = [{"on_point": on_point} for on_point in on_points] or [{}] * len(candidates)
        return [
            self.run(candidate, task, seed, check=check, **options)
            for candidate, options in zip(candidates, each, strict=True)
        ]

    @functools.cache  # noqa: B019  a worker has one bench
    def stacks(self, task: int) -> bool:
        """Whether candidates of a task train as one model on this device."""
        return stacks(self.tasks[task][0], self.device)

    @property
    def _budget(self) -> dict[str, Any]:
        evaluation = self.config.evaluation
        return evaluation.model_dump(include={"steps", "batch_size", "split", "precision"})


def _on_axis(on_point: Callable[[int, float], Any], own: int, steps: int) -> Callable[[int, float], Any]:
    """Tell of a run of `own` steps as of one of `steps`, so that all runs have one axis.

    The end of a tenth becomes the end of that tenth, where there are as many.
    """
    ends = dict(zip(tenths(own), tenths(steps), strict=False)) if own >= 10 <= steps else {}
    return lambda step, loss: on_point(ends.get(step, round(step * steps / own)), loss)


def load_splits(task: Task, data_root: Path) -> dict[str, Split]:
    with users_code(f"task {task.name!r}: load()", task):
        splits = task.load(data_root)
        if not isinstance(splits, Mapping):
            raise UserError(f"it returned a {type(splits).__name__}, not a dictionary of splits")
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"task {task.name!r}: load() returned no {missing[0]!r} split")
    return dict(splits)


def moved(task: Task, splits: Mapping[str, Split], device: torch.device) -> dict[str, Split]:
    there = {}
    for name, split in splits.items():
        if isinstance(split, torch.Tensor) or not hasattr(split, "targets"):
            said = f"load() returned a {type(split).__name__} for split {name!r}, not an optevo.tasks.Split"
            raise UserError(f"task {task.name!r}: {said}")
        there[name] = split.to(device)
    return there
