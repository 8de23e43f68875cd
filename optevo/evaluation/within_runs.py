"""Racing within a run: a trial whose training loss is too high at a tenth of it stops there. Pure Python.

The run is compared with those that the useful members of the generation before made of the same task with the
same seed: all begin with the same weights and see the same batches. Useful is who was among the best quarter
by the end of that run. How far behind the worst of them a trial may be depends on its schedule: the loss of
one whose rate is yet to fall says less of its end (docs/results.md#racing-within-runs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from optevo.samplers.slots import USEFUL
from optevo.training.fitness import tenths
from optevo.training.run import Run

# What a trial may be behind whose rate falls no further, and more where all of it is yet to go; as shares of
# the loss over the first tenth, since of the small losses of an easy task a share is nothing.
MARGIN, MARGIN_TO_FALL = 0.02, 0.1


def highest_losses(population: Sequence[Sequence[Run]], n_runs: int) -> list[list[float]]:
    """The highest loss that useful members had over each tenth of each run but the last tenth.

    Args:
        population: The whole runs of each member of a generation, in order.
        n_runs: Runs of a whole trial.

    Returns:
        n_runs lists, each as long as a run has tenths, less one; empty where no member ended that run.
    """
    useful = math.ceil(USEFUL * len(population))
    highest = []
    for n in range(1, n_runs + 1):
        sums = [
            (math.fsum(run.earned for run in runs[:n]), runs[n - 1]) for runs in population if len(runs) >= n
        ]
        sums = sorted((one for one in sums if one[0] > -math.inf), key=lambda one: one[0], reverse=True)
        losses = [run.losses[:-1] for _, run in sums[:useful]]
        known = [[loss for loss in tenth if loss is not None] for tenth in zip(*losses, strict=False)]
        highest.append([max(tenth, default=math.inf) for tenth in known])
    return highest


def margins(schedule: Callable[[int], float], steps: int) -> list[float]:
    """How far behind a trial may be at each tenth of a run but the last; 1 is the loss over the first tenth.

    Args:
        schedule: The factor on its learning rate at each step from 0 on.
        steps: Of the run.
    """
    last = schedule(steps - 1)
    falls = [schedule(mark - 1) - last for mark in tenths(steps)[:-1]]
    return [MARGIN + MARGIN_TO_FALL * min(max(fall, 0.0), 1.0) for fall in falls]


def behind_within(
    losses: Sequence[float | None], highest: Sequence[float], margins: Sequence[float]
) -> str | None:
    """Why a trial stops at one of these tenths of a run, the first that says so; None: it goes on.

    Args:
        losses: Mean training loss over each tenth so far.
        highest: Of this run, see `highest_losses`.
        margins: Of this candidate, see `margins`.
    """
    for n, (loss, high, margin) in enumerate(zip(losses, highest, margins, strict=False), 1):
        limit = high + margin * abs(highest[0])
        if loss is not None and loss > limit:
            return (
                f"racing: training loss {loss:.4f} in tenth {n} of the run; the best quarter of the "
                f"generation before had {high:.4f} or less, and {limit:.4f} would do"
            )
    return None


def share(losses: Sequence[float | None]) -> float:
    """How far a run came that was ended after these tenths, below 1: by tenths, then by the last loss."""
    loss = losses[-1]
    return (len(losses) - 1 + (0.0 if loss is None else math.exp(min(0.0, -loss)))) / 10
