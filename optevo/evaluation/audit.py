"""The gate's account: a share of what it refuses is trained all the same, and counts for nothing."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optevo.evaluation.faults import machines_fault
from optevo.liveness.processes import OwnProcess
from optevo.training.run import Run, total_fitness

if TYPE_CHECKING:
    from optevo.optim.candidate import Candidate
    from optevo.samplers.slots import Slot
    from optevo.study.config import StudyConfig
    from optevo.training.base import BaseBench

logger = logging.getLogger(__name__)

_PURPOSE = zlib.crc32(b"gate audit")  # no stream of a sampler's


def is_audited(config: StudyConfig, slot: Slot) -> bool:
    """Whether what the gate refuses in a slot is trained: the same whoever asks, and whenever."""
    share = config.evaluation.gate_audit
    drawn = np.random.default_rng([config.seed, *slot.place, slot.attempt, _PURPOSE])
    return share > 0 and drawn.random() < share


def audit(
    candidate: Candidate, bench: BaseBench, order: Sequence[tuple[int, int]], check: Callable[[], None]
) -> dict[str, Any]:
    """What a refused candidate would have earned, as it is stored.

    Args:
        candidate: Whom to train; nobody races it.
        bench: What to train it on.
        order: (task, seed) of its runs; they end with the first that diverges.
        check: Called every training step; what it raises ends the audit.

    Returns:
        Fitness, None where it has none; training steps and seconds; where the task raised, the error.
    """
    runs: list[Run] = []
    found: dict[str, Any] = {}
    try:
        for task, seed in order:
            with OwnProcess() as process:
                options = {"on_point": lambda step, loss: None, "check": process.guard(check)}
                runs.append(bench.run(candidate, task, seed, **options))
            if runs[-1].diverged:
                break
    except (Exception, SystemExit) as error:
        check()  # what a task raises while its worker is being stopped says nothing
        if machines_fault(error):
            raise
        logger.warning("what the gate had refused failed when it was trained", exc_info=True)
        found = {"error": f"{type(error).__name__}: {error}"}
    fitness = total_fitness(runs) if runs and not found else -math.inf
    return {
        "fitness": fitness if math.isfinite(fitness) else None,
        "steps": sum(run.steps for run in runs),
        "seconds": sum(run.seconds for run in runs),
        **found,
    }
