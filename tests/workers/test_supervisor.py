"""What `optevo run` makes of how its workers ended."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console
from small_studies import config, create, finish

from optevo.errors import RunFailed, UserError
from optevo.liveness.processes import STOPS
from optevo.reporting.progress import SearchProgress
from optevo.run import run
from optevo.workers import supervisor
from optevo.workers.pool import EXIT_TASK_BROKEN, EXIT_TERMINATED, EXIT_USER_ERROR, WorkerExit
from optevo.workers.supervisor import watch


class Script:
    """A pool whose workers end as written, one a call."""

    def __init__(self, *statuses: int, for_ever: bool = False) -> None:
        self.ends = [WorkerExit(f"worker {i}", status, f"output {i}") for i, status in enumerate(statuses)]
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
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.01)


@pytest.fixture
def study(quiet_optuna: None) -> optuna.Study:
    return create(InMemoryStorage())


def see(study: optuna.Study, pool: Script, *, terminal: bool = False) -> tuple[bool, str]:
    console = Console(record=True, width=200, force_terminal=terminal, file=io.StringIO())
    try:
        return watch(study, pool, console, SearchProgress(study, config()), []), console.export_text()
    finally:
        assert pool.closed


def test_workers_that_refuse_are_the_users_to_mend(study: optuna.Study):
    with pytest.raises(UserError, match="could not go on"):
        see(study, Script(EXIT_USER_ERROR, EXIT_USER_ERROR))


@pytest.mark.parametrize("status", [1, EXIT_TASK_BROKEN, -9])
def test_workers_that_died_for_good_are_a_failure_without_our_traceback(study: optuna.Study, status: int):
    with pytest.raises(RunFailed, match="the same command goes on"):
        see(study, Script(0, status))


def test_a_worker_whose_process_a_task_ended_is_no_refusal_and_no_success(study: optuna.Study):
    for status in (0, EXIT_USER_ERROR, EXIT_TERMINATED):
        pool = Script(0)
        pool.ends = [WorkerExit("worker 7", status, "last words", crashed=True)]
        with pytest.raises(RunFailed, match=f"worker 7 ended with status {status} before .* os._exit"):
            see(study, pool)


def test_workers_that_something_else_stops_again_and_again_are_no_success(study: optuna.Study):
    with pytest.raises(RunFailed, match="the same command goes on"):
        see(study, Script(EXIT_TERMINATED))


def test_of_a_worker_that_crashed_and_is_replaced_the_last_lines_are_shown(study: optuna.Study):
    finish(study)
    pool = Script(0)
    tail = "".join(f"line {i} [/]\n" for i in range(10))
    pool.ends = [WorkerExit("worker 7", 0, tail, replaced=True, crashed=True)]
    shown = see(study, pool)[1]
    assert "worker 7 ended with status 0 before it was done; another takes its place" in shown
    assert "line 9 [/]" in shown
    assert "line 4 [/]" not in shown


def test_what_a_dead_worker_said_is_shown(study: optuna.Study):
    finish(study)
    assert "output 1" in see(study, Script(0, 1))[1]


def test_workers_that_ended_since_the_search_is_complete_are_no_failure(study: optuna.Study):
    finish(study)
    assert see(study, Script(0, EXIT_TERMINATED, 0))[0] is False


def test_a_pool_that_never_ends_is_left_once_others_have_completed_the_search(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "_LEAVE_SECONDS", 0.2)
    finish(study)
    assert see(study, Script(for_ever=True))[0] is False


@pytest.mark.parametrize("terminal", [False, True])
def test_a_signal_stops_the_workers_and_is_told(study: optuna.Study, terminal: bool):
    class Signalled(Script):
        def tend(self, counted: int) -> list[WorkerExit]:
            if not self.closed and self.for_ever:
                os.kill(os.getpid(), signal.SIGINT)
            return []

    before = signal.getsignal(signal.SIGINT)
    stopped, shown = see(study, Signalled(for_ever=True), terminal=terminal)
    assert stopped
    assert shown.count("stopping; what is finished stays recorded") == 1
    assert ("trials" in shown) == terminal
    assert signal.getsignal(signal.SIGINT) == before


def test_a_worker_that_was_replaced_is_told_of_without_its_output(study: optuna.Study):
    finish(study)
    pool = Script(0)
    pool.ends = [WorkerExit("worker 7", -9, "its output", replaced=True)]
    shown = see(study, pool)[1]
    assert "worker 7 ended with status -9; another takes its place" in shown
    assert "its output" not in shown


@pytest.fixture
def fruitless(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, quiet_optuna: None
) -> Callable[[], None]:
    """A run whose workers end, with nothing done."""
    monkeypatch.setattr("optevo.workers.launcher.Launcher._pool", lambda *_, **__: Script(0))
    options: dict[str, Any] = {"workers": 1, "device": "cpu", "data_root": tmp_path}
    return lambda: run(
        config(), storage_url=f"sqlite:///{tmp_path / 'a.db'}", console=Console(quiet=True), **options
    )


def test_workers_that_leave_without_a_word_are_no_success(fruitless: Callable[[], None]):
    with pytest.raises(RunFailed, match="before the search was complete"):
        fruitless()


def test_a_run_gives_its_callers_signal_handlers_back(fruitless: Callable[[], None]):
    received: list[int] = []
    before = {s: signal.signal(s, lambda signum, frame: received.append(signum)) for s in STOPS}
    try:
        with pytest.raises(RunFailed):
            fruitless()
        for number in STOPS:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert received == [*STOPS]


def test_a_run_in_another_thread_does_without_handlers(fruitless: Callable[[], None]):
    with ThreadPoolExecutor() as threads:
        assert isinstance(threads.submit(fruitless).exception(), RunFailed)


def test_a_task_that_exits_when_it_is_tried_is_a_fault_of_its_own(
    fruitless: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("optevo.run.make_bench", lambda *_: sys.exit(0))
    with pytest.raises(UserError, match=r"a task called sys.exit\(0\)"):
        fruitless()
