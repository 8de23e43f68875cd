"""Racing: a trial that cannot place among the useful part of its generation stops early. Pure Python.

Runs go in one order for all trials. After each, what a trial has earned so far is compared with what the
members of the generation before had earned by then, and a trial that would not have been among the best
quarter of them stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optevo.samplers.slots import USEFUL
from optevo.training.fitness import DIVERGED


def thresholds(population: Sequence[Sequence[float]], n_runs: int) -> list[float]:
    """The least that a trial must have earned after each run but the last.

    Args:
        population: The fitness of each member's runs, −∞ for one that diverged; a member that stopped early
            has fewer than `n_runs`.
        n_runs: Runs of a whole trial.

    Returns:
        n_runs − 1 sums of fitness: what the best quarter of the population had by then, or all those that
        came so far where they are fewer.
    """
    useful = math.ceil(USEFUL * len(population))
    if all(value >= 0 for fitness in population for value in fitness if math.isfinite(value)):
        # −1 is below every score then; and studies of such scores have always been raced so.
        population = [[max(value, DIVERGED) for value in fitness] for fitness in population]
    least = []
    for n in range(1, n_runs):
        sums = sorted((math.fsum(fitness[:n]) for fitness in population if len(fitness) >= n), reverse=True)
        least.append(sums[: max(useful, 1)][-1] if sums else -math.inf)
    return least


def behind(earned: Sequence[float], thresholds: Sequence[float]) -> str | None:
    """Why a trial with these runs stops, or None: it goes on, or it has no run left to save."""
    n = len(earned)
    if not 0 < n <= len(thresholds) or math.fsum(earned) >= thresholds[n - 1]:
        return None
    return (
        f"racing: {math.fsum(earned) / n:.4f} a run after {n} of {len(thresholds) + 1}, "
        f"the best quarter of the generation before had {thresholds[n - 1] / n:.4f}"
    )


def lowest(population: Sequence[Sequence[float]], n_runs: int) -> list[float]:
    """The lowest fitness of each run that did not diverge, 0 where none is below.

    Args:
        population: As in `thresholds`.
        n_runs: Runs of a whole trial.
    """
    known = [[fitness[i] for fitness in population if i < len(fitness)] for i in range(n_runs)]
    return [min((value for value in values if value > -math.inf), default=0.0) for values in known]


def worth(
    earned: Sequence[float], n_runs: int, lowest: Sequence[float] = (), *, share: float | None = None
) -> float:
    """The fitness of a trial that stopped early: a run not taken counts 0, or the lowest known if less.

    So among its like it ranks by how far it came. Below those that went on it ranks whatever it is worth, see
    `optevo.samplers.slots`.

    Args:
        earned: The fitness of its runs, none of which diverged.
        n_runs: Runs of a whole trial.
        lowest: The lowest fitness that others had in each run. Default: none is known.
        share: How far the next run came before it was ended, below 1; it counts so much of the way from a run
            not taken to the lowest that is known. Default: None, it was not begun.
    """
    own = min(earned, default=0.0)
    left = [min(0.0, own, *lowest[i : i + 1]) for i in range(len(earned), n_runs)]
    if share is not None:
        left[0] += share * (lowest[len(earned)] - left[0])
    return math.fsum([*earned, *left]) / n_runs
