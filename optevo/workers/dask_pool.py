"""`optevo run --cluster`: a pool of workers on the machines of a running Dask cluster.

Dask says which machines there are and carries messages; the storage alone says who evaluates what. Every
second each Dask worker is told, past Dask's own queue, which workers to have, and says how they are.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from optevo import __version__
from optevo.errors import UserError
from optevo.workers import dask_remote as remote
from optevo.workers.dask_client import connect, or_lost, run_in
from optevo.workers.local_pool import WorkerExit

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_STOP_SECONDS, _KILL_SECONDS = remote.POLITE_SECONDS, 10.0  # to hear that all have ended


@dataclass
class _DaskHost:
    """A Dask worker that fits.

    Attributes:
        places: A device for each worker that it has room for, and whom it must not be shared with.
        seats: Those of the places that were given out: whether a worker holds it, or is on its way.
    """

    places: list[tuple[str, str]]
    seats: dict[int, bool] = field(default_factory=dict)


class DaskPool:
    """Workers on a running Dask cluster: one a GPU of each Dask worker, or one a thread where it has none.

    A worker that a signal killed is replaced, one that ended by itself isn't. A Dask worker that goes takes
    its workers along, one that comes gets its own.

    Args:
        address: Of the scheduler, such as ``tcp://10.0.0.1:8786``; or its scheduler file, ``….json``.
        command: What follows the interpreter, up to ``--device``.
        env: What workers get on top of their Dask worker's environment; nothing of this machine's.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, for each Dask worker.
        workers: At most so many in all. None: as many as there is room for.
        name_of_study: The study they work on.
        storage_url: Where it lies.

    Raises:
        UserError: distributed isn't installed, no scheduler answers, or there are Dask workers and none fits.
    """

    def __init__(
        self,
        address: str,
        command: list[str],
        env: dict[str, str],
        *,
        device: str,
        workers: int | None,
        name_of_study: str,
        storage_url: str,
    ) -> None:
        self.address, self.device, self.workers = address, device, workers
        self._on_this_machine = storage_url.startswith("sqlite")
        url = _absolute(storage_url) if self._on_this_machine else storage_url
        env = {**env, "OPTEVO_STORAGE": url}
        self._order = remote.Order(uuid.uuid4().hex, tuple(command), name_of_study, {}, 0, 0, env)
        self._counted = self._stops = 0  # apart, since `stop` is called by signals at any moment
        self._hosts: dict[str, _DaskHost] = {}
        self._refused: dict[str, str] = {}
        self._probing: set[str] | None = None  # None: nobody has looked yet
        self._endings: deque[WorkerExit] = deque()
        self._fitted = False  # whether any Dask worker ever did
        self._idle = False  # there are Dask workers, and nothing is left for them to do
        self._deadline = float("inf")  # when no longer to wait for what was stopped
        self._client = connect(address)
        # In the client's thread, so that a parent that waits for its database still gives signs of life.
        loop: Any = self._client.loop
        self._attending = asyncio.run_coroutine_threadsafe(self._attend(), loop.asyncio_loop)
        try:
            while self._probing is None or self._probing:
                self._check()
                time.sleep(0.05)
            if self._refused and not self._hosts:
                reasons = "\n".join(f"  {who}: {why}" for who, why in self._refused.items())
                raise UserError(f"no Dask worker at {address} can work on this study:\n{reasons}")
        except BaseException:
            self.close()
            raise
        if not self._hosts:
            logger.warning("the scheduler at %s has no Dask workers yet; waiting for them", address)

    def tend(self, counted: int) -> list[WorkerExit]:
        """See `WorkerPool`.

        Raises:
            UserError: The scheduler has not answered for a minute.
        """
        self._counted = counted
        if not self._stops:
            self._check()
        return [self._endings.popleft() for _ in range(len(self._endings))]

    @property
    def working(self) -> bool:
        """See `WorkerPool`; also while there is no Dask worker at all, for one may come."""
        if self._endings:
            return True
        if self._stops:
            return self._held() and time.monotonic() < self._deadline
        return not self._idle

    def stop(self) -> None:
        """See `WorkerPool`. A Dask worker that can't be told in time ends its own when its lease runs out."""
        self._stops += 1
        seconds = _STOP_SECONDS if self._stops == 1 else _KILL_SECONDS
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """See `WorkerPool`."""
        for _ in range(2):
            if self._held() and not self._attending.done():
                self.stop()
            while self._held() and not self._attending.done() and time.monotonic() < self._deadline:
                time.sleep(0.1)
        self._attending.cancel()
        self._client.close(timeout=_KILL_SECONDS)

    def _held(self) -> bool:
        return any(any(list(host.seats.values())) for host in list(self._hosts.values()))

    def _check(self) -> None:
        if self._client.status == "closed":
            raise UserError(
                f"the scheduler at {self.address} answers no more; nothing is lost, the same command goes on"
            )
        if self._attending.done():
            self._attending.result()  # raises what went wrong

    async def _attend(self) -> None:
        """Follow the Dask workers' coming and going, and give out seats."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while self._client.status != "closed":
                present = await or_lost(self._client, lambda: self._client.nthreads(asynchronous=True))
                if present is not None:
                    for address in tasks.keys() - present.keys():
                        tasks.pop(address).cancel()
                        self._forget(address)
                    new = present.keys() - tasks.keys()
                    self._probing = (self._probing or set()) | new
                    for address in new:
                        tasks[address] = asyncio.create_task(self._serve(address, present[address]))
                for task in tasks.values():
                    if task.done():
                        task.result()  # raises what went wrong
                self._deal()
                hopeless = self._refused and not self._fitted
                self._idle = bool(self._hosts or hopeless) and not (self._held() or self._probing)
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            for task in tasks.values():
                task.cancel()

    async def _serve(self, address: str, threads: int) -> None:
        """Look at a Dask worker and, if it fits, give it its orders as long as it is there."""
        assert self._probing is not None
        answer = await run_in(self._client, address, remote.probe)
        places = self._places(answer, threads)
        if isinstance(places, str):
            self._refused[address] = places
            self._endings.append(WorkerExit(f"worker on {address}", 2, f"refused: {places}\n"))
        else:
            self._hosts[address], self._fitted = _DaskHost(places), True
        self._probing.discard(address)
        while host := self._hosts.get(address):
            devices = {n: host.places[n][0] for n, held in host.seats.items() if held}
            order = replace(self._order, seats=devices, counted=self._counted, stops=self._stops)
            report = await run_in(self._client, address, remote.tend, order)
            if isinstance(report, Exception):
                raise report
            for number, (held, endings) in report.items():
                name = f"worker {number + 1} on {address}"
                self._endings.extend(replace(ended, name=name) for ended in endings)
                host.seats[number] = held
            await asyncio.sleep(_POLL_SECONDS)

    def _places(self, answer: Any, threads: int) -> list[tuple[str, str]] | str:
        """The places of a Dask worker, by what `remote.probe` found there; or why it is refused."""
        if not isinstance(answer, dict):
            return f"optevo cannot be used there: {answer}"
        here = {"optevo": __version__, "torch": version("torch")}
        # What follows the plus sign is the build: for this CUDA, for that, for none.
        differing = [
            f"{name} {answer[name]} there, {mine} here"
            for name, mine in here.items()
            if answer[name].partition("+")[0] != mine.partition("+")[0]
        ]
        if differing:
            return "; ".join(differing)
        if self._on_this_machine and answer["machine"] != remote.machine():
            return "it is on another machine, where SQLite does not reach; use PostgreSQL or grpc://"
        gpus = [(f"cuda:{i}", gpu) for i, gpu in enumerate(answer["gpus"])]
        if self.device == "cpu" or (self.device == "auto" and not gpus):
            return [("cpu", "")] * threads
        chosen = [place for place in gpus if self.device in {"auto", "cuda", place[0]}]
        return chosen or f"device {self.device!r} was asked for, torch sees {len(gpus)} CUDA devices there"

    def _deal(self) -> None:
        """Give out the seats that are free: every Dask worker's first, then every one's second, and so on."""
        if self._stops:
            return
        free = (self.workers or sys.maxsize) - sum(len(host.seats) for host in self._hosts.values())
        # Two Dask workers of one machine may see the same GPUs.
        taken = {host.places[i][1] for host in self._hosts.values() for i in host.seats} - {""}
        for i in range(max((len(host.places) for host in self._hosts.values()), default=0)):
            for host in self._hosts.values():
                if free > 0 and i < len(host.places) and i not in host.seats:
                    sole = host.places[i][1]
                    if sole in taken:
                        continue
                    taken |= {sole} - {""}
                    host.seats[i] = True
                    free -= 1

    def _forget(self, address: str) -> None:
        assert self._probing is not None
        self._probing.discard(address)
        self._refused.pop(address, None)
        if self._hosts.pop(address, None) is not None and not self._stops:
            left = f"{len(self._hosts)} left" if self._hosts else "none left; waiting for others"
            logger.warning("the Dask worker at %s has gone with its workers; %s", address, left)


def _absolute(url: str) -> str:
    """An SQLite URL that means the same file in every folder."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415  not in Dask workers

    parsed = make_url(url)
    path = Path(parsed.database or "").absolute()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)
