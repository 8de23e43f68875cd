"""One worker process's loop, in this process: what it outlives, and what ends it."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import create

from optevo import keys
from optevo.errors import UserError
from optevo.samplers import base
from optevo.storage.errors import StorageUnreachable
from optevo.storage.opening import open_storage
from optevo.study.studies import counted, is_complete, load_study
from optevo.workers import worker
from optevo.workers.pool import EXIT_TERMINATED
from optevo.workers.worker import TaskBrokenError, work

TASK = """
import asyncio, os, signal
import optuna
from optuna.trial import TrialState
from optevo.storage.opening import open_storage
from optevo.study.studies import load_study
from optevo.errors import UserError
from optevo.tasks import ScoredTask

calls = []

class Odd(ScoredTask):
    name = "odd"

    def score(self, candidate, seed, steps):
        calls.append(candidate)
        {body}
        return 1.0 - candidate.lr
"""
# As another process does that takes this worker for dead.
TAKEN = """if len(calls) == 3:
            study = load_study(open_storage(os.environ["TEST_URL"]), "one")[0]
            (running,) = study.get_trials(states=(TrialState.RUNNING,))
            study.tell(running.number, state=TrialState.FAIL)"""
CANCELLED = "if len(calls) == 3: raise asyncio.CancelledError"
NO_DATA = "if len(calls) == 3: raise UserError('the data is missing')"
STOPPED = "if len(calls) == 3: os.kill(os.getpid(), signal.SIGTERM)"
NO_DISK = "raise OSError('no such disk')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for a task's module, with signals and logging as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEST_URL", f"sqlite:///{tmp_path / 'a.db'}")
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    verbosity, path = optuna.logging.get_verbosity(), [*sys.path]
    yield tmp_path
    optuna.logging.set_verbosity(verbosity)
    sys.path[:] = path
    for number, handler in before.items():
        signal.signal(number, handler)


def run(folder: Path, body: str, *, limit: int | None = None) -> optuna.Study:
    module = f"odd_{zlib.crc32(body.encode())}"
    (folder / f"{module}.py").write_text(TASK.replace("{body}", body))
    url = os.environ["TEST_URL"]
    create(url, evaluation__tasks=[f"{module}:Odd"], evaluation__gate=False)
    try:
        work(url, "one", device="cpu", data_root=folder, parent=os.getppid(), limit=limit)
    finally:
        sys.modules.pop(module, None)
    return left()


def left() -> optuna.Study:
    """The study as it lies in the database."""
    return load_study(open_storage(os.environ["TEST_URL"]), "one")[0]


def test_a_worker_whose_trial_was_given_away_goes_on_with_others(folder: Path, caplog):
    study = run(folder, TAKEN)
    assert is_complete(study)
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    assert "taken for dead" in caplog.text


def test_a_task_that_raises_what_ends_processes_ends_its_trial_only(folder: Path):
    study = run(folder, CANCELLED)
    assert is_complete(study)
    (failed,) = (t for t in study.trials if t.state == TrialState.FAIL)
    assert "CancelledError" in keys.ours(failed)[keys.ERROR]


def test_a_worker_in_which_trial_after_trial_fails_gives_up(folder: Path):
    with pytest.raises(TaskBrokenError, match="3 slots running"):
        run(folder, NO_DISK)
    assert [t.state for t in left().trials] == [TrialState.FAIL] * 3


def test_a_fault_that_the_user_is_to_mend_ends_the_worker(folder: Path):
    with pytest.raises(UserError, match="the data is missing"):
        run(folder, NO_DATA)
    assert [t.state for t in left().trials] == [TrialState.COMPLETE] * 2 + [TrialState.FAIL]


def test_a_worker_that_is_asked_to_stop_says_so_by_its_status_and_loses_nothing(folder: Path):
    with pytest.raises(SystemExit) as ended:
        run(folder, STOPPED)
    assert ended.value.code == EXIT_TERMINATED
    study = left()
    assert not is_complete(study)
    assert study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)) == []
    assert counted(study) == 3  # the score that the signal met is kept


def test_a_storage_that_does_not_answer_yet_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def late(*args: Any, **options: Any) -> object:
        calls.append(args)
        if len(calls) < 3:
            raise StorageUnreachable("not yet")
        return open_storage(*args, **options)

    monkeypatch.setattr(worker, "open_storage", late)
    assert counted(run(folder, "pass", limit=1)) == 1
    assert len(calls) == 3


def test_a_worker_ends_at_its_limit(folder: Path):
    assert counted(run(folder, "pass", limit=4)) == 4


def test_a_fault_between_two_trials_is_not_taken_for_a_trial_given_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = base.claim, []

    def faulty(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise ValueError("a fault of ours")
        return real(*args, **options)

    monkeypatch.setattr(base, "claim", faulty)
    with pytest.raises(ValueError, match="a fault of ours"):
        run(folder, "pass")
