"""One run's outcome, as it is stored; whatever made it. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One task with one seed.

    Attributes:
        task: The task's name.
        seed: Decides the initial weights, batch order, augmentation and dropout.
        fitness: See `optevo.training.fitness`; −1 for a diverged run.
        metric: What the task's `score` returned; None for a diverged run.
        loss: Mean training loss of the last 50 steps; None for a diverged run and where the task scores by
            itself.
        losses: Mean training loss over each tenth of the run, None where it is not finite; empty where the
            task scores by itself.
        steps: Training steps taken.
        seconds: Wall-clock time, scoring included.
        diverged_at: The first step, from 0, whose loss was not finite or above 50; the number of steps where
            only the score was not finite.
    """

    task: str
    seed: int
    fitness: float
    metric: float | None
    loss: float | None
    losses: tuple[float | None, ...]
    steps: int
    seconds: float
    diverged_at: int | None
