"""A candidate's runs in a trial: what it has earned by them, and whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optevo.evaluation.racing import behind, worth
from optevo.evaluation.within_runs import behind_within, share
from optevo.optim.candidate import Candidate
from optevo.training.run import Run, total_fitness

if TYPE_CHECKING:
    from optevo.training.base import OnPoint


@dataclass
class CandidateRuns:
    """One candidate under evaluation.

    Attributes:
        candidate: Who runs.
        n_runs: Runs of a whole trial.
        known: Runs of an earlier trial with the same canonical form, in order; taken over, not trained again.
        thresholds: What racing asks after each run, see `racing.thresholds`; empty for no racing.
        lowest: The lowest fitness that racing knows of each run, see `racing.lowest`.
        highest_losses: What racing asks within each run, see `within_runs`; empty for no such racing.
        margins: How far behind that this candidate may be, see there.
        known_unfinished: The run after the known ones, within which that trial lost the race. Default: none.
        runs: Those finished, in order.
        unfinished: The run within which this one did. Default: none.
        verdict: Why they ended before the last one, None while they go on and where they did not.
        value: The fitness, once they have ended; −∞ where it earned none.
        refused: Whether the gate turned it away.
        gate_seconds: How long that took to find out. Default: None, the gate was not asked.
        audit: What it earned where it was trained all the same, see `audit.audit`. Default: None.
    """

    candidate: Candidate
    n_runs: int
    known: Sequence[Run] = ()
    thresholds: Sequence[float] = ()
    lowest: Sequence[float] = ()
    highest_losses: Sequence[Sequence[float]] = ()
    margins: Sequence[float] = ()
    known_unfinished: Run | None = None
    runs: list[Run] = field(default_factory=list)
    unfinished: Run | None = None
    verdict: str | None = None
    value: float | None = None
    refused: bool = False
    gate_seconds: float | None = None
    audit: dict[str, Any] | None = None

    def enter(self, reason: str | None, seconds: float) -> None:
        """Through the gate: a rule that cannot descend ends here, without a fitness.

        Args:
            reason: What the gate said; None where it lets the candidate pass.
            seconds: How long making the candidate and asking took.
        """
        self.gate_seconds = seconds
        if reason is not None:
            self.refused = True
            self.fail(reason)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.value is not None

    @property
    def copied(self) -> int:
        """How many of the runs were taken over."""
        return min(len(self.known), len(self.runs))

    @property
    def trained(self) -> list[Run]:
        """The runs that were not taken over, an unfinished one included."""
        own = self.runs[self.copied :]
        if self.unfinished is not None and self.unfinished is not self.known_unfinished:
            own.append(self.unfinished)
        return own

    def take_known(self) -> None:
        """Go on with runs that are known, as far as they reach."""
        while not self.ended and len(self.runs) < len(self.known):
            self.add(self.known[len(self.runs)])
        known = self.known_unfinished
        if known is not None and not self.ended and self._behind(known.losses) is not None:
            self.add(known)

    def watch(self) -> OnPoint:
        """For one attempt at the next run: at each tenth of it, whether it ends there."""
        tenths: list[float] = []

        def on_point(step: int, loss: float) -> bool:
            tenths.append(loss)
            return self._behind(tenths) is not None

        return on_point

    def add(self, run: Run) -> None:
        """The next run is done, or was ended."""
        if run.unfinished:
            self._stop_within(run)
            return
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

    def _behind(self, tenths: Sequence[float | None]) -> str | None:
        """Why the next run ends at one of these tenths."""
        n = len(self.runs)
        if n >= len(self.highest_losses):
            return None
        return behind_within(tenths, self.highest_losses[n], self.margins)

    def _stop_within(self, run: Run) -> None:
        """It lost the race within a run, and is worth a little more than who stopped before that one."""
        self.unfinished, earned = run, [run.fitness for run in self.runs]
        value = worth(earned, self.n_runs, self.lowest, share=share(run.losses))
        if earned and math.isfinite(least := self.thresholds[len(earned) - 1]):
            value -= (math.fsum(earned) - least) / self.n_runs
        verdict = self._behind(run.losses)
        assert verdict is not None, run
        self._end(value, verdict)

    def fail(self, reason: str) -> None:
        """It has no fitness: worse than any."""
        self._end(-math.inf, reason)

    def _end(self, value: float, verdict: str | None) -> None:
        self.value, self.verdict = value, verdict
