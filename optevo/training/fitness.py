"""The published fitness of a run and of a trial. Pure Python.

Source: *Evolving Deep Learning Optimizers*, its repository's definition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MAX_LOSS = 50.0  # a training loss above this, or not finite, is divergence
FINAL_STEPS = 50  # the training loss that counts is the mean over these last steps
DIVERGED = -1.0
LOSS_BONUS = 0.05


def fitness(metric: float | None, mean_loss: float | None) -> float:
    """metric + 0.05 · max(0, 1 − mean training loss of the last 50 steps), −1 for a diverged run."""
    if metric is None or mean_loss is None or not math.isfinite(metric + mean_loss):
        return DIVERGED
    return metric + LOSS_BONUS * max(0.0, 1.0 - mean_loss)


def combine(runs: Mapping[str, Sequence[float]]) -> float:
    """A trial's fitness: the mean over seeds within each task, then over tasks."""
    means = [sum(values) / len(values) for values in runs.values()]
    return sum(means) / len(means)


def tenths(steps: int) -> list[int]:
    """The steps after which a tenth of the run is over."""
    return sorted({round(steps * i / 10) for i in range(1, 11)} - {0})
