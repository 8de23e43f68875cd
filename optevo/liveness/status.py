"""The workers of a study as its database tells of them, and giving back what lost ones held."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.liveness.lost import GRACE_SECONDS, NAMELESS_SECONDS, beat_age, fail, host_name, state_of
from optevo.optuna_private import trials_in


@dataclass(frozen=True)
class RunningTrial:
    """A running trial and what is known of its worker.

    Attributes:
        trial: The trial.
        name: Host and process, empty for a worker that has not named itself.
        device: Where it trains.
        seconds: Since it was last heard of, by this machine's clock: by heartbeat, or the trial's start.
        state: "live", "dead", "frozen" (stopped by a signal), or "stale": silent for too long.
    """

    trial: FrozenTrial
    name: str
    device: str
    seconds: float
    state: str

    @property
    def slot(self) -> str:
        """What it works on, "generation/slot" or a stage."""
        attrs = keys.ours(self.trial)
        if keys.STAGE in attrs:
            return f"stage {attrs[keys.STAGE]}"
        return f"{attrs[keys.GENERATION]}/{attrs[keys.SLOT]}" if keys.SLOT in attrs else ""


def running_trials(
    study: optuna.Study, check: Callable[[FrozenTrial], None] = lambda trial: None
) -> list[RunningTrial]:
    """Every running trial with its worker, by trial number; each passes by `check` before it is looked at."""
    running = trials_in(study, TrialState.RUNNING)
    for trial in running:
        check(trial)
    return [running_trial(trial) for trial in running]


def repair(study: optuna.Study, *, everything: bool = False) -> Iterator[tuple[RunningTrial, bool]]:
    """Give back the slots of workers that are gone, trial by trial; whether each was.

    `optevo run` does so itself, and for other machines' workers by its own watching instead of by clocks.

    Args:
        study: The study.
        everything: Whether to take slots from live workers too; they go on with others. Default: False.
    """
    for one in running_trials(study):
        gone = everything or one.state != "live"
        yield one, gone and fail(study, one.trial, f"{one.state}, given back by `optevo repair`")


def running_trial(trial: FrozenTrial) -> RunningTrial:
    """A running trial's worker, by what the trial and this machine tell."""
    worker, age = keys.ours(trial).get(keys.WORKER), beat_age(trial)
    if age is None:
        now = datetime.datetime.now(datetime.UTC)
        # A trial's start is a naive local time, and not all hours of those are an hour apart.
        age = (now - (trial.datetime_start or now).astimezone(datetime.UTC)).total_seconds()
    if worker is None:
        return RunningTrial(trial, "", "", age, "stale" if age > NAMELESS_SECONDS else "live")
    state: str = state_of(worker)
    if state == "elsewhere" or (state == "live" and age > GRACE_SECONDS):
        state = "stale" if age > GRACE_SECONDS else "live"
    return RunningTrial(
        trial, f"{host_name(worker)}, process {worker['pid']}", worker.get("device", ""), age, state
    )
