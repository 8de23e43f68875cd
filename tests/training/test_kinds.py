"""A task says kinds of parameters, and whoever treats them differently hears it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.tasks import build
from optevo.tasks.vision import Digits
from optevo.training.operations import operations_a_step
from optevo.training.single import train


class Still:
    """A candidate that changes nothing."""

    def build(self, params: Any, total_steps: int) -> Any:
        optimizer = torch.optim.SGD(params, lr=0.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


class Grouped(Still):
    """Notes what it is built with."""

    by_kind = True
    seen: Any = None

    def build(self, params: Any, total_steps: int) -> Any:
        self.seen = params = list(params)
        return super().build(params, total_steps)


class Embedded(Digits):
    """Pixels as symbols."""

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Sequential(nn.Flatten(), Embedded.Symbols(), nn.Linear(64, 10)), generator)

    class Symbols(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(17, 1)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.table(pixels.clamp(0, 16).long()).flatten(1)


def test_a_candidate_that_treats_kinds_differently_is_told_what_is_an_embedding():
    task = Embedded()
    candidate = Grouped()
    train(task, task.load(Path()), cast("Any", candidate), seed=0, steps=1)
    assert [(group["kind"], [tuple(p.shape) for p in group["params"]]) for group in candidate.seen] == [
        ("head", [(17, 1)]),
        (None, [(10, 64), (10,)]),
    ]


def test_a_kind_of_a_parameter_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch):
    task = Embedded()
    monkeypatch.setattr(task, "kinds", lambda model: {"1.tabel.weight": "head"})
    with pytest.raises(
        UserError, match=r"kinds\(\) names '1.tabel.weight', expected one of 1.table.weight, 2.weight"
    ):
        train(task, task.load(Path()), cast("Any", Grouped()), seed=0, steps=1)


def test_operations_are_counted_with_the_kinds_that_the_task_says(monkeypatch: pytest.MonkeyPatch):
    """An embedding is a head, which the preset leaves to Adam: no matrix product is counted for it."""
    task = Embedded()
    train_split = task.load(Path())["train"]
    told = operations_a_step(task, MODERN_PRESETS["muon_conv"], 16, train_split)
    monkeypatch.setattr(task, "kinds", lambda model: {})
    untold = operations_a_step(task, MODERN_PRESETS["muon_conv"], 16, train_split)
    assert told.update < untold.update
