"""How a trial comes by its slot: claim it, read again, step back where somebody else is on it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.optuna_private import fail_trial, set_trial_system_attr, set_trial_user_attr, stored_trial
from optevo.samplers.slots import Slot, SlotTable, claimed

if TYPE_CHECKING:
    from optuna.study import Study

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05  # between a wait's first looks; they become as rare as one a second
_WARN_SECONDS = 60.0


class NoSlot(Exception):
    """Every slot of the present generation is taken, or the last one has ended; only with `endless=False`.

    Example:
        >>> import optuna
        >>> from optevo.samplers import GeneticSampler, NoSlot
        >>> sampler = GeneticSampler(population_size=4, n_generations=1, seed=0, endless=False)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=4)
        >>> try:
        ...     trial = study.ask()
        ... except NoSlot:
        ...     print("the search is over")
        the search is over
    """


def claim(
    study: Study,
    trial: FrozenTrial,
    look: Callable[[], SlotTable],
    lock: AbstractContextManager[object],
    *,
    key: str,
    patience: float,
    endless: bool,
) -> Slot:
    """Give `trial` a slot that no other trial has, waiting for one where need be.

    Args:
        study: Whose storage the claim is written to.
        trial: The asker.
        look: Reads the storage anew.
        lock: Held while a table is looked at, since threads share it.
        key: The system attribute in which trials claim slots.
        patience: Seconds without any change after which a slot is taken over from a trial presumed dead.
        endless: Whether to wait for the next generation rather than to raise.

    Raises:
        NoSlot: There is no open slot; the trial has been marked FAIL as surplus.
    """
    own = claimed(stored_trial(study, trial), key)
    with lock:
        if own is not None and not look().rivals(own, trial.number):  # a retry inherited its claim
            return own
    wait = _Wait(patience)
    # Not the search's randomness: it only keeps workers that met on a slot from meeting again.
    jitter: random.Random | None = None
    passed = 0
    while True:
        with lock:
            table = look()
            slots = table.claimable()
            if not slots and not endless:
                break
            slot = taken_over = table.longest_held() if not slots and wait.over(table) else None
            ahead = table.undecided(before=trial.number)
            # Those ahead are served first. One that lets three looks pass is dead, or as good as dead.
            passed = passed + 1 if 0 < len(slots) <= ahead else 0
            if slots and (ahead < len(slots) or passed > 3 or not patience or not endless):
                slot = slots[min(ahead, len(slots) - 1)] if jitter is None else jitter.choice(slots)
        if slot is None:
            wait.sleep()
            continue
        _write(study, trial, key, slot)
        with lock:
            if taken_over or not look().rivals(slot, trial.number):
                return slot
        _write(study, trial, key, None)
        jitter = jitter or random.Random()
        time.sleep(jitter.uniform(0, _POLL_SECONDS))
    set_trial_user_attr(study, trial, keys.SURPLUS, True)
    fail_trial(study, trial)
    raise NoSlot(f"generation {table.generation} has no open slot")


def furthest(trials: Sequence[FrozenTrial], slot: Slot) -> FrozenTrial | None:
    """Of the failed trials in `slot`, the one that got furthest in saying what it was to evaluate, if any.

    For samplers whose proposals depend on when they are asked: a slot's next trial is of the same one.
    """
    failed = [trial for trial in trials if trial.state == TrialState.FAIL and claimed(trial) == slot]
    return max(failed, key=lambda trial: len(trial.params), default=None)


def _write(study: Study, trial: FrozenTrial, key: str, slot: Slot | None) -> None:
    set_trial_system_attr(study, trial, key, None if slot is None else slot.claim)


class _Wait:
    """Patience that starts anew whenever a trial settles or a slot is taken."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.since = self.warned = time.monotonic()
        self.seen = (-1, -1)
        self.pause = _POLL_SECONDS

    def over(self, table: SlotTable) -> bool:
        """Whether to go on without those that are waited for."""
        now, running = time.monotonic(), [trial.number for trial in table.live(table.generation)]
        if (table.settled, len(running)) != self.seen:
            self.seen, self.since, self.warned = (table.settled, len(running)), now, now
        if now - self.warned >= _WARN_SECONDS:
            self.warned = now
            logger.warning("generation %d waits for trials %s", table.generation, running)
        return bool(running) and now - self.since >= self.patience

    def sleep(self) -> None:
        """Until the next look."""
        time.sleep(self.pause)
        self.pause = min(1.2 * self.pause, 1.0)
