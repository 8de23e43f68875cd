"""What a trial reports while it trains: for people in a dashboard, and for Optuna's pruners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optevo.training.run import Run

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

CURVE_POINTS = 10  # intermediate values a trial; a dashboard page of 2,500 trials with more is slow


class Pruned(Exception):
    """The study's pruner says that the trial should end here."""


def make_curve(trial: optuna.Trial, config: StudyConfig, n_runs: int) -> Curve:
    """What fits the study's pruner."""
    if config.evaluation.pruner == "wilcoxon":
        return Instances(trial, n_runs, config.evaluation.run_steps)
    return Curve(trial, n_runs, config.evaluation.run_steps)


class Curve:
    """Reports at most ten points a trial, on one step axis that is the same for all trials.

    Within a run a point is exp(−training loss), the likelihood of the right answer, averaged with the fitness
    of the runs already done; it costs nothing and lies on the scale of the published fitness. A task whose
    fitness is its score alone has points after its runs only. The last point, which the objective reports, is
    the fitness, NaN where there is none.

    Args:
        trial: Who reports.
        n_runs: Runs of a whole trial.
        steps: Training steps a run, at most; where all have the same operations, of one with AdamW.
    """

    def __init__(self, trial: optuna.Trial, n_runs: int, steps: int) -> None:
        self.trial, self.n_runs, self.steps = trial, n_runs, steps
        self.done: list[float] = []
        self.reported = 0

    def within(self, step: int, loss: float) -> None:
        """A run has come to `step`; raises `Pruned`."""
        self._point(len(self.done) * self.steps + step, [*self.done, math.exp(min(0.0, -loss))])

    def after(self, run: Run) -> None:
        """A run is done; raises `Pruned`."""
        self.done.append(run.fitness)
        self._point(len(self.done) * self.steps, self.done)

    def _point(self, step: int, values: Sequence[float]) -> None:
        passed = step * CURVE_POINTS // (self.n_runs * self.steps)
        if self.reported < passed < CURVE_POINTS:
            self.reported = passed
            self._report(sum(values) / len(values), step)

    def _report(self, value: float, step: int) -> None:
        self.trial.report(value, step=step)
        if self.trial.should_prune():
            name = type(self.trial.study.pruner).__name__
            raise Pruned(f"{name}: {value:.4f} at step {step}")


class Instances(Curve):
    """Reports each run's fitness under the run's number: the instances that `WilcoxonPruner` compares."""

    def within(self, step: int, loss: float) -> None:
        """Nothing: an unfinished run is no instance."""

    def after(self, run: Run) -> None:
        """A run is done; raises `Pruned`."""
        self.done.append(run.fitness)
        self._report(run.fitness, len(self.done) - 1)
