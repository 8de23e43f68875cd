"""Trials whose worker is gone: told from those at work, and failed, so that their slots are free again.

A worker of this machine is looked up among its processes. Others, and live ones that hang, are known by their
heartbeat, which is a count: it is compared with what the same observer saw before, by the observer's own
monotonic clock. So neither clocks that differ nor one that jumps make a live worker look dead. A worker that
is taken for dead wrongly finds its trial failed and goes on with another; whoever finishes a slot first
decides it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.optuna_private import set_trial_system_attr, stored_trial, trials_in

logger = logging.getLogger(__name__)

GRACE_SECONDS = 300.0  # ten heartbeats missed, on machines that may be busy
# A trial names its worker within milliseconds: one that hasn't after this long has lost its process.
NAMELESS_SECONDS = 20.0
FROZEN_SECONDS = 15.0  # standing still by SIGSTOP, which this machine's kernel tells
LOOK_SECONDS = 5.0  # between two looks
_LONGEST_STEP = 2 * LOOK_SECONDS  # an observer that was itself suspended has seen nothing meanwhile

GONE = "is gone"  # how the reason ends where a process died, which its genome may have to do with

State = Literal["live", "frozen", "dead", "elsewhere"]


def worker_identity(device: str = "", pid: int | None = None) -> dict[str, Any]:
    """Enough to tell later, on the same machine, whether a process is still alive: this one, or `pid`.

    "since" is now, when its trial begins.
    """
    pid = os.getpid() if pid is None else pid
    return {"host": _host(), "pid": pid, "started": _started(pid), "device": device, "since": _now()}


def state_of(worker: dict[str, Any]) -> State:
    """What this machine knows of a worker; "elsewhere" for one of another machine (or an earlier boot)."""
    if worker["host"] != _host():
        return "elsewhere"
    try:
        status = psutil.Process(worker["pid"]).status()
        same = _started(worker["pid"]) == worker["started"]
    except psutil.NoSuchProcess:
        return "dead" if _sees_others() else "elsewhere"
    except (psutil.AccessDenied, PermissionError):  # another user's, on a system that hides them
        return "elsewhere"
    except OSError:  # it has ended between two questions
        return "dead"
    if not same or status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return "dead"
    return "frozen" if status == psutil.STATUS_STOPPED else "live"


@dataclass
class _Watched:
    sign: tuple[Any, Any]  # the worker and its heartbeat, as last seen
    unchanged: float = 0.0  # seconds
    frozen: float = 0.0


class LivenessMonitor:
    """One observer's memory of running trials; look every few seconds."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._looked: float | None = None

    def lost(self, trials: Sequence[FrozenTrial]) -> dict[int, str]:
        """Which of the running trials have lost their worker, and how that is known."""
        now = time.monotonic()
        step = 0.0 if self._looked is None else min(now - self._looked, _LONGEST_STEP)
        self._looked = now
        before, self._watched = self._watched, {}
        lost = {}
        for trial in trials:
            worker = keys.ours(trial).get(keys.WORKER)
            sign = (worker, trial.system_attrs.get(keys.BEAT))
            seen = before.get(trial.number)
            if seen is None or seen.sign != sign:
                seen = _Watched(sign, frozen=seen.frozen if seen else 0.0)
            else:
                seen.unchanged += step
            self._watched[trial.number] = seen
            reason = _reason(worker, seen, step)
            if reason is not None:
                lost[trial.number] = reason
        return lost


def _reason(worker: dict[str, Any] | None, seen: _Watched, step: float) -> str | None:
    if worker is None:
        gone = seen.unchanged > NAMELESS_SECONDS
        return "its process was lost before it named itself" if gone else None
    state = state_of(worker)
    if state == "dead":
        return f"process {worker['pid']} {GONE}"
    seen.frozen = seen.frozen + step if state == "frozen" else 0.0
    if seen.frozen > FROZEN_SECONDS:
        return f"process {worker['pid']} stands still (SIGSTOP)"
    if seen.unchanged > GRACE_SECONDS:
        return f"no heartbeat from process {worker['pid']} of {host_name(worker)} for {seen.unchanged:.0f} s"
    return None


def fail_lost_trials(study: optuna.Study, monitor: LivenessMonitor) -> list[int]:
    """Mark FAIL what lost workers left RUNNING, so that others take the slots; returns the numbers."""
    running = trials_in(study, TrialState.RUNNING)
    lost = monitor.lost(running)
    return [
        trial.number for trial in running if trial.number in lost and fail(study, trial, lost[trial.number])
    ]


def fail(study: optuna.Study, trial: FrozenTrial, reason: str) -> bool:
    """Mark a running trial FAIL; whether it still was running."""
    with contextlib.suppress(UpdateFinishedTrialError):
        set_trial_system_attr(study, trial, keys.LOST, reason)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    if stored_trial(study, trial).state != TrialState.FAIL:
        return False
    logger.warning("trial %d lost its worker (%s); its slot is evaluated again", trial.number, reason)
    return True


def beat_age(trial: FrozenTrial) -> float | None:
    """Seconds since a trial's last heartbeat, or its beginning, by this machine's clock; None for neither."""
    worker, beat = keys.ours(trial).get(keys.WORKER), trial.system_attrs.get(keys.BEAT)
    last = beat[1] if beat is not None else worker and worker.get("since")
    if last is None:
        return None
    now = datetime.datetime.now(datetime.UTC)
    return (now - datetime.datetime.fromisoformat(last)).total_seconds()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def host_name(worker: dict[str, Any]) -> str:
    """A worker's machine, for people."""
    return str(worker["host"]).partition("/")[0]


def _host() -> str:
    # Process numbers mean something within one boot of one machine, and there within one namespace.
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _sees_others() -> bool:
    """Whether other users' processes are visible; a system may hide them (``hidepid``)."""
    return not psutil.LINUX or Path("/proc/1").exists()


def _started(pid: int) -> float:
    """When a process started: in ticks since boot where the system tells, which no clock setting moves."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return float(stat.read_text().rpartition(")")[2].split()[19])
    return float(psutil.Process(pid).create_time())
