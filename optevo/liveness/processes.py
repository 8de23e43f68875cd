"""What a process does when its parent has gone, when it is a task's fork, and when it is asked to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

import psutil

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]
STOPS = (signal.SIGINT, signal.SIGTERM)
# Slurm, systemd and `timeout` signal every process of a group, and those that pass signals on make two of
# one: so soon after another, it is the same request. Ctrl-C twice is two.
_REPEAT_SECONDS = {signal.SIGTERM: 2.0, signal.SIGINT: 0.1}


def orphaned(parent: int) -> bool:
    """Whether process `parent`, which started this one, has gone; always false where children aren't told."""
    return os.name != "nt" and os.getppid() != parent


def die_with_parent() -> None:
    """Have the system kill this process when the thread that started it ends: Linux does that, even to one
    that stands still, perhaps with a database's lock in its hands. Elsewhere, see `when_orphaned`.
    """
    if psutil.LINUX:
        set_parent_death_signal = 1  # of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


def when_orphaned(parent: int, action: Callable[[], None]) -> None:
    """Call `action`, from another thread, once process `parent` has gone, however it ended."""

    def watch() -> None:
        while not orphaned(parent) and psutil.pid_exists(parent):
            time.sleep(1)
        action()

    threading.Thread(target=watch, daemon=True).start()


class OwnProcess:
    """Ends a process that a task has forked, at once, where it comes back into our code.

    Such a child holds its parent's trial, locks and connections to the database, which are good for one
    process. A context manager: whatever leaves the block in another process than entered it ends that.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.check(error)

    def check(self, error: BaseException | None = None) -> None:
        """End this process if it is another one; with its own status where `error` is its `sys.exit`."""
        if os.getpid() == self.pid:
            return
        status = 1
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            how = f"by {type(error).__name__}: {error}" if error is not None else "as if it were its parent"
            message = f"process {os.getpid()}, which a task forked, left the task {how}; it is ended\n"
            with contextlib.suppress(OSError):  # past Python's streams, whose locks another thread may hold
                os.write(2, message.encode(errors="backslashreplace"))
        os._exit(status & 0xFF)

    def guard(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, for a task's code to call back: only ever called in this process."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            self.check()
            return function(*args, **kwargs)

        return guarded


class StopRequests:
    """Tells signals that ask to stop from repeats of the one before."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_new(self, signum: int) -> bool:
        """Whether the signal that has just come is a request of its own."""
        before, self._last = self._last, time.monotonic()
        return self._last - before > _REPEAT_SECONDS[signal.Signals(signum)]


_replaced: list[dict[int, Any]] = []  # handlers in whose place ours are, the last replaced last


def install(handler: Handler, *signums: int) -> dict[int, Any]:
    """Handle signals for as long as the process lives; what handled them before does so in forked children,
    which others may want to end. Nothing happens outside the main thread.

    Returns:
        The handlers before, by signal; without those that are not Python's and could not be put back.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {s: old for s in signums if (old := signal.getsignal(s)) is not None}
    _replaced.append(before)
    for signum in before:
        signal.signal(signum, handler)
    return before


@contextlib.contextmanager
def handling(handler: Handler, *signums: int) -> Iterator[None]:
    """`install` for the block alone: the handlers before are put back, whatever happens."""
    before = install(handler, *signums)
    try:
        yield
    finally:
        if before:
            _replaced.remove(before)
        for signum, old in before.items():
            signal.signal(signum, old)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block; processes that are started in it inherit that."""
    if os.name == "nt":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """In a process that was started within `signals_held`: let them come."""
    if os.name != "nt":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _forked() -> None:
    for before in reversed(_replaced):
        for signum, old in before.items():
            signal.signal(signum, old)
    _replaced.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class PipeSafeOutput:
    """Standard output for a parent that may be killed: what a task prints then is lost, not its trial."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
