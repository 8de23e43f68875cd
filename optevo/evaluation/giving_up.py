"""When trial after trial comes to nothing in one slot, it is given up."""

from __future__ import annotations

import logging

import optuna

from optevo import keys
from optevo.errors import UserError
from optevo.liveness.lost import GONE
from optevo.samplers import sampler_of
from optevo.samplers.slots import Slot, fate

logger = logging.getLogger(__name__)

MAX_FAILURES = 3  # exceptions in one slot, after which it is given up
# Processes lost in one slot, after which it is too. A killed process is rather often the machine's fault;
# one that the out-of-memory killer gets every time is not.
MAX_LOSSES = 10
# Trials that came to nothing in one slot, for whatever reason, interrupted ones too, after which it does.
MAX_ATTEMPTS = 30


def given_up_for(trial: optuna.Trial, slot: Slot) -> tuple[str | None, list[int]]:
    """Why the slot of a trial is given up, None where it is not; and the trials that came to nothing in it.

    Logs where it is tried again.
    """
    sampler = sampler_of(trial.study)
    failed = sampler.failed_before(trial.study, slot)
    attempts = [*failed, *sampler.interrupted_before(trial.study, slot)]
    numbers = sorted(t.number for t in attempts)
    if not attempts:
        return None, numbers
    errors = [t for t in failed if keys.ERROR in keys.ours(t)]
    lost = sum(t.system_attrs.get(keys.LOST, "").endswith(GONE) for t in failed)
    last = max(attempts, key=lambda t: t.number)
    how = f"trial {last.number} {fate(last)}"
    if len(errors) >= MAX_FAILURES:
        said = keys.ours(errors[-1])[keys.ERROR].strip().splitlines()[-1]
        return f"failed {len(errors)} times: {said}", numbers
    if lost >= MAX_LOSSES:
        return f"{lost} processes were lost at it", numbers
    if len(attempts) >= MAX_ATTEMPTS:
        return f"{len(attempts)} trials came to nothing, the last: {how}", numbers
    place = f"slot {slot.index} of generation {slot.generation}"
    logger.warning("%s is tried again, attempt %d: %s", place, len(attempts) + 1, how)
    return None, numbers


def unmade(slot: Slot, why: str) -> UserError:
    """What ends a search where a slot is given up whose optimizer cannot be made: nothing of it is known."""
    return UserError(
        f"slot {slot.index} of generation {slot.generation} {why}; its optimizer cannot be made. Its failed "
        "trials have the traceback. Mend the space, then run the same command"
    )
