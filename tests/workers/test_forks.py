"""Tasks that fork: the child ends where it leaves the task, whichever way, and the search does not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import create

from optevo import keys
from optevo.storage.opening import open_storage
from optevo.study.studies import is_complete, load_study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork")

# Each call forks; the child leaves the task in one of these ways, and the parent notes how it ended.
MODULE = """
import asyncio, json, os, signal, sys
from optevo.tasks import ScoredTask
from optevo.errors import UserError

LEAVES = [
    lambda: 0.5, lambda: sys.exit(), lambda: sys.exit(3), lambda: sys.exit("a word"),
    lambda: throw(LookupError("lost")),
    lambda: os._exit(4), lambda: throw(KeyboardInterrupt()),
    lambda: throw(UserError("of the child")),
    lambda: throw(asyncio.CancelledError()), lambda: os.kill(os.getpid(), signal.SIGTERM) or signal.pause(),
]
calls, worker = [], os.getpid()

def throw(error):
    raise error

def fork(value):
    if os.getpid() != worker:  # a child that trained its last step to the end
        return value
    way = LEAVES[len(calls) % len(LEAVES)]
    calls.append(way)
    if (child := os.fork()) == 0:
        return way()
    with open(os.environ["TEST_NOTES"], "a") as notes:
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), file=notes)
    return value

class Forking(ScoredTask):
    name = "forking"

    def score(self, candidate, seed, steps):
        return fork(1.0 - candidate.lr)
"""
TRAINED = """
import torch
from torch import nn
from optevo.tasks import Split, Task, build

class Training(Task):
    name = "training"

    def load(self, root):
        x = torch.arange(256.0).view(256, 1) / 256
        return {name: Split(x, torch.zeros(256)) for name in ("train", "validation", "test")}

    def model(self, generator):
        return build(lambda: nn.Linear(1, 1), generator)

    def loss(self, model, batch):
        loss = model(batch[0]).square().mean()
        here = fork(0.0)
        return loss + here if isinstance(here, float) else here

    def score(self, model, split):
        return fork(0.5)
"""
WORK = """
import os, pathlib, sys
from optevo.workers.worker import work
work(sys.argv[1], "one", device="cpu", data_root=pathlib.Path(), parent=os.getppid())
"""
STATUSES = [1, 0, 3, 1, 1, 4, 1, 1, 1, -15]
SECONDS = 120


def search(folder: Path, task: str, **changes: Any) -> tuple[optuna.Study, list[int], str]:
    """A study that one worker has worked on: how it lies there, how children ended, and what was printed."""
    (folder / "forks.py").write_text(MODULE + TRAINED * (task == "Training"))
    url, notes = f"sqlite:///{folder / 'a.db'}", folder / "notes.txt"
    sys.path.insert(0, str(folder))
    try:
        create(url, **changes, evaluation__tasks=[f"forks:{task}"], evaluation__gate=False)
    finally:
        sys.path.remove(str(folder))
    env = {**os.environ, "TEST_NOTES": str(notes)}
    worker = subprocess.run(
        [sys.executable, "-c", WORK, url],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert worker.returncode == 0, worker.stderr
    ended = [json.loads(line) for line in notes.read_text().splitlines()]
    return load_study(open_storage(url), "one")[0], ended, worker.stderr


RANDOM = {"kind": "random", "n_trials": 3}
GROUP = {"steps": 8, "seeds": [0], "pruner": "none", "batch_candidates": 3}


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        pytest.param("Forking", {}, id="scored"),
        pytest.param("Training", {"sampler": RANDOM}, id="trained", marks=pytest.mark.slow),
        pytest.param(
            "Training", {"sampler": RANDOM, "evaluation": GROUP}, id="in a group", marks=pytest.mark.slow
        ),
    ],
)
def test_a_child_ends_where_it_leaves_the_task_and_the_trial_is_its_parents(
    tmp_path: Path, task: str, changes: dict[str, Any]
):
    study, ended, printed = search(tmp_path, task, **changes)
    assert is_complete(study)
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    slots = [(trial.user_attrs[keys.GENERATION], trial.user_attrs[keys.SLOT]) for trial in study.trials]
    assert len(slots) == len(set(slots))
    assert len(ended) > len(STATUSES)
    assert ended == [STATUSES[i % len(STATUSES)] for i in range(len(ended))]
    assert "left the task as if it were its parent; it is ended" in printed
    assert "left the task by LookupError: lost; it is ended" in printed
    assert "Traceback" not in printed
