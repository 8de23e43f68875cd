"""Worker processes on this machine: started, watched, and replaced when something kills them."""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from optevo.workers.pool import (
    EXIT_TASK_BROKEN,
    EXIT_USER_ERROR,
    FAREWELL,
    Replacements,
    WorkerExit,
)

logger = logging.getLogger(__name__)

# A worker that stands still for so long (SIGSTOP, a debugger) is killed and replaced. Sooner than others take
# its trial (`optevo.liveness.lost.FROZEN_SECONDS`): it may hold a lock of the database that they need for it.
KILL_FROZEN_SECONDS = 10.0
# Crashes in a row that may achieve nothing: enough for one slot to be given up because it loses every
# process (`optevo.evaluation.giving_up.MAX_LOSSES`), and a few by chance.
IN_VAIN = 15
_TAIL_LINES = 100
_CLOSE_SECONDS = 10.0  # for workers to end when asked to, before they are killed
_LINGER_SECONDS = 30.0  # for a worker to end that has said so: a thread of its task may never do
_VACANT_SECONDS = 600.0  # for which it is tried to start a worker


@dataclass
class _WorkerSlot:
    """A place for a worker, whichever process holds it."""

    number: int
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    output_tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    reader: threading.Thread | None = None
    stopped_since: float | None = None
    vacant_since: float | None = None  # its worker could not be started for now
    foretold: int | None = None  # the exit status that its worker has announced
    foretold_at: float = 0.0

    def start(self, env: Mapping[str, str]) -> None:
        mark = secrets.token_hex(16)
        self.process = subprocess.Popen(
            self.command,
            env={**env, FAREWELL: mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self.output_tail = deque(maxlen=_TAIL_LINES)
        self.stopped_since = self.foretold = None
        self.reader = threading.Thread(
            target=self._read, args=(self.process, self.output_tail, mark), daemon=True
        )
        self.reader.start()

    def _read(self, process: subprocess.Popen[str], tail: deque[str], mark: str) -> None:
        """Keep the end of what a worker prints, until all who share its output have closed it."""
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(mark):
                tail.append(line)
            elif process is self.process:
                self.foretold, self.foretold_at = int(line.removeprefix(mark)), time.monotonic()

    @property
    def name(self) -> str:
        assert self.process is not None
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, *, politely: bool) -> None:
        if self.process is None or not self.alive:
            return
        if politely:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # one that stands still shall hear it
        else:
            self.process.kill()

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

    A worker that something has ended is replaced (the out-of-memory killer, an administrator, a library
    that crashes, a task that calls `os._exit`), and so is one that stands still: its trial goes to another
    worker. One that says that it is done, or that there is no use, isn't.

    Args:
        commands: One a worker.
        env: Their environment; the storage's URL is in it, so that other users of the machine can't read it.
    """

    def __init__(self, commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
        self.env = env
        self.slots = [_WorkerSlot(number, command) for number, command in enumerate(commands, start=1)]
        self.replacements = Replacements(limit=IN_VAIN + len(self.slots))
        self.stops = 0
        for slot in self.slots:
            slot.start(env)

    def tend(self, counted: int) -> list[WorkerExit]:
        """See `WorkerPool`."""
        ended = []
        for slot in self.slots:
            if slot.vacant_since is not None and not self.stops:
                ended += self._fill(slot)
            if slot.process is None:
                continue
            if slot.alive:
                lingers = slot.foretold is not None and time.monotonic() - slot.foretold_at > _LINGER_SECONDS
                if lingers or (not self.stops and slot.frozen()):
                    slot.process.kill()
                continue
            assert slot.reader is not None
            # To its last line; a process that it leaves behind may hold its output open for long.
            slot.reader.join(timeout=5 if slot.foretold is None else 0)
            name, status, crashed = slot.name, slot.process.wait(), slot.foretold is None
            if slot.foretold is not None:
                status = slot.foretold
            tail, slot.process = "".join(slot.output_tail), None
            final = not crashed and status in (0, EXIT_USER_ERROR, EXIT_TASK_BROKEN)
            replace = not final and not self.stops and self.replacements.allow(counted)
            ended.append(WorkerExit(name, status, tail, replace, crashed))
            if replace:
                ended += self._fill(slot)
        return ended

    def _fill(self, slot: _WorkerSlot) -> list[WorkerExit]:
        """Start a worker; the end of all tries where none can be started for long."""
        now = time.monotonic()
        try:
            slot.start(self.env)
            slot.vacant_since = None
        except OSError as error:  # no memory or no process to be had just now
            if slot.vacant_since is None:
                slot.vacant_since = now
                logger.warning("worker %d cannot be started: %s; it is tried again", slot.number, error)
            elif now - slot.vacant_since > _VACANT_SECONDS:
                slot.vacant_since = None
                tail = f"it cannot be started: {error}\n"
                return [WorkerExit(f"worker {slot.number}", 1, tail, crashed=True)]
        if self.stops and slot.process is not None:  # asked to stop in this very moment
            slot.process.terminate()
        return []

    @property
    def working(self) -> bool:
        """See `WorkerPool`."""
        return any(
            slot.process is not None or (slot.vacant_since is not None and not self.stops)
            for slot in self.slots
        )

    def stop(self) -> None:
        """See `WorkerPool`."""
        self.stops += 1
        for slot in self.slots:
            slot.end(politely=self.stops == 1)

    def close(self) -> None:
        """See `WorkerPool`; ends what is still there politely, but not for long."""
        for slot in self.slots:
            slot.end(politely=True)
        until = time.monotonic() + _CLOSE_SECONDS
        for slot in self.slots:
            if slot.process is not None:
                try:
                    slot.process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    slot.end(politely=False)
                    slot.process.wait()
