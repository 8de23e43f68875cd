"""Watching workers from the process that started them: progress, signals, and trials that lost theirs."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

import optuna
from rich.console import Console, RenderableType
from rich.live import Live

from optevo.errors import RunFailed, UserError
from optevo.liveness.lost import LOOK_SECONDS, LivenessMonitor, fail_lost_trials
from optevo.storage.errors import StorageUnreachable
from optevo.study.studies import is_complete
from optevo.workers.pool import EXIT_TERMINATED, EXIT_USER_ERROR, WorkerExit, WorkerPool

_POLL_SECONDS = 0.5
_LEAVE_SECONDS = 60.0  # for workers to see that the search is complete


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
    study: optuna.Study, pool: WorkerPool, console: Console, progress: Progress, stopped: list[int]
) -> bool:
    """Watch the workers until they have ended.

    Args:
        study: The study they work on; lost trials are failed meanwhile.
        pool: The workers; nothing of it is left afterwards.
        console: Where to print.
        progress: What to show.
        stopped: SIGINT and SIGTERM are noted here as they come.

    Returns:
        Whether a stop was requested.

    Raises:
        UserError: The workers refused to go on, and have said why.
        RunFailed: They died, and have said why, before the search was complete.
    """
    monitor, looked, advanced = LivenessMonitor(), time.monotonic(), time.monotonic()
    failed: list[WorkerExit] = []
    with _forwarded_signals(pool, console, stopped), _display(console, progress) as show:
        while pool.working:
            time.sleep(_POLL_SECONDS)
            ended = pool.tend(progress.counted)  # before any question to the database, which may have to wait
            for one in ended:
                if one.replaced:
                    console.print(f"{one.name} ended with status {one.status}; another takes its place")
            failed += [one for one in ended if not one.replaced and one.status not in (0, EXIT_TERMINATED)]
            try:
                show()
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
        console.print(f"{one.name} ended with status {one.status}:")
        console.print(one.output_tail, highlight=False)
    if stopped:
        return True
    if failed and not is_complete(study):
        if all(one.status == EXIT_USER_ERROR for one in failed):
            raise UserError("the workers could not go on; see above")
        raise RunFailed("workers died, see above; nothing is lost, the same command goes on")
    return False


@contextlib.contextmanager
def _forwarded_signals(pool: WorkerPool, console: Console, received: list[int]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the workers, once, and wait for them; a second one kills."""

    def handle(signum: int, frame: FrameType | None) -> None:
        pool.stop()
        if not received:
            console.print("stopping; what is finished stays recorded (once more kills)")
        received.append(signum)

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
        pool.close()  # at once where all have ended


@contextlib.contextmanager
def _display(console: Console, progress: Progress) -> Iterator[Callable[[], None]]:
    """A live table on a terminal, plain lines elsewhere; yields what to call now and then."""
    if not console.is_terminal:

        def lines() -> None:
            for line in progress.lines():
                console.print(line, highlight=False)

        yield lines
        return
    with Live(progress.table(), console=console, auto_refresh=False) as live:
        yield lambda: live.update(progress.table(), refresh=True)
