"""One run's outcome, as it is stored, whatever made it; and what several are worth. Pure Python."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optevo.training.fitness import combine


@dataclass(frozen=True)
class Run:
    """One task with one seed.

    Attributes:
        task: The task's name.
        seed: Decides the initial weights, batch order, augmentation and dropout.
        fitness: See `optevo.training.fitness`; −1 for a diverged run, where it is no score: see `earned`.
        metric: What the task's `score` returned; None for a diverged run and an unfinished one.
        loss: Mean training loss of the last 50 steps; None for such a run and where the task scores by
            itself.
        losses: Mean training loss over each tenth of the run, None where it is not finite; empty where the
            task scores by itself.
        steps: Training steps taken, those of learning-rate trials included.
        seconds: Wall-clock time, scoring included.
        diverged_at: The first step, from 0, whose loss was not finite or above what the task allows (50 by
            default); the number of steps where only the score was not finite, or where `failure` says why.
        lr: The learning rate that its trials chose, see `optevo.training.rates`. Default: None, the
            candidate's own.
        failure: Why it came to no score, where that is not its loss or score. Default: None.
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
    lr: float | None = None
    failure: str | None = None

    @property
    def earned(self) -> float:
        """What the run is worth: its fitness, on whatever scale; −∞ where it diverged."""
        return -math.inf if self.diverged else self.fitness

    @property
    def diverged(self) -> bool:
        """Whether it came to no score."""
        return self.diverged_at is not None or self.metric is None

    @property
    def unfinished(self) -> bool:
        """Whether it was ended before its last step, though nothing was wrong with it."""
        return self.metric is None and self.diverged_at is None and self.failure is None


def _unset_left_out(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value is not None or key not in ("lr", "failure")}


def as_stored(one: Any) -> dict[str, Any]:
    """A run, or a dataclass that holds some, as a table; runs without a rate are stored as ever."""
    return dataclasses.asdict(one, dict_factory=_unset_left_out)


def read_run(stored: Mapping[str, Any]) -> Run:
    """A run as `as_stored` wrote it."""
    return Run(**{**stored, "losses": tuple(stored["losses"])})


def found_rate(runs: Iterable[Run]) -> float | None:
    """The learning rate that most of the runs found, the first of equals; None where none looked for one."""
    counts = Counter(run.lr for run in runs if run.lr is not None)
    return max(counts, key=counts.__getitem__, default=None)


def by_task(runs: Sequence[Run]) -> dict[str, list[float]]:
    """What each run has earned by task, in order."""
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.task, []).append(run.earned)
    return values


def total_fitness(runs: Sequence[Run]) -> float:
    """Mean over seeds, then tasks; −∞ where any run diverged."""
    return combine(by_task(runs))
