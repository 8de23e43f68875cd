"""What a process does when the one that started it has gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil


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
