"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def when_orphaned(action: Callable[[], None]) -> None:
    """Call `action`, from another thread, once the parent process has gone, however it ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        action()

    threading.Thread(target=watch, daemon=True).start()
