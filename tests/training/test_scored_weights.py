"""An optimizer that trains other weights than those to score is asked for the latter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.schedule_free import ScheduleFreeAdamW
from optevo.study.evaluation import RatesConfig
from optevo.tasks.vision import Digits
from optevo.training.rates import train_with_rates
from optevo.training.single import scored_weights, train

SCHEDULE_FREE = TunedBaseline("schedule_free", 1e-2, 0.0)


class Watched(Digits):
    """Digits that notes how far the weights scored are from those last trained."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[float] = []
        self.last: Any = None

    def loss(self, model: Any, batch: Any) -> Any:
        self.last = model
        return super().loss(model, batch)

    def score(self, model: Any, split: Any) -> float:
        (optimizer,) = made
        group = optimizer.param_groups[0]
        states = [optimizer.state[p] for p in group["params"]]
        assert not group["train_mode"]
        gaps = [
            (p.detach() - s["train_weights"]).norm() for p, s in zip(group["params"], states, strict=True)
        ]
        self.moved.append(float(torch.stack(gaps).norm()))
        return super().score(model, split)


made: list[ScheduleFreeAdamW] = []


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[Watched, dict[str, Any]]:
    def build(self: TunedBaseline, params: Any, total_steps: int) -> Any:
        made[:] = [self.optimizer(params, total_steps)]
        return made[0], torch.optim.lr_scheduler.LambdaLR(made[0], self.schedule(total_steps))

    monkeypatch.setattr(TunedBaseline, "build", build)
    task = Watched()
    return task, task.load(Path())


def test_a_run_is_scored_at_averaged_weights(watched: tuple[Watched, dict[str, Any]]):
    task, splits = watched
    run = train(task, splits, SCHEDULE_FREE, seed=0, steps=20)
    assert run.metric > 0.2
    assert len(task.moved) == 1
    assert task.moved[0] > 0.01
    assert made[0].param_groups[0]["train_mode"]


def test_a_run_with_rates_is_scored_there_after_every_epoch_and_trains_on(
    watched: tuple[Watched, dict[str, Any]],
):
    task, splits = watched
    rates = RatesConfig(
        **{"first": [1e-2], "more": [], "epochs": 1, "epoch_steps": 5, "full_epochs": 4, "full_patience": 4},
        **{"first_threshold": 0.0, "threshold": 0.0, "patience": 1},
    )
    run = train_with_rates(task, splits, SCHEDULE_FREE, rates, seed=0, steps=20)
    assert run.metric > 0.2
    assert len(task.moved) == 4
    assert min(task.moved[1:]) > 0.01
    once = train(task, splits, SCHEDULE_FREE, seed=0, steps=20)
    assert run.losses == once.losses  # so scoring left no trace


def test_other_optimizers_are_left_alone():
    class Half(torch.optim.SGD):
        def eval(self) -> None:
            raise AssertionError

    for optimizer in (torch.optim.SGD, Half):
        p = torch.nn.Parameter(torch.ones(1))
        with scored_weights(optimizer([p], lr=1.0)):
            assert p.item() == 1
