"""Worker processes on this machine: started, watched, and replaced when something kills them."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from optevo.workers.pool import Replacements, WorkerExit, is_replaced

# A worker that stands still for so long (SIGSTOP, a debugger) is killed and replaced. Sooner than others take
# its trial (`optevo.liveness.lost.FROZEN_SECONDS`): it may hold a lock of the database that they need for it.
KILL_FROZEN_SECONDS = 10.0
# Replacements in a row that may achieve nothing: enough for one slot to be given up because it loses every
# process (`optevo.evaluation.objective.MAX_LOSSES`), and a few by chance.
IN_VAIN = 15
_TAIL_LINES = 100
_CLOSE_SECONDS = 10.0  # for workers to end when asked to, before they are killed


@dataclass
class _WorkerSlot:
    """A place for a worker, whichever process holds it."""

    number: int
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    output_tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    reader: threading.Thread | None = None
    stopped_since: float | None = None
    vacant: bool = False  # its worker could not be started for now

    def start(self, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self.output_tail = deque(maxlen=_TAIL_LINES)
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

    A worker that something has killed is replaced (the out-of-memory killer, an administrator, a library
    that crashes), and so is one that stands still: its trial goes to another worker. One that is done, or
    says that there is no use, isn't.

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
            if slot.vacant and not self.stops:
                self._fill(slot)
            if slot.process is None:
                continue
            if slot.alive:
                if not self.stops and slot.frozen():
                    slot.process.kill()
                continue
            assert slot.reader is not None
            slot.reader.join(timeout=5)
            name, status = slot.name, slot.process.wait()
            tail, slot.process = "".join(slot.output_tail), None
            replace = is_replaced(status) and not self.stops and self.replacements.allow(counted)
            if replace:
                self._fill(slot)
            ended.append(WorkerExit(name, status, tail, replace))
        return ended

    def _fill(self, slot: _WorkerSlot) -> None:
        try:
            slot.start(self.env)
            slot.vacant = False
        except OSError:  # no memory or no process to be had just now
            slot.vacant = True
        if self.stops and slot.process is not None:  # asked to stop in this very moment
            slot.process.terminate()

    @property
    def working(self) -> bool:
        """See `WorkerPool`."""
        return any(slot.process is not None or (slot.vacant and not self.stops) for slot in self.slots)

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
