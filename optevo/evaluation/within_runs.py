"""Racing within a run: a trial whose training loss is too high at a tenth of it stops there. Pure Python.

The run is compared with those that the useful members of the generation before made of the same task with the
same seed: all begin with the same weights and see the same batches. Useful is who was among the best quarter
by the end of that run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optevo.evaluation.racing import USEFUL
from optevo.training.run import Run

MARGIN = 0.1


def highest_losses(population: Sequence[Sequence[Run]], n_runs: int) -> list[list[float]]:
    """The highest loss that a trial may have over each tenth of each run but the last tenth.

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
        highest.append(
            [_bar([loss for loss in tenth if loss is not None]) for tenth in zip(*losses, strict=False)]
        )
    return highest


def _bar(losses: Sequence[float]) -> float:
    return max(losses, default=math.inf) * (1 + MARGIN)


def behind_within(losses: Sequence[float | None], highest: Sequence[float]) -> str | None:
    """Why a trial stops at one of these tenths of a run, the first that says so; None: it goes on.

    Args:
        losses: Mean training loss over each tenth so far.
        highest: Of this run, see `highest_losses`.
    """
    for n, (loss, most) in enumerate(zip(losses, highest, strict=False), 1):
        if loss is not None and loss > most:
            return (
                f"racing: training loss {loss:.4f} in tenth {n} of the run, at most {most:.4f} would do "
                "beside the best quarter of the generation before"
            )
    return None


def share(losses: Sequence[float | None]) -> float:
    """How far a run came that was ended after these tenths, below 1: by tenths, then by the last loss."""
    loss = losses[-1]
    return (len(losses) - 1 + (0.0 if loss is None else math.exp(min(0.0, -loss)))) / 10
