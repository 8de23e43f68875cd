"""The published fitness of a run and of a trial. Pure Python.

Source: *Evolving Deep Learning Optimizers*, its repository's definition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MAX_LOSS = 50.0  # a training loss above this, or not finite, is divergence
FINAL_STEPS = 50  # the training loss that counts is the mean over these last steps
DIVERGED = (
    -1.0
)  # what stands for the fitness of a diverged run; no score, see `optevo.training.run.Run.earned`
LOSS_BONUS = 0.05
MAX_SCORE = 1e300  # sums of fewer scores than anybody trains are finite


def fitness(metric: float | None, mean_loss: float | None, *, bonus: bool = True) -> float:
    """metric + 0.05 · max(0, 1 − mean training loss of the last 50 steps), −1 for a diverged run.

    Args:
        metric: What the task's `score` returned.
        mean_loss: Of the last steps.
        bonus: Whether the loss has its part in it, see `optevo.tasks.base.Task`. Default: True.
    """
    if metric is None or mean_loss is None or not math.isfinite(metric + mean_loss):
        return DIVERGED
    return metric + LOSS_BONUS * max(0.0, 1.0 - mean_loss) if bonus else metric


def usable(score: float) -> bool:
    """Whether a score is one that fitness can be made of: finite, and within ±1e300."""
    return abs(score) <= MAX_SCORE  # NaN compares false


def combine(runs: Mapping[str, Sequence[float]]) -> float:
    """A trial's fitness: the mean over seeds within each task, then over tasks."""
    means = [sum(values) / len(values) for values in runs.values()]
    return sum(means) / len(means)


def tenths(steps: int) -> list[int]:
    """The steps after which a tenth of the run is over."""
    return sorted({round(steps * i / 10) for i in range(1, 11)} - {0})
