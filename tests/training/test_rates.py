"""Learning-rate trials, then one run with the best rate: who wins, what stops, what counts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from optevo.optim.baselines.registry import TunedBaseline
from optevo.study.evaluation import RatesConfig
from optevo.tasks import Split, Task, get_task
from optevo.training.rates import train_with_rates
from optevo.training.run import Run

Figure = Callable[[float, int], float]  # of a rate and an epoch, from 0
EPOCH, STEPS, BATCH = 5, 60, 10
RATES = RatesConfig(epoch_steps=EPOCH, full_epochs=STEPS // EPOCH)
TRIAL = 4 * EPOCH


class Answers(nn.Module):
    """Answers as many of its examples right as its task says; knows its rate and its steps."""

    def __init__(self, right: Figure) -> None:
        super().__init__()
        self.right, self.weight = right, nn.Parameter(torch.zeros(1))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    @property
    def epoch(self) -> int:
        return (int(self.taken) - 1) // EPOCH

    @property
    def rate(self) -> float:
        return self.weight.rate  # type: ignore[attr-defined, return-value]

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.training
        self.taken += 1
        wrong = torch.arange(len(inputs)) >= round(self.right(self.rate, self.epoch) * len(inputs))
        return nn.functional.one_hot(wrong.long(), 2) + 0.0 * self.weight  # class 0 is right


class Told(Task):
    """Its training accuracy, metrics and losses are given by rate and epoch."""

    name = "told"

    def __init__(self, right: Figure, score: Figure = lambda rate, epoch: 0.5, **others: Figure) -> None:
        self.right, self.given = right, {"validation": score, "test": others.get("test", score)}
        self.loss_of = others.get("loss", lambda rate, epoch: 1.0)
        self.scored: list[tuple[str, int]] = []

    def load(self, root: Path) -> dict[str, Split]:
        zeros = torch.zeros(40, dtype=torch.int64)
        names = ("train", "validation", "test")
        return {name: Split(torch.full((40, 1), float(i)), zeros) for i, name in enumerate(names)}

    def model(self, generator: torch.Generator) -> nn.Module:
        return Answers(self.right)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert isinstance(model, Answers)
        return model(batch[0]).sum() * 0.0 + self.loss_of(model.rate, model.epoch)

    def score(self, model: nn.Module, split: Split) -> float:
        assert isinstance(model, Answers)
        part = ("train", "validation", "test")[int(split.inputs[0])]
        self.scored.append((part, model.epoch))
        return self.given[part](model.rate, model.epoch)


@dataclasses.dataclass
class Rated:
    """Changes nothing; its optimizer tells the weights their rate, and `built` who was asked for it."""

    by_kind: ClassVar[bool] = False
    lr: float = math.nan
    built: list[tuple[float, int]] = dataclasses.field(default_factory=list)

    def at_rate(self, lr: float) -> Rated:
        return dataclasses.replace(self, lr=lr)

    def build(self, params: Any, total_steps: int) -> Any:
        self.built.append((self.lr, total_steps))
        weights = list(params)
        for weight in weights:
            weight.rate = self.lr
        optimizer = torch.optim.SGD(weights, lr=0.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def run(task: Task, candidate: Any = None, rates: RatesConfig = RATES, **options: Any) -> Run:
    options = {"seed": 0, "steps": STEPS, "batch_size": BATCH} | options
    return train_with_rates(task, task.load(Path()), candidate or Rated(), rates, **options)


def by_rate(**right: float) -> Figure:
    """The same training accuracy in every epoch; rates as `one`, `tenth`, 0.5 for others."""
    names = {10.0: "ten", 1.0: "one", 0.1: "tenth", 0.01: "hundredth", 1e-3: "thousandth"}
    return lambda rate, epoch: right.get(names.get(rate, ""), right.get("others", 0.5))


ALL = (10.0, 0.01, 1e-5, 1.0, 0.1, 1e-3, 1e-4)


def test_the_rate_with_the_best_training_accuracy_wins():
    candidate, task = Rated(), Told(by_rate(tenth=0.9, one=0.8, others=0.3))
    result = run(task, candidate)
    assert result.lr == 0.1
    assert [rate for rate, _ in candidate.built] == [*ALL, 0.1]
    assert {steps for _, steps in candidate.built} == {STEPS}  # the horizon of every schedule
    assert result.steps == 7 * TRIAL + STEPS
    assert (result.diverged_at, result.failure) == (None, None)


@pytest.mark.parametrize(("best", "chosen"), [({"one": 0.8, "tenth": 0.8}, 1.0), ({}, 10.0)])
def test_of_equals_the_first_in_order_wins(best: dict[str, float], chosen: float):
    assert run(Told(by_rate(**best))).lr == chosen


def test_a_trial_counts_by_its_best_epoch():
    def right(rate: float, epoch: int) -> float:
        return (0.9 if epoch == 1 else 0.3) if rate == 1e-3 else 0.6

    task = Told(lambda rate, epoch: right(rate, epoch) if epoch < 4 else 0.8)
    assert run(task).lr == 1e-3


def test_nobody_learns_at_the_first_rates_so_the_others_are_not_tried():
    candidate = Rated()
    result = run(Told(by_rate(one=0.9, hundredth=0.2, others=0.1)), candidate)
    assert [rate for rate, _ in candidate.built] == [10.0, 0.01, 1e-5]
    assert (result.metric, result.fitness, result.lr) == (None, -1.0, None)
    assert result.diverged
    assert result.steps == 3 * 3 * EPOCH == result.diverged_at  # each stops after its third epoch
    assert result.failure == "best training score 0.2000, at rate 0.01 of 10, 0.01, 1e-05; below 0.25"


def test_accuracy_at_the_first_threshold_is_enough():
    rates = RATES.model_copy(update={"first_threshold": 0.3, "threshold": 0.3})
    assert run(Told(by_rate(others=0.3)), rates=rates).lr == 10.0


def test_the_best_of_all_is_below_the_threshold():
    candidate = Rated()
    result = run(Told(by_rate(others=0.3)), candidate)
    assert [rate for rate, _ in candidate.built] == [*ALL]
    assert result.failure is not None
    assert "0.3000, at rate 10 of 10, 0.01, 1e-05, 1, 0.1, 0.001, 0.0001; below 0.4" in result.failure


@pytest.mark.parametrize(("patience", "epochs"), [(3, 3), (1, 1), (4, 4), (9, 4)])
def test_a_trial_below_the_first_threshold_stops_when_it_may(patience: int, epochs: int):
    rates = RATES.model_copy(update={"patience": patience})
    assert run(Told(by_rate(others=0.2)), rates=rates).steps == 3 * epochs * EPOCH


def test_a_trial_that_learns_late_goes_on():
    result = run(Told(lambda rate, epoch: 0.1 if epoch < 2 else 0.5))
    assert result.steps == 7 * TRIAL + STEPS


def test_a_trial_that_diverges_keeps_what_it_scored():
    def loss(rate: float, epoch: int) -> float:
        return math.nan if rate == 10.0 and epoch == 1 else 1.0

    result = run(Told(by_rate(ten=0.7, others=0.3), loss=loss))
    assert result.lr == 10.0
    # Looked at after each epoch and each tenth. The run diverges as well, and keeps its first epoch too.
    assert result.steps == 2 * EPOCH + 6 * TRIAL + 6
    assert (result.metric, result.diverged_at) == (0.5, None)
    assert result.losses == (None,)
    diverging = Told(by_rate(ten=0.9, one=0.6), loss=lambda rate, epoch: math.inf if rate == 10.0 else 1.0)
    assert run(diverging).lr == 1.0


@pytest.mark.parametrize("patience", [5, 1, 12])
def test_the_whole_run_stops_once_it_forgets_and_keeps_its_best_epoch(patience: int):
    def right(rate: float, epoch: int) -> float:
        return 0.9 if epoch < 4 else 0.3

    task = Told(right, lambda rate, epoch: 0.6 - 0.1 * abs(epoch - 1), loss=lambda rate, epoch: 2.0 + epoch)
    result = run(task, rates=RATES.model_copy(update={"full_patience": patience}))
    assert result.metric == result.fitness == 0.6
    assert result.loss == 3.0  # of that epoch
    assert result.steps == 7 * TRIAL + max(patience, 5) * EPOCH
    assert result.diverged_at is None
    assert len(result.losses) == (4 if patience < 12 else 10)  # tenths that it reached
    assert task.scored == [("validation", epoch) for epoch in range(max(patience, 5))]


def test_fitness_is_the_best_metric_of_an_epoch_without_a_bonus():
    result = run(Told(by_rate(), lambda rate, epoch: epoch / 20, loss=lambda rate, epoch: 0.1))
    assert result.fitness == result.metric == 11 / 20


def test_metrics_below_zero_count_too():
    assert run(Told(by_rate(), lambda rate, epoch: -5.0 - epoch)).metric == -5.0


def test_an_epoch_whose_score_is_no_number_does_not_count():
    assert run(Told(by_rate(), lambda rate, epoch: math.nan if epoch % 2 else 0.1 * epoch)).metric == 1.0
    result = run(Told(by_rate(), lambda rate, epoch: math.nan))
    assert (result.metric, result.lr) == (None, 10.0)
    assert result.diverged_at == 7 * TRIAL + STEPS


def test_a_whole_run_that_diverges_in_its_first_epoch_has_no_score():
    built = itertools.count()

    class Last(Told):
        def model(self, generator: torch.Generator) -> nn.Module:
            self.diverges = next(built) == 7
            return super().model(generator)

    task = Last(by_rate(), loss=lambda rate, epoch: math.inf if task.diverges else 1.0)
    result = run(task)
    assert (result.metric, result.lr, result.failure) == (None, 10.0, None)
    assert result.diverged_at == 7 * TRIAL
    assert result.steps == 7 * TRIAL + EPOCH


def test_on_the_test_split_the_epoch_is_chosen_on_validation_and_scored_once():
    task = Told(
        by_rate(), lambda rate, epoch: 0.9 if epoch == 3 else 0.5, test=lambda rate, epoch: 0.1 + epoch / 20
    )
    result = run(task, split="test")
    assert result.metric == result.fitness == pytest.approx(0.1 + 3 / 20)  # the test split's best is the last
    assert [place for place in task.scored if place[0] == "test"] == [("test", 3)]
    assert [place for place in task.scored if place[0] != "test"] == [("validation", e) for e in range(12)]


def test_a_model_of_the_best_epoch_is_the_one_that_is_tested():
    digits = get_task("digits")
    kept: dict[int, tuple[float, float]] = {}

    class Spy(type(digits)):  # type: ignore[misc]
        name = "digits"

        def score(self, model: nn.Module, split: Split) -> float:
            value = super().score(model, split)
            if split is splits["validation"]:
                kept[len(kept)] = value, super().score(model, splits["test"])
            return value

    task = Spy()
    splits = task.load(Path())
    rates = RatesConfig(first=(0.1,), more=(), epochs=1, epoch_steps=5, full_epochs=8)
    rates = rates.model_copy(update={"first_threshold": 0.0, "threshold": 0.0})
    options = {"seed": 0, "steps": 40, "batch_size": 32, "split": "test"}
    result = train_with_rates(task, splits, TunedBaseline("sgd", 1.0, 0.0), rates, **options)
    assert result.metric == max(kept.values(), key=lambda one: one[0])[1]


def test_without_class_scores_a_trial_counts_by_its_loss():
    class Regression(Told):
        name = "regression"

        def model(self, generator: torch.Generator) -> nn.Module:
            model = super().model(generator)
            model.register_forward_hook(lambda module, inputs, outputs: outputs.float()[:, :1])
            return model

        def load(self, root: Path) -> dict[str, Split]:
            return {name: Split(s.inputs, s.inputs[:, 0]) for name, s in super().load(root).items()}

    task = Regression(by_rate(ten=1.0), loss=lambda rate, epoch: 0.1 if rate == 1e-3 else 0.8)
    assert run(task).lr == 1e-3
    failing = run(Regression(by_rate(others=1.0), loss=lambda rate, epoch: 2.0))
    assert failing.failure is not None
    assert f"{math.exp(-2):.4f}" in failing.failure


def test_accuracy_weighs_batches_by_their_examples():
    class Uneven(Told):
        def batches(self, split: Split, size: int, generator: torch.Generator) -> Iterator[Any]:
            for count in itertools.cycle((10, 2, 2, 2, 2)):
                yield split.inputs[:count], split.targets[:count]

    # All of the small batches right and none of the large one: 8 of 18, not 4 of 5.
    task = Uneven(lambda rate, epoch: 0.0)
    task.model = lambda generator: Sizes(lambda rate, epoch: 0.0)  # type: ignore[method-assign]
    result = run(task, rates=RATES.model_copy(update={"threshold": 0.5}))
    assert result.failure is not None
    assert f"{8 / 18:.4f}" in result.failure


class Sizes(Answers):
    def forward(self, inputs: Tensor) -> Tensor:
        self.right = lambda rate, epoch: float(len(inputs) == 2)
        return super().forward(inputs)


def on_digits(**options: Any) -> Run:
    task = get_task("digits")
    rates = RatesConfig(first=(1.0, 1e-3), more=(0.1,), epochs=2, epoch_steps=10, full_epochs=4)
    rates = rates.model_copy(update={"first_threshold": 0.05, "threshold": 0.05})
    candidate = TunedBaseline("sgd", 5.0, 0.0, "warmup_cosine")
    options = {"seed": 0, "steps": 40, "batch_size": 32} | options
    return train_with_rates(task, task.load(Path()), candidate, rates, **options)


def test_the_same_seed_gives_the_same_run_to_the_last_bit_and_another_another():
    first, again, other = (dataclasses.replace(on_digits(seed=seed), seconds=0) for seed in (0, 0, 1))
    assert first == again
    assert first.losses != other.losses
    assert first.lr in (1.0, 0.1)


def test_all_trials_and_the_run_begin_with_the_same_weights_and_batches():
    class Seen(Told):
        batch: Any = None

        def __init__(self) -> None:
            super().__init__(by_rate())
            self.begun: list[tuple[float, ...]] = []

        def model(self, generator: torch.Generator) -> nn.Module:
            model = super().model(generator)
            nn.init.normal_(model.weight, generator=generator)  # type: ignore[arg-type]
            return model

        def load(self, root: Path) -> dict[str, Split]:
            train = Split(torch.arange(40.0).view(40, 1), torch.zeros(40, dtype=torch.int64))
            return super().load(root) | {"train": train}

        def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            if model.taken == 0:
                self.begun.append((model.weight.item(), *batch[0].flatten().tolist()))  # type: ignore[arg-type]
            return super().loss(model, batch)

    task = Seen()
    run(task)
    assert len(task.begun) == 8
    assert len(set(task.begun)) == 1


def test_every_step_is_checked_and_the_runs_points_come_after_all_trials():
    checks: list[None] = []
    points: list[tuple[int, float]] = []
    result = run(
        Told(by_rate(), loss=lambda rate, epoch: 1.0 + epoch),
        check=lambda: checks.append(None),
        on_point=lambda step, loss: points.append((step, loss)),
    )
    assert len(checks) == result.steps
    assert [step for step, _ in points] == [7 * TRIAL + 6 * i for i in range(1, 10)]
    assert points[0][1] == pytest.approx(7 / 6)  # five steps of 1, one of 2


def test_a_trial_is_never_longer_than_the_run():
    candidate = Rated()
    assert run(Told(by_rate()), candidate, steps=7).steps == 8 * 7
    assert {steps for _, steps in candidate.built} == {7}
