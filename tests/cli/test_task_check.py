"""`optevo task check`: its table, its JSON, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("here")

RINGS = """
import torch
from torch import nn
from optevo.tasks import Split, Task, build

class Rings(Task):
    name = "rings"

    def load(self, root):
        x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        parts = {"train": x[:200], "validation": x[200:250], "test": x[250:]}
        return {name: Split(9 * x, (x[:, 0] > 0).long()) for name, x in parts.items()}

    def model(self, generator):
        return build(lambda: nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 2)), generator)

class Faulty(Rings):
    name = "faulty"

    def loss(self, model, batch):
        return model(batch[0], batch[1])
"""
STUDY = """
name = "s"
sampler = { kind = "random", n_trials = 4 }
evaluation = { tasks = ["circles:Rings", "circles:Faulty"], batch_size = 50 }
"""


@pytest.fixture(autouse=True)
def _files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("circles.py").write_text(RINGS)
    Path("s.toml").write_text(STUDY)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(__import__("sys").modules, "circles", raising=False)


def test_a_good_task_exits_with_0(optevo):
    answer = optevo(
        "task", "check", "circles:Rings", "--steps", "20", "--device", "cpu", "--batch-size", "50"
    )
    assert answer.status == 0, answer
    assert "200 + 50 + 50 examples in train, validation, test" in answer.out
    assert answer.out.endswith("rings: nothing is wrong\n")


def test_a_fault_exits_with_1_and_says_where_it_is(optevo):
    answer = optevo("task", "check", "s.toml", "--only", "faulty", "--json", "--device", "cpu")
    assert answer.status == 1, answer
    rows = json.loads(answer.out)
    assert [*rows] == ["faulty"]
    (wrong,) = [row for row in rows["faulty"] if row["verdict"] == "wrong"]
    assert wrong["check"] == "first step"
    assert (
        f"circles.py, line {1 + RINGS[: RINGS.index('batch[0], batch[1]')].count(chr(10))}" in wrong["found"]
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["circles:Ring"], "did you mean 'Rings'?"),
        (["rings"], "unknown task 'rings'"),
        (["nothing.toml"], "no study file nothing.toml"),
        (["s.toml", "--only", "ring"], "s.toml has no task 'ring', but rings, faulty"),
        (["digits", "--only", "digits"], "--only chooses among the tasks of a study file"),
    ],
)
def test_a_name_that_is_none_exits_with_2(optevo, words: list[str], said: str):
    answer = optevo("task", "check", *words)
    assert answer.status == 2, answer
    assert said in answer.err
