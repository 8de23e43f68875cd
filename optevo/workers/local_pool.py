"""The worker processes of one `optevo run`: started, watched, and replaced when something kills them."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import psutil

# A worker that stands still for so long (SIGSTOP, a debugger) is killed and replaced. Sooner than others take
# its trial (`optevo.liveness.lost.FROZEN_SECONDS`): it may hold a lock of the database that they need for it.
KILL_FROZEN_SECONDS = 10.0
# Replacements in a row that may achieve nothing: enough for one slot to be given up because it loses every
# process (`optevo.evaluation.objective.MAX_LOSSES`), and a few by chance.
IN_VAIN = 15
_LAST_LINES = 100
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


@dataclass
class _WorkerSlot:
    """A place for a worker, whichever process holds it."""

    number: int
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    output_tail: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    reader: threading.Thread | None = None
    stopped_since: float | None = None
    vacant: bool = False  # its worker could not be started for now

    def start(self, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.output_tail = deque(maxlen=_LAST_LINES)
        self.stopped_since = None
        self.reader = threading.Thread(
            target=self.output_tail.extend, args=(self.process.stdout,), daemon=True
        )
        self.reader.start()

    @property
    def name(self) -> str:
        assert self.process is not None
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def frozen(self) -> bool:
        """Whether the process has been standing still for too long, seen now and at earlier looks."""
        assert self.process is not None
        try:
            stopped = psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False
        if not stopped:
            self.stopped_since = None
            return False
        self.stopped_since = self.stopped_since or time.monotonic()
        return time.monotonic() - self.stopped_since >= KILL_FROZEN_SECONDS


class LocalPool:
    """Worker processes on this machine, children of this one.

    A worker that something has killed is replaced (the out-of-memory killer, an administrator, a library
    that crashes), and so is one that stands still: its trial goes to another worker. One that is done, or
    says that there is no use, isn't.

    Args:
        commands: One a worker.
        env: Their environment; the storage's URL is in it, so that other users of the machine can't read it.
    """

    def __init__(self, commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
        self.env = env
        self.seats = [_WorkerSlot(number, command) for number, command in enumerate(commands, start=1)]
        self.replacements = Replacements(limit=IN_VAIN + len(self.seats))
        self.stops = 0
        for seat in self.seats:
            seat.start(env)

    def tend(self, counted: int) -> list[WorkerExit]:
        """See `WorkerPool`."""
        ended = []
        for seat in self.seats:
            if seat.vacant and not self.stops:
                self._fill(seat)
            if seat.process is None:
                continue
            if seat.alive:
                if not self.stops and seat.frozen():
                    seat.process.kill()
                continue
            assert seat.reader is not None
            seat.reader.join(timeout=5)
            name, status = seat.name, seat.process.wait()
            words, seat.process = "".join(seat.output_tail), None
            replace = is_replaced(status) and not self.stops and self.replacements.allow(counted)
            if replace:
                self._fill(seat)
            ended.append(WorkerExit(name, status, words, replace))
        return ended

    def _fill(self, seat: _WorkerSlot) -> None:
        try:
            seat.start(self.env)
            seat.vacant = False
        except OSError:  # no memory or no process to be had just now
            seat.vacant = True
        if self.stops and seat.process is not None:  # asked to stop in this very moment
            seat.process.terminate()

    @property
    def working(self) -> bool:
        """See `WorkerPool`."""
        return any(seat.process is not None or (seat.vacant and not self.stops) for seat in self.seats)

    def stop(self) -> None:
        """See `WorkerPool`."""
        self.stops += 1
        for seat in self.seats:
            if seat.alive and seat.process is not None:
                if self.stops > 1:
                    seat.process.kill()
                else:
                    seat.process.terminate()
                    seat.process.send_signal(signal.SIGCONT)  # one that stands still shall hear it

    def close(self) -> None:
        """See `WorkerPool`; ends what is still there politely, but not for long."""
        for seat in self.seats:
            if seat.alive and seat.process is not None:
                seat.process.terminate()
                seat.process.send_signal(signal.SIGCONT)  # one that stands still shall hear it
        until = time.monotonic() + 10
        for seat in self.seats:
            if seat.process is not None:
                try:
                    seat.process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    seat.process.kill()
                    seat.process.wait()
