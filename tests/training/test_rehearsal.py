"""Faults of a user's task, told before a search begins."""

from __future__ import annotations

import logging
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optevo.errors import UserError
from optevo.optim.terms.presets import PRESETS
from optevo.study.config import StudyConfig, parse_config
from optevo.tasks import ScoredTask, Split, Task, get_task
from optevo.training.bench import Bench
from optevo.training.benches import ScoredBench
from optevo.training.single import train

CONFIG = {
    "name": "x",
    "sampler": {"kind": "genetic"},
    "evaluation": {"tasks": ["own:task"], "steps": 4, "batch_size": 5},
}


def config(**evaluation: Any) -> StudyConfig:
    return parse_config({**CONFIG, "evaluation": {**CONFIG["evaluation"], **evaluation}}, "test")


class Regression(Task):
    """A regression as one writes it first: numbers as targets, and nothing else."""

    name = "own"
    targets: tuple[int, ...] = (20,)

    def load(self, root: Path) -> dict[str, Split]:
        x, y = torch.ones(20, 3), torch.full(self.targets, 7.5)
        return dict.fromkeys(("train", "validation", "test"), Split(x, y))

    def model(self, generator: torch.Generator) -> nn.Module:
        return nn.Linear(3, 1)


def rehearsed(task: Any, **evaluation: Any) -> None:
    Bench(config(**evaluation), "cpu", Path(), [task]).rehearse()


def told(changed: dict[str, Any], base: type[Task] = Regression, **evaluation: Any) -> str:
    """What is said of a class with these changes; it names the task and has no second line."""
    with pytest.raises(UserError) as error:
        rehearsed(type("Changed", (base,), changed)(), **evaluation)
    message = str(error.value)
    assert message.startswith("task 'own': ")
    assert "\n" not in message
    return message


def test_a_regression_into_cross_entropy_says_what_came_and_what_to_write():
    message = told({})
    for words in (
        "loss() raised",
        "split 'train' has inputs float32 (20, 3) on cpu and targets float32 (20,) on cpu",
        "a batch of it float32 (5, 3) on cpu and float32 (5,) on cpu",
        "the model returns float32 (5, 1) on cpu",
        'loss = "mse" and metric = "r2"',
    ):
        assert words in message


@pytest.mark.parametrize("shape", [(20, 1), (20, 4)])
def test_numbers_that_cross_entropy_would_take_for_probabilities_are_refused(shape: tuple[int, int]):
    message = told({"targets": shape, "model": lambda self, generator: nn.Linear(3, shape[1])})
    assert "single class" in message or "probabilities" in message
    assert 'loss = "mse"' in message


def test_probabilities_are_taken():
    class Soft(Regression):
        def load(self, root: Path) -> dict[str, Split]:
            split = Split(torch.ones(20, 3), torch.full((20, 4), 0.25))
            return dict.fromkeys(("train", "validation", "test"), split)

        def model(self, generator: torch.Generator) -> nn.Module:
            return nn.Linear(3, 4)

        def score(self, model: nn.Module, split: Split) -> float:
            return 0.5

    rehearsed(Soft())


def test_a_regression_that_says_so_passes():
    class Right(Regression):
        loss, metric, targets = "mse", "r2", (20, 1)

    rehearsed(Right())


def fail(*_: Any) -> Any:
    raise KeyError("age")


def elsewhere(self: Task, generator: torch.Generator) -> nn.Module:
    model = nn.Linear(3, 1)
    model.to = lambda device: model  # type: ignore[method-assign]
    return model.to_empty(device="meta")


NAMED = {"loss": "mse", "metric": "r2", "targets": (20, 1)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"load": fail}, ["load() raised KeyError: 'age'", "test_rehearsal.py, line"]),
        ({"load": lambda self, root: sys.exit(3)}, ["load() raised SystemExit: 3"]),
        ({"load": lambda self, root: [1, 2]}, ["load(): it returned a list"]),
        (
            {"load": lambda self, root: Split(torch.ones(3), torch.ones(4))},
            ["load(): a split has 3 inputs but 4 targets"],
        ),
        (
            {"load": lambda self, root: dict.fromkeys(("train", "validation", "test"), torch.ones(3))},
            ["a Tensor for split 'train'"],
        ),
        ({"model": fail}, ["model() raised KeyError"]),
        ({"model": lambda self, generator: torch.ones(3)}, ["model(): it returned a Tensor"]),
        ({"model": elsewhere}, ["'weight' stays on meta"]),
        (
            {"model": lambda self, generator: nn.Linear(3, 1, device="meta")},
            ["moving the model to cpu raised NotImplementedError"],
        ),
        ({"model": lambda self, generator: nn.Linear(4, 1)}, ["loss() raised RuntimeError", "(5, 3)"]),
        (
            {"model": lambda self, generator: nn.Linear(3, 1).double()},
            ["loss() raised RuntimeError", "float32"],
        ),
        ({"augment": fail}, ["batches() raised KeyError", "split 'train' has inputs"]),
        ({"prepare": fail}, ["batches() raised KeyError"]),
        ({"targets": (20,)}, ["outputs of shape (5, 1)", "the targets have shape (5,)", "loss()"]),
        ({"loss": fail}, ["loss() raised KeyError", "override loss()"]),
        ({"loss": lambda self, model, batch: model(batch[0])}, ["it returned float32 (5, 1) on cpu", "mean"]),
        ({"loss": lambda self, model, batch: 0.5}, ["it returned a float"]),
        ({"loss": lambda self, model, batch: model(batch[0]).detach().sum()}, ["no graph", "detach"]),
        ({"loss": lambda self, model, batch: model(batch[0]).sum() + 99}, ["max_loss, now 50"]),
        ({"loss": lambda self, model, batch: model(batch[0]).sum() * float("nan")}, ["it is nan"]),
        (
            {"metric": "accuracy"},
            ["score(): the model gives classes", "split 'validation'", 'metric = "accuracy"'],
        ),
        ({"metric": "acuracy"}, ["did you mean 'accuracy'"]),
        ({"score": fail}, ["score() raised KeyError", "split 'validation' has inputs"]),
        ({"score": lambda self, model, split: "0.5"}, ["score() returned '0.5', of type str"]),
        ({"score": lambda self, model, split: None}, ["score() returned None"]),
        ({"score": lambda self, model, split: torch.ones(2)}, ["score() returned tensor([1., 1.])"]),
        ({"score": lambda self, model, split: 1j}, ["score() returned 1j"]),
    ],
)
def test_a_fault_is_told_with_its_place(changed: dict[str, Any], words: list[str]):
    message = told({**NAMED, **changed})
    assert all(word in message for word in words), message


def test_the_test_split_is_named_where_it_is_scored():
    assert "split 'test'" in told({**NAMED, "metric": "accuracy"}, split="test")


def test_the_traceback_is_kept_for_the_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    told({"load": fail})
    assert any("in fail" in record.exc_text for record in caplog.records if record.exc_text)


@pytest.mark.parametrize(
    "score", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), Fraction(1, 2), np.int64(1), True]
)
def test_any_kind_of_number_is_a_score(score: Any):
    task = type("Changed", (Regression,), {**NAMED, "score": lambda self, model, split: score})()
    rehearsed(task)
    run = train(task, task.load(Path()), PRESETS["adam"], seed=0, steps=2, batch_size=5)
    assert type(run.metric) is float
    assert run.metric == float(score)


def test_a_score_that_is_no_number_ends_a_search_of_scored_tasks():
    class Scored(ScoredTask):
        name = "own"

        def score(self, candidate: Any, seed: int, steps: int) -> Any:
            return "good"

    bench = ScoredBench(config(), [Scored()], Path())
    with pytest.raises(UserError, match=r"task 'own': score\(\) returned 'good', of type str"):
        bench.run(PRESETS["adam"], 0, 0)


def test_a_load_of_a_scored_task_that_raises_is_told():
    scored = type("Scored", (ScoredTask,), {"name": "own", "load": fail, "score": fail})
    with pytest.raises(UserError, match=r"task 'own': load\(\) raised KeyError"):
        ScoredBench(config(), [scored()], Path())


def test_a_fault_of_our_own_task_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    task = get_task("digits")
    monkeypatch.setattr(task, "model", fail)
    with pytest.raises(KeyError):
        rehearsed(task)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1 / 0\n", "importing wrong raised ZeroDivisionError.*wrong.py, line 1"),
        ("def f(:\n", "importing wrong raised SyntaxError.*wrong.py, line 1"),
        ("import sys\nsys.exit('no data')\n", "importing wrong raised SystemExit: no data"),
        ("from optevo.tasks import Task\nclass f(Task):\n    loss = 'mes'\n", "f: unknown loss 'mes'.*'mse'"),
        (
            "from optevo.tasks import Task\nclass f(Task):\n    name = 'f'\n",
            r"f\(\) raised TypeError.*abstract",
        ),
        ("def f():\n    raise OSError('gone')\n", r"f\(\) raised OSError: gone.*line 2"),
        ("import no_such_dependency\n", "raised ModuleNotFoundError.*no_such_dependency"),
    ],
)
def test_a_module_that_raises_is_told(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wrong.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    with pytest.raises(UserError, match=words) as error:
        get_task("wrong:f")
    assert str(error.value).startswith("task 'wrong:f': ")
    sys.modules.pop("wrong", None)


def test_nothing_of_the_rehearsal_is_left_in_the_global_generator():
    class Drawing(Regression):
        loss, metric, targets = "mse", "r2", (20, 1)

        def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return inputs + torch.randn_like(inputs)

    before = torch.random.get_rng_state()
    rehearsed(Drawing())
    assert torch.equal(torch.random.get_rng_state(), before)
