"""What `optevo run` makes of how its workers ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from small_studies import config, create, finish

from optevo.errors import RunFailed, UserError
from optevo.reporting.progress import Progress
from optevo.workers import supervisor as watching
from optevo.workers.local_pool import EXIT_TASK_BROKEN, EXIT_TERMINATED, EXIT_USER_ERROR, WorkerExit
from optevo.workers.supervisor import watch


class Script:
    """A pool whose workers end as written, one a call."""

    def __init__(self, *statuses: int, for_ever: bool = False) -> None:
        self.ends = [WorkerExit(f"worker {i}", status, f"words {i}") for i, status in enumerate(statuses)]
        self.for_ever = for_ever
        self.closed = False

    def tend(self, counted: int) -> list[WorkerExit]:
        return [self.ends.pop(0)] if self.ends else []

    @property
    def working(self) -> bool:
        return bool(self.ends) or self.for_ever

    def stop(self) -> None:
        self.for_ever = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_SECONDS", 0.01)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return create(f"sqlite:///{tmp_path / 'a.db'}")


def see(study: optuna.Study, pool: Script) -> tuple[bool, str]:
    console = Console(record=True, width=200)
    try:
        return watch(study, pool, console, Progress(study, config()), []), console.export_text()
    finally:
        assert pool.closed


def test_workers_that_refuse_are_the_users_to_mend(study: optuna.Study):
    with pytest.raises(UserError, match="could not go on"):
        see(study, Script(EXIT_USER_ERROR, EXIT_USER_ERROR))


@pytest.mark.parametrize("status", [1, EXIT_TASK_BROKEN, -9])
def test_workers_that_died_for_good_are_a_failure_without_our_traceback(study: optuna.Study, status: int):
    with pytest.raises(RunFailed, match="the same command goes on"):
        see(study, Script(0, status))


def test_what_a_dead_worker_said_is_shown(study: optuna.Study):
    finish(study)
    assert "words 1" in see(study, Script(0, 1))[1]


def test_workers_that_ended_since_the_search_is_complete_are_no_failure(study: optuna.Study):
    finish(study)
    assert see(study, Script(0, EXIT_TERMINATED, 0))[0] is False


def test_a_crew_that_never_ends_is_left_once_others_have_completed_the_search(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "_FAREWELL_SECONDS", 0.2)
    finish(study)
    assert see(study, Script(for_ever=True))[0] is False


TASK = """
import os
from optevo.tasks import ScoredTask

class Quitter(ScoredTask):
    name = "quitter"

    def score(self, candidate, seed, steps):
        os._exit(0)
"""


def test_workers_that_leave_without_a_word_are_no_success(tmp_path: Path):
    (tmp_path / "quitting.py").write_text(TASK)
    (tmp_path / "q.toml").write_text(
        'name = "q"\n[sampler]\nkind = "random"\nn_trials = 4\n'
        '[evaluation]\ntasks = ["quitting:Quitter"]\ngate = false\n'
    )
    command = [sys.executable, "-m", "optevo", "run", "q.toml", "--workers", "1"]
    env = {**os.environ, "OPTEVO_STORAGE": "sqlite:///q.db"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "before the search was complete" in done.stderr
    assert "Traceback" not in done.stderr
