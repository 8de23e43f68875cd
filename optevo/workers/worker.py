"""One worker process: takes trials from the storage until the study is complete."""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import optuna

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.faults import Interrupted
from optevo.evaluation.objective import Objective
from optevo.evaluation.stages import StageObjective
from optevo.liveness.heartbeat import HUNG_SECONDS, Heartbeat
from optevo.liveness.lost import LOOK_SECONDS, LivenessMonitor, fail_lost_trials
from optevo.liveness.processes import STOPS, OwnProcess, handling, orphaned, when_orphaned
from optevo.optuna_private import stored_trial
from optevo.samplers import NoSlot, sampler_of
from optevo.storage.opening import count_states, open_storage
from optevo.storage.retrying import insist
from optevo.study.config import StudyConfig
from optevo.study.promotion import begun_pipeline, staged_study
from optevo.study.studies import check_environment, counted, load_study
from optevo.training.benches import ScoredBench, make_worker_bench
from optevo.workers.pool import EXIT_TERMINATED

logger = logging.getLogger(__name__)

_ABANDONED_SECONDS = 30.0  # that a worker outlives its parent at most
_POLL_SECONDS = 0.1  # between looks for a slot; they become as rare as one a second


class TaskBrokenError(RuntimeError):
    """Trial after trial fails, whatever the genome."""


class Stopped(SystemExit):
    """The worker has ended since it was asked to."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


class Stop:
    """A polite request to stop, which SIGINT and SIGTERM make; more of them make no other.

    A worker gets one from whoever signals its whole process group, and one from its parent, some time later
    if that has to wait for its database. To end a worker at once is the parent's, by SIGKILL.

    Attributes:
        requested: Whether the worker is to stop at its next training step.
    """

    def __init__(self) -> None:
        self.requested = False

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.requested = True

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
    parent: int | None,
    limit: int | None = None,
    sharing: int = 1,
    stages: bool = False,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Evaluate trials of a stored study until it is complete, a stop is requested or `limit` trials are done.

    Args:
        storage_url: Where the study lies.
        name: Its name.
        device: Where to train.
        data_root: Where data sets lie.
        parent: Number of the process to end with: no worker trains on unseen after `optevo run` was killed.
            None: it is the program's own.
        limit: The study-wide number of counted trials at which to stop. Default: None, the study's own.
        sharing: Processes that share the device, a GPU. Default: 1.
        stages: Whether to work on the stages that follow the search, which is complete. Default: False.
        after: Called after every trial. Default: nothing.

    Raises:
        UserError: The study, its data or the device isn't there, or the study was begun with another optevo
            or torch.
        Stopped: A stop was requested; a `SystemExit` with status `EXIT_TERMINATED`.
        TaskBrokenError: Trials in three slots running failed: no genome's fault, more likely the task's.
    """
    stop = Stop()
    with OwnProcess() as own, handling(stop.request, *STOPS):
        _work(
            storage_url,
            name,
            stop,
            own,
            device=device,
            data_root=data_root,
            parent=parent,
            limit=limit,
            sharing=sharing,
            stages=stages,
            after=after,
        )


def _work(
    storage_url: str,
    name: str,
    stop: Stop,
    own: OwnProcess,
    *,
    device: str,
    data_root: Path,
    parent: int | None,
    limit: int | None,
    sharing: int,
    stages: bool,
    after: Callable[[], None],
) -> None:
    monitor = LivenessMonitor()
    if parent is not None:
        when_orphaned(parent, lambda: _abandon(stop))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # `optevo run` has just used the storage: one that does not answer now is waited for.
    storage = insist(
        lambda: open_storage(storage_url, should_stop=lambda: stop.requested),
        should_stop=lambda: stop.requested,
    )
    study, config = load_study(storage, name, device, trials="heads")
    check_environment(study)
    heartbeat = Heartbeat()

    def check() -> None:
        own.check()
        if parent is not None and orphaned(parent):
            stop.requested = True
        stop.check()
        heartbeat.pulse()
        if heartbeat.given_away:
            raise Interrupted("this worker was taken for dead and its trial given to another")

    def make(evaluated: StudyConfig) -> Objective:
        bench = make_worker_bench(evaluated, device, data_root, sharing)
        if evaluated is config:  # of the data of stages nothing is stored
            check_environment(study, bench.identities())
        own.check()
        # A score is one call, which nobody can tell from a hang.
        heartbeat.hung_seconds = math.inf if isinstance(bench, ScoredBench) else HUNG_SECONDS
        return Objective(bench, evaluated.make_space(), check)

    staged = None
    if stages:
        pipeline = begun_pipeline(study, config)
        study = staged_study(study, config, pipeline, device)
        staged = StageObjective(make, [config.staged(stage) for stage in pipeline.stages])
    outcome = _Outcome(staged or make(config), heartbeat)
    while not stop.requested and _await_slot(study, config, stop, monitor, limit):
        outcome.trial = None
        if staged is not None:  # its data may take longer to load than a trial may be silent
            staged.prepare(sampler_of(study).slot_table(study).generation)
        try:
            study.optimize(outcome, n_trials=1, catch=(Exception,))
        except NoSlot:
            continue  # another worker took the last open slot at the same moment
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError, AssertionError):
            # Three ways in which Optuna finds the trial finished by somebody else.
            if not outcome.given_away(study):
                raise
            logger.warning("this worker was taken for dead and its trial given to another; going on")
        after()
        if isinstance(outcome.error, UserError):
            raise outcome.error
        if len(outcome.failed_slots) >= 3:
            slots = len(outcome.failed_slots)
            raise TaskBrokenError(f"trials failed in {slots} slots running, the last so") from outcome.error
    if stop.requested:
        raise Stopped  # whoever watches can tell it from a study that is complete


def _abandon(stop: Stop) -> None:
    stop.requested = True
    time.sleep(_ABANDONED_SECONDS)
    os._exit(EXIT_TERMINATED)  # a task that hangs never asks


class _Outcome:
    """The objective under a heartbeat, and how this worker's last trials went."""

    def __init__(self, objective: Callable[[optuna.Trial], float], heartbeat: Heartbeat) -> None:
        self.objective, self.heartbeat = objective, heartbeat
        self.error: Exception | None = None
        self.failed_slots: set[tuple[int, int]] = set()  # since the last trial that did not fail
        self.trial: optuna.Trial | None = None

    def __call__(self, trial: optuna.Trial) -> float:
        self.error, self.trial = None, trial
        try:
            with self.heartbeat.beating(trial), OwnProcess():
                value = self.objective(trial)
        except optuna.TrialPruned:
            if trial.user_attrs.get(keys.TRAINED_STEPS):  # else the gate turned it away, not the task
                self.failed_slots.clear()
            raise
        except (Interrupted, optuna.exceptions.UpdateFinishedTrialError):
            self.failed_slots.clear()
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # what ends loops or processes, from a user's task
                trial.set_user_attr(keys.ERROR, traceback.format_exc())
                error = RuntimeError(f"the task raised {type(error).__name__}")
            self.error = error
            slot = sampler_of(trial.study).slot(trial.study, trial)
            assert slot is not None
            self.failed_slots.add(slot.place)
            raise error
        self.failed_slots.clear()
        return value

    def given_away(self, study: optuna.Study) -> bool:
        """Whether somebody else has finished this worker's last trial."""
        return self.trial is not None and stored_trial(study, self.trial).state.is_finished()


def _await_slot(
    study: optuna.Study, config: StudyConfig, stop: Stop, monitor: LivenessMonitor, limit: int | None
) -> bool:
    """Wait until there is something to evaluate; False when there never will be."""
    pause, looked = _POLL_SECONDS, -LOOK_SECONDS
    seen: dict[str, int] | None = None
    while not stop.requested:
        if time.monotonic() - looked >= LOOK_SECONDS:
            fail_lost_trials(study, monitor)
            looked = time.monotonic()
        now = count_states(study)
        if now is None or now != seen:  # else no slot has become free
            slots = sampler_of(study).slot_table(study)
            # Somebody who is about to claim a slot may open the next generation by it, asynchronously.
            seen = None if slots.undecided() else now
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
