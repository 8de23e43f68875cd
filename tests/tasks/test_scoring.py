"""Losses and metrics by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.optim.terms.presets import PRESETS
from optevo.tasks import Split, Task, build
from optevo.tasks.scoring import LOSSES, METRICS
from optevo.training.fitness import fitness
from optevo.training.single import train
from optevo.training.stacked import stacks


class Line(Task):
    """Numbers that a line explains, as large as people's are."""

    name = "line"
    loss = "mse"
    metric = "r2"
    outputs = 1
    flat = False

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
        y = 100 + 40 * x @ torch.tensor([[1.0, -2.0], [0.5, 1.0], [2.0, 0.0]])[:, : self.outputs]
        y = y[:, 0] if self.flat else y
        return {
            "train": Split(x[:80], y[:80]),
            **dict.fromkeys(("validation", "test"), Split(x[80:], y[80:])),
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        layers = [nn.Linear(3, self.outputs), *([nn.Flatten(0)] if self.flat else [])]
        return build(lambda: nn.Sequential(*layers), generator)


class Constant(nn.Module):
    """Returns what it is given, with a weight that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def scored(metric: str, outputs: Tensor, targets: Tensor) -> float:
    task = type("Named", (Line,), {"metric": metric, "score_batch_size": 7})()
    return task.score(Constant(), Split(outputs, targets))


def run(task: Task, **options: Any) -> Any:
    options = {"seed": 0, "steps": 40, "batch_size": 20, **options}
    return train(task, task.load(Path()), PRESETS["adam"], **options)


@pytest.mark.parametrize("k", [None, 1, 3])
def test_r2_is_scikit_learns(k: int | None):
    draw = np.random.default_rng(0)
    targets = draw.normal(1e4, 3.0, (50, k) if k else 50)
    outputs = targets + draw.normal(0, 1.0, targets.shape)
    expected = r2_score(targets, outputs)
    assert scored("r2", torch.tensor(outputs), torch.tensor(targets)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1.0), (0.1, 0.0)])
def test_r2_of_targets_that_are_all_the_same_is_finite(off: float, expected: float):
    targets = torch.full((50,), 0.1)
    assert (
        scored("r2", targets + off, targets) == expected == r2_score(targets.numpy(), targets.numpy() + off)
    )


@pytest.mark.parametrize("name", ["-mse", "neg_mse", "\u2212mse"])
def test_minus_mse_is_over_all_targets(name: str):
    outputs, targets = torch.zeros(9, 2), torch.tensor([[1.0, 2.0]] * 9)
    assert scored(name, outputs, targets) == -2.5


@pytest.mark.parametrize("name", ["-perplexity", "neg_perplexity"])
@pytest.mark.parametrize("shape", [(30, 5), (30, 5, 4)])
def test_minus_perplexity_is_of_the_mean_over_all_targets(name: str, shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(shape, generator=generator)
    targets = torch.randint(0, 5, (30, *shape[2:]), generator=generator)
    targets.view(-1)[::7] = -100  # as F.cross_entropy, which leaves them out
    expected = -F.cross_entropy(outputs.double(), targets).exp().item()
    assert scored(name, outputs, targets) == pytest.approx(expected, rel=1e-6)


def test_accuracy_is_a_share_of_all_targets():
    outputs = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])]
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 1, 2, 0])
    assert scored("accuracy", outputs, targets) == 6 / 9
    assert scored("accuracy", outputs.expand(9, 9, 3), targets.expand(9, 9)) == 6 / 9


@pytest.mark.parametrize("metric", ["r2", "-mse"])
def test_a_metric_of_half_precision_outputs_is_not_rounded_to_it(metric: str):
    targets = torch.tensor([1000.25, 1001.5, 1003.75, 998.5])
    exact = scored(metric, targets.bfloat16().float(), targets)
    assert scored(metric, targets.bfloat16(), targets) == exact < (1 if metric == "r2" else 0)


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_is_torchs_in_float32(name: str, dtype: torch.dtype):
    outputs = torch.tensor([1.5, -2.0, 0.25], dtype=dtype)
    targets = torch.tensor([1.001, -3.5, 0.75])
    torchs = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}[name]
    assert torch.equal(LOSSES[name](outputs, targets), torchs(outputs.float(), targets))
    assert LOSSES[name](outputs, targets.double()).dtype == torch.float32


@pytest.mark.parametrize("name", ["mse", "l1", "huber", "r2", "-mse", "accuracy"])
@pytest.mark.parametrize("flat_outputs", [False, True])
def test_targets_are_never_broadcast(name: str, flat_outputs: bool):
    shapes = [(8,), (8, 1)] if flat_outputs else [(8, 1), (8,)]
    outputs, targets = (torch.zeros(shape) for shape in shapes)
    if name == "accuracy":
        outputs, targets = torch.zeros(8, 2), torch.zeros(8, 1)
    ask = LOSSES[name] if name in LOSSES else lambda ours, theirs: METRICS[name]([(ours, theirs)], theirs)
    with pytest.raises(UserError, match=r"\(8.*\(8"):
        ask(outputs, targets)


@pytest.mark.parametrize(
    ("attribute", "name", "words"),
    [
        ("loss", "mes", r"Wrong: unknown loss 'mes': did you mean 'mse'\?.*loss\(self, model, batch\)"),
        ("loss", "nothing like it", "expected one of cross_entropy, mse, l1, huber"),
        ("metric", "R2", "Wrong: unknown metric 'R2'.*score"),
        ("metric", "acuracy", "did you mean 'accuracy'"),
        ("metric", "perplexity", "did you mean '-perplexity'"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(attribute: str, name: str, words: str):
    with pytest.raises(UserError, match=words):
        type("Wrong", (Line,), {attribute: name})().score(Constant(), Split(torch.ones(3), torch.ones(3)))


def test_a_metric_beside_a_score_of_ones_own_is_any_word():
    class Own(Line):
        metric = "whatever I call it"

        def score(self, model: nn.Module, split: Split) -> float:
            return -7.0

    assert run(Own()).fitness == -7.0


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_a_regression_is_a_class_with_two_words_more(loss: str, outputs: int, flat: bool):
    if flat and outputs == 2:
        pytest.skip("one output is flat")
    task = type("Regression", (Line,), {"loss": loss, "outputs": outputs, "flat": flat})()
    result = run(task)
    assert result.diverged_at is None  # though the loss is far above 50 at first
    assert result.losses[0] > (50 if loss != "mse" else 1000)
    assert result.fitness == result.metric < 0  # 40 steps of 0.001 do not get there, and R² says so


def test_a_named_loss_that_is_not_finite_is_divergence():
    class Bad(Line):
        def load(self, root: Path) -> dict[str, Split]:
            return {key: Split(s.inputs, s.targets * 1e30) for key, s in super().load(root).items()}

    assert run(Bad()).diverged_at == 0


@pytest.mark.parametrize("limit", [50.0, math.inf])
def test_max_loss_says_where_divergence_begins(limit: float):
    task = type("Limited", (Line,), {"max_loss": limit})()
    assert (run(task).diverged_at is None) == (limit == math.inf)


class Classes(Line):
    """Two classes, a loss of ones own choice."""

    loss = "cross_entropy"
    metric = "accuracy"
    outputs = 2

    def load(self, root: Path) -> dict[str, Split]:
        return {key: Split(s.inputs, (s.targets[:, 0] > 100).long()) for key, s in super().load(root).items()}


def test_the_published_pair_by_name_is_the_default():
    result = run(Classes())
    assert Classes.loss is Task.loss
    assert result.fitness == fitness(result.metric, result.loss)
    assert Classes().has_bonus
    assert stacks(Classes(), torch.device("cpu"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"metric": "-perplexity"}, False),
        ({"metric": "-perplexity", "bonus": True}, True),
        ({"bonus": False}, False),
        ({"loss": "mse"}, False),
        ({"loss": lambda self, model, batch: F.cross_entropy(model(batch[0]), batch[1])}, True),
        ({"score": lambda self, model, split: 0.5, "metric": "as today"}, True),
    ],
)
def test_the_bonus_belongs_to_cross_entropy_with_accuracy_and_to_methods_that_do_not_waive_it(
    changed: dict[str, Any], expected: bool
):
    assert type("Other", (Classes,), changed)().has_bonus is expected
    # It is asked of the instance: an option may have chosen the metric.
    chosen = Classes()
    chosen.metric = "-perplexity"
    assert not chosen.has_bonus


def test_minus_perplexity_of_a_run_is_its_fitness_alone():
    result = run(type("Perplexed", (Classes,), {"metric": "-perplexity"})())
    assert result.fitness == result.metric
    assert -3 < result.fitness < -1
