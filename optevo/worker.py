"""One worker process: takes trials from the storage until the study is complete."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import optuna
from optuna.storages import BaseStorage

from optevo import keys
from optevo.config import StudyConfig
from optevo.crew import STOPPED
from optevo.errors import UserError
from optevo.evaluation import make_worker_bench
from optevo.evaluation.objective import Interrupted, Objective
from optevo.heartbeat import Heartbeat
from optevo.lost import Lookout, fail_lost_trials
from optevo.outage import StorageUnreachable
from optevo.patience import OUTAGE_SECONDS
from optevo.processes import when_orphaned
from optevo.samplers import NoSlot
from optevo.storage import count_states, open_storage
from optevo.study import board, check_environment, counted, load_study, make_space

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # between looks for a slot; they become as rare as one a second
_LOOKOUT_SECONDS = 5.0


class Stop:
    """Turns SIGINT and SIGTERM into a polite request; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def request(self) -> None:
        """Ask the worker to stop at its next training step."""
        self.requested = True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.request()
        signal.signal(signum, signal.SIG_DFL)

    def check(self) -> None:
        """Raise `Interrupted` once a stop has been requested."""
        if self.requested:
            raise Interrupted("the worker was asked to stop")


def work(
    storage_url: str,
    name: str,
    *,
    device: str,
    data_root: Path,
    parent: int,
    limit: int | None = None,
    sharing: int = 1,
) -> None:
    """Evaluate trials of a stored study until it is complete, a stop is requested or `limit` trials are done.

    Args:
        storage_url: Where the study lies.
        name: Its name.
        device: Where to train.
        data_root: Where data sets lie.
        parent: Number of the process to end with: no worker trains on unseen after `optevo run` was killed.
        limit: The study-wide number of counted trials at which to stop. Default: None, the study's own.
        sharing: Processes that share the device, a GPU. Default: 1.

    Raises:
        UserError: The study, its data or the device isn't there, or the study was begun with another optevo
            or torch.
        SystemExit: A stop was requested: status `STOPPED`.
        RuntimeError: Trials in three slots running failed: no genome's fault, more likely the task's.
    """
    stop, heartbeat, lookout = Stop(), Heartbeat(), Lookout()
    when_orphaned(parent, stop.request)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _open(storage_url, stop)
    study, config = load_study(storage, name, device)
    check_environment(study)

    def check() -> None:
        stop.check()
        heartbeat.pulse()
        if heartbeat.given_away:
            raise Interrupted("this worker was taken for dead and its trial given to another")

    bench = make_worker_bench(config, device, data_root, sharing)
    outcome = _Outcome(Objective(bench, make_space(config), check), heartbeat)
    while not stop.requested and _await_slot(study, config, stop, lookout, limit):
        try:
            study.optimize(outcome, n_trials=1, catch=(Exception,))
        except NoSlot:
            continue  # another worker took the last open slot at the same moment
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("this worker was taken for dead and its trial given to another; going on")
        if isinstance(outcome.error, UserError):
            raise outcome.error
        if len(outcome.failed_slots) >= 3:
            slots = len(outcome.failed_slots)
            raise RuntimeError(f"trials failed in {slots} slots running, the last so") from outcome.error
    if stop.requested:
        sys.exit(STOPPED)  # whoever watches can tell it from a study that is complete


def _open(url: str, stop: Stop) -> BaseStorage:
    """The storage, which `optevo run` has just used: one that does not answer now is waited for."""
    until = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return open_storage(url, give_up=lambda: stop.requested)
        except StorageUnreachable:
            if stop.requested or time.monotonic() > until:
                raise
            time.sleep(1)


class _Outcome:
    """The objective under a heartbeat, and how this worker's last trials went."""

    def __init__(self, objective: Objective, heartbeat: Heartbeat) -> None:
        self.objective, self.heartbeat = objective, heartbeat
        self.error: Exception | None = None
        self.failed_slots: set[tuple[int, int]] = set()  # since the last trial that did not fail

    def __call__(self, trial: optuna.Trial) -> float:
        self.error = None
        try:
            with self.heartbeat.beating(trial):
                value = self.objective(trial)
        except optuna.TrialPruned:
            if trial.user_attrs.get(
                keys.TRAINED_STEPS
            ):  # one that the gate turned away says nothing of the task
                self.failed_slots.clear()
            raise
        except (Interrupted, optuna.exceptions.UpdateFinishedTrialError):
            self.failed_slots.clear()
            raise
        except Exception as error:
            self.error = error
            self.failed_slots.add((trial.user_attrs[keys.GENERATION], trial.user_attrs[keys.SLOT]))
            raise
        self.failed_slots.clear()
        return value


def _await_slot(
    study: optuna.Study, config: StudyConfig, stop: Stop, lookout: Lookout, limit: int | None
) -> bool:
    """Wait until there is something to evaluate; False when there never will be."""
    pause, looked = _POLL_SECONDS, -_LOOKOUT_SECONDS
    seen: dict[str, int] | None = None
    while not stop.requested:
        if time.monotonic() - looked >= _LOOKOUT_SECONDS:
            fail_lost_trials(study, lookout)
            looked = time.monotonic()
        now = count_states(study)
        if now is None or now != seen:  # else no slot has become free
            seen, slots = now, board(study)
            if slots.ended or (limit is not None and counted(study) >= limit):
                return False
            if len(slots.claimable()) > slots.undecided() and not _enough(study, config, limit):
                return True
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)
    return False


def _enough(study: optuna.Study, config: StudyConfig, limit: int | None) -> bool:
    """Whether those at work will reach the limit."""
    if limit is None:
        return False
    running = len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)))
    return counted(study) + running * config.evaluation.batch_candidates >= limit
