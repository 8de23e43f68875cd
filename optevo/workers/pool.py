"""What a pool of worker processes is, wherever they run, and how a worker's end is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

EXIT_USER_ERROR = 2  # the exit status of a worker whose user has something to mend
EXIT_TASK_BROKEN = 70  # of one in which trial after trial fails, whatever the genome
EXIT_TERMINATED = 143  # the exit status of a worker that ended politely since SIGINT or SIGTERM asked it to


@dataclass(frozen=True)
class WorkerExit:
    """A worker that has ended.

    Attributes:
        name: Whom to call it in a message, such as "worker 2 (process 4711)".
        status: Exit status as `subprocess` gives it: negative for a signal.
        output_tail: The end of its output.
        replaced: Whether another was started in its place.
    """

    name: str
    status: int
    output_tail: str
    replaced: bool = False


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


def is_replaced(status: int) -> bool:
    """Whether a worker that ended so, without being asked to, was brought down by something."""
    return status not in (0, EXIT_USER_ERROR, EXIT_TASK_BROKEN)


@dataclass
class Replacements:
    """Whether to replace another killed worker: not for ever where nothing is achieved in between."""

    limit: int
    _counted: int = -1
    _in_vain: int = 0

    def allow(self, counted: int) -> bool:
        """Ask once for every worker that was killed; `counted` are the study's finished trials by then."""
        if counted > self._counted:
            self._counted, self._in_vain = counted, 0
        self._in_vain += 1
        return self._in_vain <= self.limit
