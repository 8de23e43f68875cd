"""What a pool of worker processes is, wherever they run, and how a worker's end is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

EXIT_USER_ERROR = 2  # the exit status of a worker whose user has something to mend
EXIT_TASK_BROKEN = 70  # of one in which trial after trial fails, whatever the genome
EXIT_TERMINATED = 143  # the exit status of a worker that ended politely since SIGINT or SIGTERM asked it to
# An environment variable: the mark with which a worker's last line begins.
FAREWELL = "OPTEVO_FAREWELL"


@dataclass(frozen=True)
class WorkerExit:
    """A worker that has ended.

    Attributes:
        name: Whom to call it in a message, such as "worker 2 (process 4711)".
        status: Exit status as the worker foretold it, else as `subprocess` gives it: negative for a signal.
        output_tail: The end of its output.
        replaced: Whether another was started in its place. Default: False.
        crashed: Whether something ended it before it was done: a signal, a crash, a task that ends its
            process with whatever status. Default: False.
    """

    name: str
    status: int
    output_tail: str
    replaced: bool = False
    crashed: bool = False


class WorkerPool(Protocol):
    """Worker processes, wherever they run."""

    def tend(self, counted: int) -> list[WorkerExit]:
        """Start and replace what is missing; those that ended since the last call.

        Args:
            counted: Finished trials of the study, by which a pool sees whether replacing workers helps.
        """
        ...

    @property
    def working(self) -> bool:
        """Whether any worker lives or is to be started."""
        ...

    def stop(self) -> None:
        """Ask all to end politely; a second call kills."""
        ...

    def close(self) -> None:
        """Nothing of the pool is left afterwards."""
        ...


def farewell() -> Callable[[int], None]:
    """What a worker calls with its exit status as the last thing it does, of which its pool then knows why.

    A status alone says little: any line of a task may end the process with 0. Hence a line on what is
    standard output now, whatever a task makes of that later; it begins with a mark that the pool gave.
    """
    mark = os.environ.pop(FAREWELL, None)
    if mark is None:
        return lambda status: None
    output = os.dup(1)

    def say(status: int) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(output, f"\n{mark} {status}\n".encode())

    return say


@dataclass
class Replacements:
    """Whether to replace another worker that crashed: not for ever where too little is achieved in between.

    Attributes:
        limit: So many may crash in vain.
        worth: A trial that finishes makes up for so many. Not for all: the trial by which a slot is given up
            that lost ten processes is one too.
    """

    limit: int
    worth: int = 5
    _counted: int = -1
    _in_vain: int = 0

    def allow(self, counted: int) -> bool:
        """Ask once for every worker that crashed; `counted` are the study's finished trials by then."""
        if counted > self._counted:
            self._in_vain = max(0, self._in_vain - self.worth * (counted - self._counted))
            self._counted = counted
        self._in_vain += 1
        return self._in_vain <= self.limit
