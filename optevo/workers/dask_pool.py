"""`optevo run --cluster`: a pool of workers on the machines of a running Dask cluster.

Dask says which machines there are and carries messages; the storage alone says who evaluates what. Every
second each Dask worker is told, past Dask's own queue, which workers to have, and says how they are.

No `distributed.WorkerPlugin`: the scheduler keeps one after its client has died, and every Dask worker that
cannot unpickle it, for want of optevo, then fails to start.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
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
from optevo.workers.dask_client import answered, connect, run_in
from optevo.workers.pool import EXIT_USER_ERROR, WorkerExit

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_STOP_SECONDS, _KILL_SECONDS = remote.POLITE_SECONDS, 10.0  # to hear that all have ended


@dataclass
class _WorkerSlot:
    """Room for a worker.

    Attributes:
        device: Where it is to train.
        gpu: What tells that device from others, for another Dask worker may see it too. Empty: a CPU.
        busy: Whether a worker is there or on its way; None: the slot was never given out.
    """

    device: str
    gpu: str = ""
    busy: bool | None = None


@dataclass
class _DaskHost:
    """A Dask worker.

    Attributes:
        slots: Its room for workers; empty where it is refused; None while it is looked at.
        refusal: Why it cannot work on the study, if so.
        served: Looks at it, and tells it what to do for as long as it is there.
    """

    slots: list[_WorkerSlot] | None = None
    refusal: str = ""
    served: asyncio.Task[None] = field(init=False)


class DaskPool:
    """Workers on a running Dask cluster: one a GPU of each Dask worker, or one a thread where it has none.

    A worker that crashed or was killed is replaced, one that says that it is done isn't. A Dask worker that
    goes takes its workers along, one that comes gets its own.

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
        self._exits: deque[WorkerExit] = deque()
        self._listed = False  # whether the scheduler has said which Dask workers there are
        self._fitted = False  # whether any Dask worker ever did
        self._idle = False  # there are Dask workers, and nothing is left for them to do
        self._deadline = float("inf")  # when no longer to wait for what was stopped
        self._client = connect(address)
        # In the client's thread, so that a parent that waits for its database still gives signs of life.
        loop: Any = self._client.loop
        self._attending = asyncio.run_coroutine_threadsafe(self._attend(), loop.asyncio_loop)
        try:
            while not self._listed or any(host.slots is None for host in list(self._hosts.values())):
                self._check()
                time.sleep(0.05)
            refused = {who: host.refusal for who, host in list(self._hosts.items()) if host.refusal}
            if refused and not self._fitted:
                reasons = "\n".join(f"  {who}: {why}" for who, why in refused.items())
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
        return [self._exits.popleft() for _ in range(len(self._exits))]

    @property
    def working(self) -> bool:
        """See `WorkerPool`; also while there is no Dask worker at all, for one may come."""
        if self._exits:
            return True
        if self._stops:
            return self._busy() and time.monotonic() < self._deadline
        return not self._idle

    def stop(self) -> None:
        """See `WorkerPool`. A Dask worker that can't be told in time ends its own when its lease runs out."""
        self._stops += 1
        seconds = _STOP_SECONDS if self._stops == 1 else _KILL_SECONDS
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """See `WorkerPool`."""
        for _ in range(2):
            if self._busy() and not self._attending.done():
                self.stop()
            while self._busy() and not self._attending.done() and time.monotonic() < self._deadline:
                time.sleep(0.1)
        self._attending.cancel()
        self._client.close(timeout=_KILL_SECONDS)

    def _busy(self) -> bool:
        return any(slot.busy for host in list(self._hosts.values()) for slot in host.slots or [])

    def _check(self) -> None:
        if self._client.status == "closed":
            raise UserError(
                f"the scheduler at {self.address} answers no more; nothing is lost, the same command goes on"
            )
        if self._attending.done():
            self._attending.result()  # raises what went wrong

    async def _attend(self) -> None:
        """Follow the Dask workers' coming and going, and give out their slots."""
        async with asyncio.TaskGroup() as group:
            while True:
                present = await answered(self._client, lambda: self._client.nthreads(asynchronous=True))
                for address in self._hosts.keys() - present.keys():
                    self._forget(address)
                for address in present.keys() - self._hosts.keys():
                    host = self._hosts[address] = _DaskHost()
                    host.served = group.create_task(self._serve(address, host, present[address]))
                self._deal()
                hosts = self._hosts.values()
                looked_at = all(host.slots is not None for host in hosts)
                expected = self._fitted and not any(host.slots for host in hosts)  # that others come
                self._idle = bool(hosts) and looked_at and not expected and not self._busy()
                self._listed = True
                await asyncio.sleep(_POLL_SECONDS)

    async def _serve(self, address: str, host: _DaskHost, threads: int) -> None:
        """Look at a Dask worker and, if it fits, give it its orders as long as it is there."""
        answer = await run_in(self._client, address, remote.probe)
        try:
            host.slots = self._fit(answer, threads)
        except UserError as e:
            host.slots, host.refusal = [], str(e)
            self._exits.append(WorkerExit(f"worker on {address}", EXIT_USER_ERROR, f"refused: {e}\n"))
            return
        self._fitted = True
        while True:
            devices = {number: slot.device for number, slot in enumerate(host.slots) if slot.busy}
            order = replace(self._order, devices=devices, counted=self._counted, stops=self._stops)
            report = await run_in(self._client, address, remote.tend, order)
            if isinstance(report, Exception):
                raise report
            for number, (busy, exits) in report.items():
                name = f"worker {number + 1} on {address}"
                self._exits.extend(replace(ended, name=name) for ended in exits)
                host.slots[number].busy = busy
            await asyncio.sleep(_POLL_SECONDS)

    def _fit(self, answer: Any, threads: int) -> list[_WorkerSlot]:
        """Room for workers in a Dask worker, by what `remote.probe` found there.

        Raises:
            UserError: It does not fit, and why.
        """
        if not isinstance(answer, dict):
            raise UserError(f"optevo cannot be used there: {answer}")
        here = {"optevo": __version__, "torch": version("torch")}
        # What follows the plus sign is the build: for this CUDA, for that, for none.
        differing = [
            f"{name} {answer[name]} there, {mine} here"
            for name, mine in here.items()
            if answer[name].partition("+")[0] != mine.partition("+")[0]
        ]
        if differing:
            raise UserError("; ".join(differing))
        if self._on_this_machine and answer["machine"] != remote.machine():
            raise UserError(
                "it is on another machine, where SQLite does not reach; use PostgreSQL or grpc://"
            )
        gpus = [_WorkerSlot(f"cuda:{i}", gpu) for i, gpu in enumerate(answer["gpus"])]
        if self.device == "cpu" or (self.device == "auto" and not gpus):
            return [_WorkerSlot("cpu") for _ in range(threads)]
        if chosen := [slot for slot in gpus if self.device in {"auto", "cuda", slot.device}]:
            return chosen
        raise UserError(f"device {self.device!r} was asked for, torch sees {len(gpus)} CUDA devices there")

    def _deal(self) -> None:
        """Give out the slots that are free: every Dask worker's first, then every one's second, and so on."""
        if self._stops:
            return
        rounds = itertools.zip_longest(*(host.slots or [] for host in self._hosts.values()))
        slots = [slot for one_each in rounds for slot in one_each if slot is not None]
        given = [slot for slot in slots if slot.busy is not None]
        gpus = {slot.gpu for slot in given}  # two Dask workers of one machine may see the same
        for slot in slots:
            if len(given) == self.workers:
                break
            if slot.busy is None and not (slot.gpu and slot.gpu in gpus):
                slot.busy = True
                given.append(slot)
                gpus.add(slot.gpu)

    def _forget(self, address: str) -> None:
        host = self._hosts.pop(address)
        host.served.cancel()
        if host.slots and not self._stops:
            left = sum(bool(other.slots) for other in self._hosts.values())
            what = f"{left} left" if left else "none left; waiting for others"
            logger.warning("the Dask worker at %s has gone with its workers; %s", address, what)


def _absolute(url: str) -> str:
    """An SQLite URL that means the same file in every folder."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415  not in Dask workers

    parsed = make_url(url)
    path = Path(parsed.database or "").absolute()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)
