"""What `check_task` says of tasks that have one fault each."""

from __future__ import annotations

# ruff: noqa: NPY002
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optevo.tasks import ScoredTask, Split, Task, build
from optevo.training.check_data import Finding
from optevo.training.check_task import check_task
from optevo.training.global_generators import GlobalGenerators


def points(seed: int = 0) -> dict[str, Split]:
    x = 9 * torch.randn(300, 2, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 0] > 0).long()
    return {
        "train": Split(x[:200], y[:200]),
        "validation": Split(x[200:250], y[200:250]),
        "test": Split(x[250:], y[250:]),
    }


class Good(Task):
    name = "good"

    def load(self, root: Path) -> dict[str, Split]:
        return points()

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), generator)


def checked(task: Any, **options: Any) -> list[Finding]:
    return check_task(task, Path(), **{"steps": 20, "batch_size": 32} | options)


def test_a_good_task_has_no_fault():
    findings = checked(Good(), steps=80)
    assert {one.verdict for one in findings} == {"ok"}, findings
    checks = ["load", "shapes", "numbers", "splits", "classes", "first step", "model", "batches", "gradients"]
    checks += ["repeats", "loss", "score", "speed", "memory", "global generators"]
    assert [one.check for one in findings] == checks


class Unrepeatable(Good):
    def load(self, root: Path) -> dict[str, Split]:
        return points(time.perf_counter_ns() % 2**31)


class Shuffled(Good):
    def load(self, root: Path) -> dict[str, Split]:
        x = np.random.permutation(200)
        splits = points()
        train = splits["train"]
        return splits | {"train": Split(train.inputs[x], train.targets[x])}


class Leaking(Good):
    def load(self, root: Path) -> dict[str, Split]:
        splits = points()
        return splits | {"test": Split(splits["train"].inputs[:50], splits["train"].targets[:50])}


class Unlike(Good):
    def load(self, root: Path) -> dict[str, Split]:
        splits = points()
        return splits | {"test": Split(splits["test"].inputs.double(), splits["test"].targets)}


class Nans(Good):
    def load(self, root: Path) -> dict[str, Split]:
        splits = points()
        splits["train"].inputs[3, 0] = torch.nan
        return splits


class Sorted(Good):
    def load(self, root: Path) -> dict[str, Split]:
        x, y = points()["train"].inputs, torch.arange(200) // 50
        parts = {"train": slice(0, 100), "validation": slice(100, 150), "test": slice(150, 200)}
        return {name: Split(x[part], y[part]) for name, part in parts.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Linear(2, 4), generator)


class Empty(Good):
    def load(self, root: Path) -> dict[str, Split]:
        return points() | {"test": Split(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))}


class Broken(Good):
    def load(self, root: Path) -> dict[str, Split]:
        raise RuntimeError("no file")


class GlobalWeights(Good):
    def model(self, generator: torch.Generator) -> nn.Module:
        return nn.Linear(2, 2)


class OneModel(Good):
    def __init__(self) -> None:
        self.made = build(lambda: nn.Linear(2, 2), torch.Generator().manual_seed(0))

    def model(self, generator: torch.Generator) -> nn.Module:
        return self.made


class FixedModel(Good):
    def model(self, generator: torch.Generator) -> nn.Module:
        return super().model(torch.Generator().manual_seed(7))


class Augmenting(Good):
    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs * (1 + 0.1 * random.random())


class GlobalDropout(Good):
    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return super().loss(model, (nn.functional.dropout(batch[0], 0.1), batch[1]))


class Spoiling(Good):
    def batches(self, split: Split, batch_size: int, generator: torch.Generator) -> Any:
        for inputs, targets in super().batches(split, batch_size, generator):
            split.inputs.add_(1e-3)
            yield inputs, targets


class Remembering(Good):
    calls = 0

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self.calls += 1
        return super().loss(model, batch) * (1 + self.calls / 1e4)


class Rising(Good):
    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        loss = super().loss(model, batch)
        return 2 * loss.detach() - loss  # whose gradient is the opposite one


class Unused(Good):
    def model(self, generator: torch.Generator) -> nn.Module:
        model = super().model(generator)
        model.spare = nn.Parameter(torch.zeros(3))
        return model


class Error(Good):
    metric = "error"
    bonus = False

    def score(self, model: nn.Module, split: Split) -> float:
        with torch.no_grad():
            return nn.functional.cross_entropy(model(split.inputs), split.targets).item()


class Percent(Good):
    def score(self, model: nn.Module, split: Split) -> float:
        return 100 * super().score(model, split)


class Infinite(Good):
    def score(self, model: nn.Module, split: Split) -> float:
        return float("nan")


class Random(Good):
    metric = "random"

    def score(self, model: nn.Module, split: Split) -> float:
        return torch.rand(()).item()


class Wordy(Good):
    def score(self, model: nn.Module, split: Split) -> Any:
        return "good"


class Regression(Good):
    """As of a class whose author forgot to name the loss."""

    def load(self, root: Path) -> dict[str, Split]:
        return {name: Split(s.inputs, s.inputs[:, :1]) for name, s in points().items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(lambda: nn.Linear(2, 1), generator)


class Meaningless(Good):
    def load(self, root: Path) -> dict[str, Split]:
        splits = points()
        validation = splits["validation"]
        return splits | {"validation": Split(validation.inputs, 1 - validation.targets)}


@pytest.mark.parametrize(
    ("task", "check", "verdict", "words"),
    [
        (Unrepeatable, "load", "wrong", "other inputs for 'train'"),
        (Shuffled, "load", "wrong", "in another order"),
        (Shuffled, "global generators", "wrong", "load() draws from or seeds numpy's"),
        (Leaking, "splits", "wrong", "50 of the 50 of 'test' are in 'train'"),
        (Unlike, "shapes", "wrong", "test: inputs float64 (2,)"),
        (Nans, "numbers", "wrong", "1 of the inputs of 'train' have a NaN"),
        (Sorted, "classes", "wrong", "'train' lacks classes 2, 3; 'validation' lacks classes 0, 1, 3"),
        (Empty, "load", "wrong", "split 'test' has no example"),
        (Broken, "load", "wrong", "RuntimeError: no file (" + __file__),
        (GlobalWeights, "model", "wrong", "other weights for one and the same seed"),
        (GlobalWeights, "global generators", "wrong", "model() draws from or seeds torch's"),
        (OneModel, "model", "wrong", "share 'weight'"),
        (FixedModel, "model", "look", "the same weights for every seed"),
        (Augmenting, "batches", "wrong", "other batches for one and the same seed"),
        (Augmenting, "global generators", "wrong", "batches() draws from or seeds random's"),
        (GlobalDropout, "global generators", "look", "loss() draws from or seeds torch's"),
        (Spoiling, "load", "wrong", "training changed the examples"),
        (Remembering, "repeats", "wrong", "differ in the losses"),
        (Rising, "loss", "wrong", "does not fall: "),
        (Unused, "gradients", "look", "1 of 5 get none: spare"),
        (Error, "score", "wrong", "falls while the loss falls"),
        (Percent, "score", "wrong", "untrained, "),
        (Infinite, "loss", "wrong", "diverged at step"),
        (Random, "score", "wrong", "of one and the same network"),
        (Wordy, "first step", "wrong", "returned 'good', of type str"),
        (Regression, "first step", "wrong", "cross-entropy over a single class"),
        (Meaningless, "score", "look", "no better than chance"),
    ],
)
def test_a_fault_is_found(task: type[Task], check: str, verdict: str, words: str):
    findings = checked(task())
    found = [one for one in findings if one.check == check and one.verdict == verdict]
    assert any(words in one.found for one in found), findings
    assert all(one.remedy for one in found)


def test_batches_that_are_too_large_are_told():
    found = [one for one in checked(Good(), steps=80, batch_size=500) if one.verdict != "ok"]
    assert [(one.verdict, one.remedy) for one in found] == [
        ("look", "say batch_size = 200 or less in [evaluation]")
    ]


def test_doubles_are_natural_where_inputs_repeat_by_themselves():
    class Coarse(Good):
        def load(self, root: Path) -> dict[str, Split]:
            return {name: Split(s.inputs.div(9).round(), s.targets) for name, s in points().items()}

    (found,) = [one for one in checked(Coarse()) if one.check == "splits"]
    assert found.verdict == "look"
    assert "of the inputs of 'train' are distinct" in found.found


class Surrogate(ScoredTask):
    name = "surrogate"

    def score(self, candidate: Any, seed: int, steps: int) -> Any:
        return -abs(candidate.lr - 0.01)


@pytest.mark.parametrize(
    ("score", "check", "verdict"),
    [
        (lambda candidate, seed, steps: candidate.canonical().count("0") / 100, "score", "ok"),
        (lambda candidate, seed, steps: 1.0, "score", "look"),
        (lambda candidate, seed, steps: None, "score", "look"),
        (lambda candidate, seed, steps: float("nan"), "repeats", "ok"),
        (lambda candidate, seed, steps: random.random(), "repeats", "wrong"),
        (lambda candidate, seed, steps: random.random(), "global generators", "wrong"),
        (lambda candidate, seed, steps: 1 / 0, "score", "wrong"),
    ],
)
def test_tasks_that_score_by_themselves_are_checked_too(score: Any, check: str, verdict: str):
    task = Surrogate()
    task.score = score
    assert verdict in [one.verdict for one in checked(task) if one.check == check]


def test_the_global_generators_are_afterwards_as_they_were():
    def states() -> tuple[Any, ...]:
        place = np.random.get_state(legacy=False)["state"]["pos"]
        return torch.random.get_rng_state().tolist(), place, random.getstate()

    before = states()
    with GlobalGenerators() as generators:
        with generators.watched("nobody", 3):
            torch.Generator().manual_seed(1)
        assert generators.touched == []
        with generators.watched("somebody", 3):
            torch.rand(2), np.random.rand(1), random.random()
        assert generators.touched == [("somebody", name) for name in ("torch", "numpy", "random")]
    assert states() == before
