"""Watching workers from the process that started them: progress, signals, and trials that lost theirs."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn, Protocol

import optuna
from rich.console import Console, RenderableType

from optevo.errors import RunFailed, UserError
from optevo.live import live
from optevo.liveness.lost import LOOK_SECONDS, LivenessMonitor, fail_lost_trials
from optevo.liveness.processes import STOPS, OwnProcess, StopRequests, handling
from optevo.storage.errors import StorageUnreachable
from optevo.study.studies import is_complete
from optevo.workers.pool import EXIT_TERMINATED, EXIT_USER_ERROR, WorkerExit, WorkerPool

_POLL_SECONDS = 0.5
_LEAVE_SECONDS = 60.0  # for workers to see that the search is complete
_CRASH_LINES = 5  # of its output that are shown of a worker that crashed and is replaced
_CAUSES = (
    "a task, or a library that it uses, calls os._exit or crashes, or the system kills what takes most memory"
)


class Progress(Protocol):
    """How a search stands, to be shown while it is watched.

    Attributes:
        counted: Finished trials at the last look.
    """

    counted: int

    def lines(self) -> list[str]:
        """Look, and tell what is new."""
        ...

    def table(self) -> RenderableType:
        """Look, and show all."""
        ...


def watch(
    study: optuna.Study,
    pool: WorkerPool,
    console: Console,
    progress: Progress,
    stopped: list[int],
    *,
    tend: Callable[[], None] = lambda: None,
) -> bool:
    """Watch the workers until they have ended.

    Args:
        study: The study they work on; lost trials are failed meanwhile.
        pool: The workers; nothing of it is left afterwards.
        console: Where to print.
        progress: What to show.
        stopped: SIGINT and SIGTERM are noted here as they come.
        tend: Called as often as `progress` looks, until a stop is requested. Default: nothing.

    Returns:
        Whether a stop was requested.

    Raises:
        UserError: The workers refused to go on, and have said why.
        RunFailed: They died, and have said why, before the search was complete.
    """
    monitor, looked, advanced = LivenessMonitor(), time.monotonic(), time.monotonic()
    failed: list[WorkerExit] = []
    with _forwarded_signals(pool, console, stopped), display(console, progress) as show:
        while pool.working:
            time.sleep(_POLL_SECONDS)
            ended = pool.tend(progress.counted)  # before any question to the database, which may have to wait
            _tell_replaced(console, ended)
            failed += [one for one in ended if _is_failure(one, bool(stopped))]
            try:
                show()
                if not stopped:
                    tend()
                if ended or time.monotonic() - looked >= LOOK_SECONDS:
                    fail_lost_trials(study, monitor)
                    looked = time.monotonic()
                    advanced = advanced if is_complete(study) else looked
            except StorageUnreachable:
                if not stopped:
                    raise
            # Others may have completed it, while a cluster has no worker here that could find it out.
            if time.monotonic() - advanced > _LEAVE_SECONDS:
                break
        if not stopped:
            show()
    for one in failed:
        console.print(f"{one.name} {_how(one)}:")
        _print_tail(console, one)
    if not stopped and failed and not is_complete(study):
        _raise_for(failed)
    return bool(stopped)


def _raise_for(failed: list[WorkerExit]) -> NoReturn:
    crashed = [one for one in failed if one.crashed]
    if not crashed and all(one.status == EXIT_USER_ERROR for one in failed):
        raise UserError("the workers could not go on; see above")
    why = "workers died, see above"
    if crashed:
        last = crashed[-1]
        why = f"worker after worker was lost, the last so: {last.name} {_how(last)}; perhaps {_CAUSES}"
    raise RunFailed(f"{why}; nothing is lost, the same command goes on")


def _tell_replaced(console: Console, ended: list[WorkerExit]) -> None:
    for one in ended:
        if one.replaced:
            console.print(f"{one.name} {_how(one)}; another takes its place")
            if one.crashed and one.status >= 0:  # else there was no time for last words
                _print_tail(console, one, _CRASH_LINES)


def _is_failure(ended: WorkerExit, stopped: bool) -> bool:
    """Whether there is something to tell of a worker's end; one that is being stopped may well be killed."""
    if ended.replaced or (stopped and (ended.status < 0 or ended.status == EXIT_TERMINATED)):
        return False
    return ended.crashed or ended.status != 0


def _how(ended: WorkerExit) -> str:
    if ended.crashed and ended.status >= 0:
        return f"ended with status {ended.status} before it was done"
    if ended.status == EXIT_TERMINATED:
        return "was asked to stop, by a signal from elsewhere"
    return f"ended with status {ended.status}"


def _print_tail(console: Console, ended: WorkerExit, lines: int | None = None) -> None:
    tail = ended.output_tail.strip("\n").split("\n")
    if any(tail):
        console.print("\n".join(tail if lines is None else tail[-lines:]), highlight=False, markup=False)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt within the block, as Ctrl-C does; its repeats do nothing."""
    requests = StopRequests()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if requests.is_new(signum):
            raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM):
        yield


@contextlib.contextmanager
def trying_tasks() -> Iterator[None]:
    """For a user's tasks in the command's own process: one that forks leaves no second command behind.

    Raises:
        UserError: One calls `sys.exit`, whose status is none of the command's.
    """
    try:
        with OwnProcess():
            yield
    except SystemExit as end:
        raise UserError(f"a task called sys.exit({end}) when it was made or tried") from end


@contextlib.contextmanager
def _forwarded_signals(pool: WorkerPool, console: Console, received: list[int]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the workers, once, and wait for them; another request kills."""
    requests = StopRequests()

    def handle(signum: int, frame: FrameType | None) -> None:
        if not requests.is_new(signum):
            return
        pool.stop()
        if not received:
            console.print("stopping; what is finished stays recorded (once more kills)")
        received.append(signum)

    with handling(handle, *STOPS):
        try:
            yield
        finally:
            pool.close()  # at once where all have ended


@contextlib.contextmanager
def display(console: Console, progress: Progress) -> Iterator[Callable[[], None]]:
    """A live table on a terminal or in a notebook, else plain lines; yields what to call now and then."""
    # A dumb terminal can move no cursor, so it isn't interactive.
    if not (console.is_interactive or console.is_jupyter):

        def lines() -> None:
            for line in progress.lines():
                console.print(line, highlight=False)

        yield lines
        return
    with live(console, progress.table()) as show:
        yield lambda: show(progress.table())
