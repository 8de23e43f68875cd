"""Tasks of tensors made on the spot, whose losses do what a test wants."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.tasks import Split, Task, build
from optevo.tasks.base import evaluating


class Scripted(Task):
    """A task whose loss at each step is given; `raises` maps a step to what happens there instead."""

    name = "scripted"

    def __init__(self, losses: Any, raises: dict[int, Exception] | None = None, score: float = 0.5) -> None:
        self.losses, self.raises, self.value = losses, raises or {}, score
        self.calls = 0
        self.scored: list[Split] = []

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.arange(24.0).view(24, 1)
        return {name: Split(x + i, torch.zeros(24)) for i, name in enumerate(("train", "validation", "test"))}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Linear(1, 1), generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        step, self.calls = self.calls, self.calls + 1
        if step in self.raises:
            raise self.raises[step]
        value = self.losses(step) if callable(self.losses) else self.losses.get(step, 1.0)
        return model(batch[0]).sum() * 0.0 + value

    def score(self, model: nn.Module, split: Split) -> float:
        self.scored.append(split)
        return self.value


class Global(Task):
    """A user's task that draws from torch's global generator all over."""

    name = "global"

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.linspace(-1, 1, 64).view(-1, 1)
        return dict.fromkeys(("train", "validation", "test"), Split(x, (x[:, 0] > 0).long()))

    def model(self, generator: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs + 0.1 * torch.randn_like(inputs)


class Blobs(Task):
    """Four noisy patterns, as images or flat; the model is what the test gives."""

    name = "blobs"

    def __init__(self, make: Callable[[], nn.Module], shape: tuple[int, ...] = (1, 6, 6), scale: float = 1.0):
        self.make, self.shape, self.scale = make, shape, scale

    def load(self, root: Path) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(240) % 4
        centres = torch.randn(4, *self.shape, generator=generator)
        x = self.scale * (centres[labels] + torch.randn(240, *self.shape, generator=generator))
        parts = {"train": slice(0, 120), "validation": slice(120, 180), "test": slice(180, 240)}
        return {name: Split(x[part], labels[part]) for name, part in parts.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(self.make, generator)


class Distances(Blobs):
    """A user's task with a loss and a score of its own, and a penalty on a weight."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        wanted = F.one_hot(batch[1], 4).float()
        penalty = sum(p.square().sum() for p in model.parameters())
        return F.smooth_l1_loss(model(batch[0]), wanted) + 1e-3 * penalty

    def score(self, model: nn.Module, split: Split) -> float:
        with evaluating(model):
            return math.exp(-float(F.mse_loss(model(split.inputs), F.one_hot(split.targets, 4).float())))
