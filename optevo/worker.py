"""One worker process: takes trials from the storage until the study is complete."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from types import FrameType

import optuna
import torch

from optevo import keys
from optevo.config import StudyConfig
from optevo.errors import UserError
from optevo.evaluation.bench import Bench, share_device
from optevo.evaluation.objective import Interrupted, Objective
from optevo.lost import fail_lost_trials
from optevo.processes import when_orphaned
from optevo.samplers import GeneticSampler, NoSlot
from optevo.storage import open_storage
from optevo.study import counted, is_complete, load_study, make_space

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_REPAIR_SECONDS = 5.0


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
        UserError: The study, its data or the device isn't there.
        RuntimeError: Trials in three slots running failed: no genome's fault, more likely the task's.
    """
    stop = Stop()
    when_orphaned(parent, stop.request)
    # Several one-thread processes beat a wide one, and sums come out the same for any number of them.
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, config = load_study(open_storage(storage_url), name)
    share_device(device, sharing)
    objective = Objective(Bench(config, device, data_root), make_space(config), stop.check)
    outcome = _Outcome(objective)
    while not stop.requested and _await_slot(study, config, stop, limit):
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


class _Outcome:
    """The objective, and how this worker's last trials went."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.error: Exception | None = None
        self.failed_slots: set[tuple[int, int]] = set()  # since the last trial that did not fail

    def __call__(self, trial: optuna.Trial) -> float:
        self.error = None
        try:
            value = self.objective(trial)
        except optuna.TrialPruned:
            if trial.user_attrs.get(
                keys.TRAINED_STEPS
            ):  # one that the gate turned away says nothing of the task
                self.failed_slots.clear()
            raise
        except Interrupted:
            self.failed_slots.clear()
            raise
        except Exception as error:
            self.error = error
            self.failed_slots.add((trial.user_attrs[keys.GENERATION], trial.user_attrs[keys.SLOT]))
            raise
        self.failed_slots.clear()
        return value


def _await_slot(study: optuna.Study, config: StudyConfig, stop: Stop, limit: int | None) -> bool:
    """Wait until there is something to evaluate; False when there never will be."""
    repaired = -_REPAIR_SECONDS
    while not stop.requested:
        if time.monotonic() - repaired >= _REPAIR_SECONDS:
            fail_lost_trials(study)
            repaired = time.monotonic()
        if is_complete(study, config) or (limit is not None and counted(study) >= limit):
            return False
        if _has_open_slot(study, config, limit):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _has_open_slot(study: optuna.Study, config: StudyConfig, limit: int | None) -> bool:
    running = len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)))
    if limit is not None and counted(study) + running * config.evaluation.batch_candidates >= limit:
        return False
    if isinstance(study.sampler, GeneticSampler):
        board = study.sampler.board(study)
        return len(board.claimable(board.generation)) > board.undecided()
    return counted(study) + running < config.sampler.n_trials
