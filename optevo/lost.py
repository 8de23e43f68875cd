"""Trials whose process is gone: told from those at work, and failed, so that their slots are free again."""

from __future__ import annotations

import datetime
import logging
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import TrialState

from optevo import keys

logger = logging.getLogger(__name__)

# A trial names its worker within milliseconds: one that hasn't after this long has lost its process. A
# worker that was only slow finds its trial failed and goes on with another.
NAMELESS_SECONDS = 20.0
_CLOCK_SECONDS = 60.0  # by how much a process's start may seem to move, when the system clock is set


def worker_identity() -> dict[str, Any]:
    """Enough to tell later, on the same machine, whether this process is still alive."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


def is_alive(worker: dict[str, Any]) -> bool | None:
    """Whether a worker lives; None for one of another machine, of which nothing is known here."""
    if worker["host"] != _host():
        return None
    try:
        process = psutil.Process(worker["pid"])
        same = abs(process.create_time() - worker["started"]) < _CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fail_lost_trials(study: optuna.Study) -> list[int]:
    """Mark FAIL what dead workers left RUNNING, so that the slots are evaluated again; returns the numbers.

    A worker of this machine is looked up among the processes, others are known by their heartbeat, and a
    trial that never got as far as naming its worker by its age.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    now, lost = datetime.datetime.now(), []  # trials have naive local times
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(keys.WORKER)
        started = trial.datetime_start or now
        if worker is None:
            gone = (now - started).total_seconds() > NAMELESS_SECONDS
        else:
            gone = is_alive(worker) is False
        if gone:
            logger.warning("trial %d lost its worker; it will be evaluated again", trial.number)
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            lost.append(trial.number)
    return lost


def _host() -> str:
    # In containers that share a host name, process numbers only mean something within one namespace.
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{os.readlink(namespace) if namespace.exists() else ''}"
