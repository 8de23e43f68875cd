"""Networks and genomes that train as one stack, and each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_tasks import Blobs, Distances
from strategies import genome
from torch import nn

from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.presets import PRESETS
from optevo.spaces import TermSpace
from optevo.tasks import Dropout, Task, get_task
from optevo.tasks.layers import Flatten
from optevo.training.run import Run
from optevo.training.single import train
from optevo.training.stacked import train_stacked

STEPS = 20
#: Schedules, clipping, corrected and uncorrected moments, one or none of them, decay, and none of it.
MIXED = [
    PRESETS["adam"],
    genome("GRAD", lr=1e-1, weight_decay=1e-2),
    genome("SIGN_GRAD", lr=1e-4, use_momentum=False, use_second_moment=False),
    genome("MOMENTUM", lr=5e-2, cosine_decay=True, warmup=True, warmup_steps=5),
    genome("RMS_NORM", lr=1e-3, use_momentum=False, beta2=0.9, bias_correction=True, eps=1e-4),
    genome("MOMENTUM", "UNIT_GRAD", lr=2e-4, eps=1e-4, gradient_clipping=True, clip_value=0.01),
    genome("NESTEROV", "RMS_NORM", alphas=(0.5, 0.1), lr=1e-3, eps=1e-4, warmup=True, warmup_steps=30),
    genome("ADAM_TERM", "GRAD", lr=1e-3, weight_decay=1e-3, cosine_decay=True, bias_correction=True),
]


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(Dropout(0.25), Flatten(), nn.Linear(36, 8), nn.ReLU(inplace=True), Dropout(0.3), nn.Linear(8, 4)),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, 4))


def relus() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4))


TASKS = {
    "dense": lambda: get_task("digits"),
    "dense with another activation": lambda: Blobs(mlp),
    "convolutions": lambda: Blobs(cnn),
    "own loss": lambda: Distances(mlp),
    "own loss with convolutions": lambda: Distances(cnn),
}


def together(task: Task, candidates: list[TermGenome], **options: Any) -> list[Run]:
    options = {"seed": 3, "steps": STEPS, "batch_size": 32, **options}
    rules = TermSpace().stack(candidates, options["steps"])
    return train_stacked(task, task.load(Path()), rules, len(candidates), **options)


def alone(task: Task, candidates: list[TermGenome], **options: Any) -> list[Run]:
    options = {"seed": 3, "steps": STEPS, "batch_size": 32, **options}
    return [train(task, task.load(Path()), candidate, **options) for candidate in candidates]


def check(task: Task, stack: list[Run], single: list[Run], tolerance: float = 2e-3) -> None:
    n = len(task.load(Path())["validation"])
    for run, other in zip(stack, single, strict=True):
        assert (run.task, run.seed, run.steps) == (other.task, other.seed, other.steps)
        assert run.diverged_at is other.diverged_at is None
        assert run.losses == pytest.approx(other.losses, rel=tolerance, abs=tolerance)
        assert run.loss == pytest.approx(other.loss, rel=tolerance, abs=tolerance)
        assert abs(run.metric - other.metric) <= 2.01 / n  # a close call may go either way
        assert abs(run.fitness - other.fitness) <= 2.1 / n
