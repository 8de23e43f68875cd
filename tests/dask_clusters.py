"""Dask clusters for tests, in this process or of processes, and what stands in for optevo's workers there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from optevo.workers.dask_pool import DaskPool
from optevo.workers.pool import FAREWELL, WorkerExit

SECONDS = 90  # to wait for anything at most
T = TypeVar("T")
# What stands in for a worker: leaves a note of its arguments, ends with its parent, and when asked to.
FAKE = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
note = folder / f"{os.getpid()}.tmp"
note.write_text(json.dumps({"argv": sys.argv[2:], "url": os.environ["OPTEVO_STORAGE"]}))
def done(status):
    print("\\n" + os.environ["%(farewell)s"], status, flush=True)
    sys.exit(status)
def end(*_):
    (folder / f"{os.getpid()}.polite").touch()
    done(0)
signal.signal(signal.SIGTERM, %(on_term)s)
note.rename(note.with_suffix(".json"))
%(then)s
while os.getppid() == int(sys.argv[sys.argv.index("--parent") + 1]):
    time.sleep(0.1)
"""


class Cluster:
    """A scheduler and Dask workers, and the notes that stand-ins leave.

    Attributes:
        address: The scheduler's.
    """

    address: str

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir()

    def fake(self, then: str = "", on_term: str = "end") -> list[str]:
        """The command of a stand-in.

        Args:
            then: What it does once it is there, before it waits.
            on_term: What it does on SIGTERM.
        """
        return ["-c", FAKE % {"then": then, "on_term": on_term, "farewell": FAREWELL}, str(self.notes)]

    def pool(
        self,
        workers: int | None = None,
        *,
        then: str = "",
        on_term: str = "end",
        address: str | None = None,
        device: str = "cpu",
        storage_url: str = "postgresql://nobody:secret@nowhere/x",
    ) -> DaskPool:
        return DaskPool(
            address or self.address,
            self.fake(then, on_term),
            {},
            device=device,
            workers=workers,
            name_of_study="small",
            storage_url=storage_url,
        )

    def started(self) -> dict[int, dict[str, Any]]:
        """Every stand-in there ever was, with its arguments and environment."""
        return {int(note.stem): json.loads(note.read_text()) for note in self.notes.glob("*.json")}

    def living(self) -> dict[int, int]:
        """Those alive, each with the Dask worker process it belongs to."""
        found = {}
        for pid in self.started():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[pid] = process.ppid()
        return found

    def polite(self) -> set[int]:
        """Those that ended since they were asked to."""
        return {int(note.stem) for note in self.notes.glob("*.polite")}


class InnerCluster(Cluster):
    """A scheduler and Dask workers in a thread of this process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.workers: list[Any] = []
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.scheduler = self._done(self._scheduler())
        self.address = self.scheduler.address

    def _done(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    async def _scheduler(self) -> Any:
        from distributed import Scheduler  # noqa: PLC0415  an extra

        return await Scheduler(host="127.0.0.1", dashboard=False, dashboard_address="127.0.0.1:0")

    async def _worker(self, threads: int) -> Any:
        from distributed import Worker  # noqa: PLC0415  an extra

        return await Worker(self.address, nthreads=threads, dashboard=False, local_directory=str(self.folder))

    def worker(self, threads: int = 1) -> Any:
        self.workers.append(self._done(self._worker(threads)))
        return self.workers[-1]

    def leave(self, worker: Any) -> None:
        """A Dask worker says goodbye."""
        self.workers.remove(worker)
        self._done(worker.close())

    def end(self) -> None:
        for worker in [*self.workers]:
            self.leave(worker)
        self._done(self.scheduler.close())
        self.loop.call_soon_threadsafe(self.loop.stop)


class OuterCluster(Cluster):
    """A scheduler and Dask workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file, self.log = folder / "scheduler.json", folder / "dask.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        command += ["--scheduler-file", str(self.file), "--no-dashboard"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder
            )
        self.processes.append(process)
        return process

    def worker(self, threads: int = 1, *, nanny: bool = False) -> subprocess.Popen[bytes]:
        options = ["--nthreads", str(threads), "--nanny" if nanny else "--no-nanny"]
        return self._start("worker", *options, "--local-directory", str(self.folder))

    def end(self) -> None:
        for process in reversed(self.processes):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with its whole session, as a machine's power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(SECONDS)


def wait(condition: Callable[[], Any], message: Callable[[], Any] = lambda: "it never came") -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, message()
        time.sleep(0.05)


@contextmanager
def closing(pool: DaskPool) -> Iterator[DaskPool]:
    try:
        yield pool
    finally:
        pool.close()


def tend_until(pool: DaskPool, condition: Callable[[], Any]) -> list[WorkerExit]:
    """Tend the pool until something is so; those that ended."""
    ended: list[WorkerExit] = []

    def tended() -> Any:
        ended.extend(pool.tend(0))
        return condition()

    wait(tended, lambda: ended)
    return ended


def tend_for(pool: DaskPool, seconds: float) -> list[WorkerExit]:
    """Tend the pool for a while; those that ended."""
    until = time.monotonic() + seconds
    return tend_until(pool, lambda: time.monotonic() > until)
