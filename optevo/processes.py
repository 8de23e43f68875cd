"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import psutil


def when_orphaned(parent: int, action: Callable[[], None]) -> None:
    """Call `action`, from another thread, once process `parent` has gone, however it ended."""

    def watch() -> None:
        # A dead parent may linger as a zombie, which only its children's own parent number tells.
        while psutil.pid_exists(parent) and (os.name == "nt" or os.getppid() == parent):
            time.sleep(1)
        action()

    threading.Thread(target=watch, daemon=True).start()
