"""A candidate's runs in a trial: what it has earned by them, and whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from optevo.evaluation.racing import behind, worth
from optevo.optim.candidate import Candidate
from optevo.training.run import Run, total_fitness


@dataclass
class CandidateRuns:
    """One candidate under evaluation.

    Attributes:
        candidate: Who runs.
        n_runs: Runs of a whole trial.
        known: Runs of an earlier trial with the same canonical form, in order; taken over, not trained again.
        thresholds: What racing asks after each run, see `racing.thresholds`; empty for no racing.
        lowest: The lowest fitness that racing knows of each run, see `racing.lowest`.
        runs: Those finished, in order.
        verdict: Why they ended before the last one, None while they go on and where they did not.
        value: The fitness, once they have ended; −∞ where it earned none.
    """

    candidate: Candidate
    n_runs: int
    known: Sequence[Run] = ()
    thresholds: Sequence[float] = ()
    lowest: Sequence[float] = ()
    runs: list[Run] = field(default_factory=list)
    verdict: str | None = None
    value: float | None = None

    def enter(self) -> None:
        """Through the gate: a rule that cannot descend ends here, without a fitness."""
        reason = self.candidate.gate()
        if reason is not None:
            self.fail(reason)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.value is not None

    @property
    def copied(self) -> int:
        """How many of the runs were taken over."""
        return min(len(self.known), len(self.runs))

    def take_known(self) -> None:
        """Go on with runs that are known, as far as they reach."""
        while not self.ended and len(self.runs) < len(self.known):
            self.add(self.known[len(self.runs)])

    def add(self, run: Run) -> None:
        """The next run is done."""
        self.runs.append(run)
        if run.failure is not None:
            self.fail(f"failed: {run.task}, seed {run.seed}: {run.failure}")
        elif run.diverged_at is not None:
            self.fail(f"diverged: {run.task}, seed {run.seed}, step {run.diverged_at}")
        elif len(self.runs) == self.n_runs:
            self._end(total_fitness(self.runs), None)
        elif (reason := behind([run.fitness for run in self.runs], self.thresholds)) is not None:
            self.stop(reason)

    def stop(self, reason: str) -> None:
        """End early, with the fitness that the runs so far are worth."""
        self._end(worth([run.fitness for run in self.runs], self.n_runs, self.lowest), reason)

    def fail(self, reason: str) -> None:
        """It has no fitness: worse than any."""
        self._end(-math.inf, reason)

    def _end(self, value: float, verdict: str | None) -> None:
        self.value, self.verdict = value, verdict
