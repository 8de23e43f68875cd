"""One trial: a candidate trained on every task with every seed."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil
import torch

from optevo import keys
from optevo.config import StudyConfig, TaskConfig
from optevo.errors import UserError
from optevo.evaluation.fitness import DIVERGED, combine
from optevo.evaluation.training import Run, train
from optevo.spaces import Candidate, Space
from optevo.tasks import get_task
from optevo.tasks.base import SPLITS, Split, Task

CURVE_POINTS = 10  # intermediate values a trial; a dashboard page of 2,500 trials with more is slow
_TRACEBACK_CHARS = 8000


class Interrupted(Exception):
    """The worker was asked to stop; the trial's slot is to be evaluated again."""


class Bench:
    """Tasks with their data on a device, ready to train candidates on.

    Args:
        config: The study.
        device: Where to train.
        data_root: Where data sets lie.

    Raises:
        UserError: Data is missing or damaged, or CUDA is asked for where there is none.
    """

    def __init__(self, config: StudyConfig, device: str, data_root: Path) -> None:
        self.config = config
        self.device = resolve_device(device)
        self.tasks: list[tuple[Task, dict[str, Split]]] = []
        for task_config in config.evaluation.tasks:
            task = get_task(task_config.name, **task_config.options)
            splits = _load(task, task_config, data_root)
            if config.evaluation.split != "test":
                splits.pop("test", None)  # nobody can look at what isn't there
            if any(task.name == other.name for other, _ in self.tasks):
                raise UserError(f"evaluation.tasks: two tasks have the name {task.name!r}")
            self.tasks.append((task, {name: split.to(self.device) for name, split in splits.items()}))

    def rehearse(self) -> None:
        """One forward pass of each task, so that what is wrong with one is found before a study begins.

        Raises:
            UserError: A model cannot be built, or the batch size doesn't fit the data.
        """
        for task, splits in self.tasks:
            generator = torch.Generator().manual_seed(0)
            model = task.model(generator).to(self.device)
            batches = task.batches(
                splits["train"],
                self.config.evaluation.batch_size,
                torch.Generator(self.device).manual_seed(0),
            )
            with torch.no_grad():
                task.loss(model, next(batches))

    def run(self, candidate: Candidate, task: int, seed: int, **options: Any) -> Run:
        """Train `candidate` on one task with one seed, with the study's budget."""
        evaluation = self.config.evaluation
        one, splits = self.tasks[task]
        return train(
            one,
            splits,
            candidate,
            seed=seed,
            steps=evaluation.steps,
            batch_size=evaluation.batch_size,
            split=evaluation.split,
            **options,
        )


class Objective:
    """Callable on an Optuna trial: suggests a candidate, trains it, records everything, returns its fitness.

    A diverged run ends the trial at once: it is pruned and counts −1. Any other exception fails the trial,
    with the traceback in its attributes.

    Args:
        bench: What to train on.
        space: Where candidates come from.
        check: Called every training step; raise `Interrupted` from it to give the trial up.
    """

    def __init__(self, bench: Bench, space: Space, check: Callable[[], None] = lambda: None) -> None:
        self.bench, self.space, self.check = bench, space, check

    def __call__(self, trial: optuna.Trial) -> float:
        try:
            return self._evaluate(trial)
        except optuna.TrialPruned:
            raise
        except (Interrupted, UserError):  # not the genome's fault
            trial.set_user_attr(keys.INTERRUPTED, True)
            raise
        except SystemExit as error:  # from a user's task: it ends the trial, not the search
            trial.set_user_attr(keys.ERROR, traceback.format_exc()[-_TRACEBACK_CHARS:])
            raise RuntimeError(f"the task called sys.exit({error})") from error
        except Exception:
            trial.set_user_attr(keys.ERROR, traceback.format_exc()[-_TRACEBACK_CHARS:])
            raise

    def _evaluate(self, trial: optuna.Trial) -> float:
        start = time.perf_counter()
        candidate = self.space.candidate(self.space.suggest(trial))
        trial.set_user_attr(keys.FORMULA, candidate.formula())
        trial.set_user_attr(keys.HYPERPARAMETERS, candidate.describe())
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        seeds, steps = self.bench.config.evaluation.seeds, self.bench.config.evaluation.steps
        total = len(self.bench.tasks) * len(seeds)
        curve = _Curve(trial, total, steps)
        runs: list[Run] = []
        for task in range(len(self.bench.tasks)):
            for seed in seeds:
                run = self.bench.run(candidate, task, seed, on_point=curve.within, check=self.check)
                runs.append(run)
                if run.diverged_at is not None:
                    self._record(trial, runs, start)
                    trial.set_user_attr(keys.DIVERGED_AT, (len(runs) - 1) * steps + run.diverged_at)
                    trial.set_user_attr(
                        keys.PRUNED_BY, f"diverged: {run.task}, seed {run.seed}, step {run.diverged_at}"
                    )
                    trial.report(DIVERGED, step=total * steps)
                    raise optuna.TrialPruned(f"diverged at step {run.diverged_at} of {run.task}")
                curve.after(run)
        self._record(trial, runs, start)
        value = total_fitness(runs)
        trial.report(value, step=total * steps)
        return value

    def _record(self, trial: optuna.Trial, runs: Sequence[Run], start: float) -> None:
        trial.set_user_attr(keys.RUNS, [dataclasses.asdict(run) for run in runs])
        for task, values in by_task(runs).items():
            trial.set_user_attr(keys.FITNESS_PREFIX + task, sum(values) / len(values))
        trial.set_user_attr(keys.SECONDS, time.perf_counter() - start)


class _Curve:
    """Reports at most ten points a trial, on one step axis that is the same for all trials.

    Within a run a point is exp(−training loss), the likelihood of the right answer, averaged with the fitness
    of the runs already done; it costs nothing and lies on fitness's scale. The last point is the fitness.
    """

    def __init__(self, trial: optuna.Trial, total: int, steps: int) -> None:
        self.trial, self.total, self.steps = trial, total, steps
        self.done: list[float] = []
        self.reported = 0

    def within(self, step: int, loss: float) -> None:
        self._report(len(self.done) * self.steps + step, [*self.done, math.exp(min(0.0, -loss))])

    def after(self, run: Run) -> None:
        self.done.append(run.fitness)
        self._report(len(self.done) * self.steps, self.done)

    def _report(self, step: int, values: Sequence[float]) -> None:
        passed = step * CURVE_POINTS // (self.total * self.steps)
        if self.reported < passed < CURVE_POINTS:
            self.reported = passed
            self.trial.report(sum(values) / len(values), step=step)


def by_task(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Fitness of each run by task, in order."""
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.task, []).append(run.fitness)
    return values


def total_fitness(runs: Sequence[Run]) -> float:
    """Mean over seeds, then tasks; −1 where any run diverged."""
    if any(run.diverged_at is not None for run in runs):
        return DIVERGED
    return combine(by_task(runs))


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


def default_workers(device: torch.device) -> int:
    """One worker a core on a CPU, one on a GPU."""
    if device.type == "cuda":
        return 1
    return len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1


def _load(task: Task, config: TaskConfig, data_root: Path) -> dict[str, Split]:
    splits = task.load(data_root)
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"task {config.name!r}: load() returned no {missing[0]!r} split")
    return splits
