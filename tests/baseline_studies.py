"""Tuned baselines, their weights after a few steps, and sweeps with a cheap objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from small_studies import config
from torch import nn

from optevo import keys
from optevo.optim.baselines.registry import BASELINES, TunedBaseline
from optevo.study.config import StudyConfig
from optevo.study.studies import create_or_resume, is_complete

GRID = {"kind": "grid"}
SPACE = {"kind": "adamw", "lr": [1e-3, 1e-2, 1e-1], "weight_decay": [0.0, 1e-2]}
every_baseline = pytest.mark.parametrize("name", BASELINES)
exportable = pytest.mark.parametrize("name", sorted({*BASELINES} - {"sophia", "ademamix"}))


def tuned(
    name: str, lr: float | None = None, weight_decay: float | None = None, **more: Any
) -> TunedBaseline:
    baseline = BASELINES[name]
    middle = baseline.lr[len(baseline.lr) // 2] if lr is None else lr
    decay = baseline.weight_decay[-1] if weight_decay is None else weight_decay
    return TunedBaseline(name, middle, decay, **more)


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((6, 4), (4,), (3, 2, 2, 2))
    return [nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in shapes]


def stepped(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    steps: int = 5,
    after: Callable[[], object] = lambda: None,
    start: int = 0,
) -> list[torch.Tensor]:
    """The parameters after `steps` steps on fixed gradients, that `after` each of them something happens."""
    for step in range(start, start + steps):
        rng = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=rng).to(p.dtype)
        optimizer.step()
        after()
    return [p.detach().clone() for p in params]


def assert_same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], **tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def sweep(sampler: dict[str, Any] = GRID, seed: int = 3, **space: Any) -> StudyConfig:
    return config(sampler=sampler, seed=seed, space={**SPACE, **space}, evaluation__gate=False)


def create(one: StudyConfig, storage: BaseStorage | None = None) -> optuna.Study:
    return create_or_resume(one, storage or InMemoryStorage(), "cpu")


def describe(trial: optuna.Trial, one: StudyConfig) -> float:
    """A cheap objective that leaves what the real one does."""
    space = one.make_space()
    params = space.suggest(trial)
    trial.set_user_attr(keys.CANONICAL, space.candidate(params).canonical())
    return params["lr"] - params["weight_decay"]


def complete(study: optuna.Study, one: StudyConfig) -> list[tuple[float, float]]:
    """Work on the study until it is complete; the points that count, in the order of trials."""
    for _ in range(50):
        if is_complete(study):
            break
        study.optimize(lambda trial: describe(trial, one), n_trials=1)
    return points(study)


def points(study: optuna.Study, *states: TrialState) -> list[tuple[float, float]]:
    trials = study.get_trials(states=states or (TrialState.COMPLETE, TrialState.PRUNED))
    return [(trial.params["lr"], trial.params["weight_decay"]) for trial in trials]
