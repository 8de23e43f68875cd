"""What `optevo run --cluster` has done in Dask workers: looking around, and keeping worker processes.

The parent may vanish without a word: a Dask worker that hears nothing for `LEASE_SECONDS` ends what it runs,
and worker processes end with their Dask worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optevo.workers.local_pool import LocalPool
from optevo.workers.pool import WorkerExit

if TYPE_CHECKING:
    from distributed import Worker

LEASE_SECONDS = 20.0
POLITE_SECONDS = 30.0  # for a worker to end when asked to, before it is killed
_PROBE_SECONDS = 180.0  # torch from a cold network disk

# In a process of its own: the very interpreter that workers get, and no CUDA in the Dask worker.
_PROBE = """
import json, os, optevo, torch
seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
part = seen if seen.startswith("MIG") else ""  # parts of a GPU may share its number
gpus = [f"{torch.cuda.get_device_properties(i).uuid}{part}" for i in range(torch.cuda.device_count())]
print(json.dumps({"optevo": optevo.__version__, "torch": torch.__version__, "gpus": gpus}))
"""


@dataclass(frozen=True)
class Order:
    """What a Dask worker is to keep running.

    Attributes:
        run: Which `optevo run` it comes from.
        command: What follows the interpreter, up to ``--device``.
        study: The study's name.
        devices: A device for each worker, by the worker's number here.
        counted: See `WorkerPool.tend`.
        stops: How often the parent was asked to stop.
        env: What the workers get on top of this environment.
    """

    run: str
    command: tuple[str, ...]
    study: str
    devices: dict[int, str]
    counted: int
    stops: int
    # Dask logs the arguments of what fails; a password may be in it.
    env: dict[str, str] = field(repr=False)


Report = dict[int, tuple[bool, list[WorkerExit]]]  # by number: whether it is there, and who ended


async def probe() -> dict[str, Any] | str:
    """What workers will find here; a text says why they can't run."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _PROBE), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _PROBE_SECONDS)
    except TimeoutError:
        process.kill()
        return f"importing torch took more than {_PROBE_SECONDS:.0f} s"
    if process.returncode:
        return (err.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"])[-1]
    return {**json.loads(out), "machine": machine()}


def machine() -> list[str]:
    """Tells this machine, or container, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return [socket.gethostname(), boot.read_text() if boot.exists() else ""]


def tend(order: Order, dask_worker: Worker | None = None) -> Report:
    """Do as ordered, and say how the workers are. Takes milliseconds; Dask fills in `dask_worker`."""
    assert dask_worker is not None
    log = logging.getLogger("distributed.worker")
    if _not_of_tend not in log.filters:
        log.addFilter(_not_of_tend)
    key = order.run, dask_worker.address
    with _lock:
        if key not in _leases:
            _leases[key] = _Lease(key)
        return _leases[key].tend(order)


def _not_of_tend(record: logging.LogRecord) -> bool:
    return record.args != (tend.__name__,)  # a line for every call, otherwise


class _Lease:
    """The workers of one `optevo run` in a Dask worker, a pool of one each, for as long as it is heard of."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.pools: dict[int, LocalPool] = {}
        self.stops = 0
        self.heard = time.monotonic()
        threading.Thread(target=self._end_unheard, daemon=True).start()

    def tend(self, order: Order) -> Report:
        self.heard = time.monotonic()
        while self.stops < order.stops:
            self.stop()
        report: Report = {}
        for number, device in order.devices.items():
            try:
                if number not in self.pools and not self.stops:
                    self.pools[number] = self._start(order, device)
            except OSError as e:
                report[number] = False, [WorkerExit("", 1, f"cannot start a worker: {e}")]
                continue
            pool = self.pools.get(number)
            exits = pool.tend(order.counted) if pool else []
            report[number] = pool is not None and pool.working, exits
        return report

    @staticmethod
    def _start(order: Order, device: str) -> LocalPool:
        command = [sys.executable, *order.command, "--device", device, "--sharing", "1"]
        command += ["--parent", str(os.getpid()), "--", order.study]
        return LocalPool([command], {**os.environ, **order.env})

    def stop(self) -> None:
        self.stops += 1
        for pool in self.pools.values():
            pool.stop()

    def _end_unheard(self) -> None:
        while True:
            time.sleep(1)
            with _lock:
                if time.monotonic() - self.heard > LEASE_SECONDS:
                    del _leases[self.key]
                    break
        self.stop()
        until = time.monotonic() + POLITE_SECONDS
        while any(pool.working for pool in self.pools.values()):
            for pool in self.pools.values():
                pool.tend(0)
            if self.stops == 1 and time.monotonic() > until:
                self.stop()
            time.sleep(0.2)


# What calls of `tend` have in common, by run and Dask worker.
_leases: dict[tuple[str, str], _Lease] = {}
_lock = threading.Lock()
