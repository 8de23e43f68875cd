"""Signals and forks: whose they are, and that everything is as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from optevo.liveness import processes
from optevo.liveness.processes import STOPS, OwnProcess, StopRequests, handling
from optevo.workers.supervisor import terminable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")


@pytest.fixture
def callers() -> Iterator[list[int]]:
    """Handlers of whoever calls the library; what they have received."""
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    before = {s: signal.signal(s, handle) for s in STOPS}
    yield received
    for signum, old in before.items():
        signal.signal(signum, old)


def in_child(call: Callable[[], Any]) -> int:
    """The status of a forked process that does this, and 99 where it outlives it."""
    if (child := os.fork()) == 0:
        try:
            call()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_callers_handlers_are_back_after_the_block_however_it_ends(callers: list[int]):
    ours: list[int] = []
    for error in (ValueError(), KeyboardInterrupt(), SystemExit(3)):
        with contextlib.suppress(type(error)), handling(lambda signum, frame: ours.append(signum), *STOPS):
            os.kill(os.getpid(), signal.SIGTERM)
            raise error
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert ours == [signal.SIGTERM] * 3
    assert callers == [signal.SIGTERM, signal.SIGINT] * 3


def test_blocks_within_blocks_give_back_in_turn(callers: list[int]):
    ours: list[str] = []
    with handling(lambda signum, frame: ours.append("outer"), signal.SIGTERM):
        with handling(lambda signum, frame: ours.append("inner"), signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert ours == ["inner", "outer"]
    assert callers == [signal.SIGTERM]
    assert processes._replaced == []


def test_outside_the_main_thread_nothing_is_installed(callers: list[int]):
    ours, errors = [], []

    def call() -> None:
        try:
            with handling(lambda signum, frame: ours.append(signum), *STOPS), terminable():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert (ours, errors, callers) == ([], [], [signal.SIGTERM])


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signal, "getsignal", lambda signum: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("it could not be put back"))
    with handling(lambda signum, frame: None, *STOPS):
        pass


def test_a_forked_child_has_the_handlers_that_ours_replaced(callers: list[int]):
    with handling(lambda *_: os._exit(1), *STOPS), handling(lambda *_: os._exit(2), signal.SIGTERM):
        assert in_child(lambda: os.kill(os.getpid(), signal.SIGTERM) or os._exit(len(callers))) == 1
        assert in_child(lambda: os._exit(len(processes._replaced))) == 0
    assert callers == []


def test_sigterm_interrupts_once(callers: list[int]):
    cleaned_up = False
    with contextlib.suppress(KeyboardInterrupt), terminable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # once more, as Slurm may
            cleaned_up = True
    assert cleaned_up
    os.kill(os.getpid(), signal.SIGTERM)
    assert callers == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("times", "new"),
    [
        ([(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.001), (signal.SIGTERM, 1.0)], [True, False, False]),
        ([(signal.SIGTERM, 0.0), (signal.SIGTERM, 5.0)], [True, True]),
        ([(signal.SIGINT, 0.0), (signal.SIGINT, 0.3)], [True, True]),
        ([(signal.SIGINT, 0.0), (signal.SIGINT, 0.01)], [True, False]),
        ([(signal.SIGINT, 0.0), (signal.SIGTERM, 0.01)], [True, False]),
        ([(signal.SIGTERM, 0.0), (signal.SIGINT, 0.5)], [True, True]),
    ],
    ids=["SIGTERM at once", "SIGTERM later", "Ctrl-C twice", "a SIGINT passed on", "both", "Ctrl-C after it"],
)
def test_a_repeat_is_no_other_request(
    monkeypatch: pytest.MonkeyPatch, times: list[tuple[signal.Signals, float]], new: list[bool]
):
    requests, found = StopRequests(), []
    for signum, at in times:
        monkeypatch.setattr(processes.time, "monotonic", lambda at=at: 1000.0 + at)
        found.append(requests.is_new(signum))
    assert found == new


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 1, "as if it were its parent"),
        (SystemExit(), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit("why"), 1, ""),
        (ValueError("odd \udcff"), 1, "by ValueError: odd \\udcff"),
        (KeyboardInterrupt(), 1, "by KeyboardInterrupt"),
    ],
    ids=["by returning", "sys.exit()", "sys.exit(7)", "sys.exit(str)", "an exception", "an interrupt"],
)
def test_a_fork_ends_where_it_leaves_the_block(error: BaseException | None, status: int, said: str, capfd):
    def leave() -> None:
        with own:
            if error is not None:
                raise error

    with OwnProcess() as own:
        assert in_child(leave) == status
    printed = capfd.readouterr().err
    assert said in printed
    assert bool(printed) == bool(said)


def test_a_guarded_function_is_called_in_its_process_alone():
    with OwnProcess() as own:
        guarded = own.guard(lambda *args, **kwargs: (args, kwargs))
        assert guarded(1, two=2) == ((1,), {"two": 2})
        assert in_child(lambda: guarded(1)) == 1
    own.check()
