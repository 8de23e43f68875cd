"""What is known already: runs of earlier generations by canonical form, and how their best fared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.evaluation.racing import lowest, thresholds
from optevo.optuna_private import all_trials
from optevo.samplers import sampler_of
from optevo.training.run import Run, read_run

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Record:
    """Runs of one canonical form, in the order in which runs are trained.

    Attributes:
        number: The trial that trained or copied them.
        runs: As many of a trial's runs as it had before it ended.
    """

    number: int
    runs: tuple[Run, ...]


class Race(NamedTuple):
    """What a trial is measured by, see `optevo.evaluation.racing`; empty for no race."""

    thresholds: Sequence[float] = ()
    lowest: Sequence[float] = ()


@dataclass
class Archive:
    """Finished generations, read from the storage as they end.

    Only generations before a trial's own are looked at: so what it copies and what it must beat depend on
    neither timing nor the number of workers. A study without generations has nothing to offer.
    """

    study: optuna.Study
    _read: int = 0  # generations
    _by_form: dict[str, Record] = field(default_factory=dict)
    _races: dict[tuple[int, int], Race] = field(default_factory=dict)

    def record(self, canonical: str, generation: int) -> Record | None:
        """The longest record of a canonical form before `generation`, the one in progress."""
        self._update(generation)
        return self._by_form.get(canonical)

    def race(self, generation: int, n_runs: int) -> Race:
        """The race of a trial of `generation`, against the members of the one before."""
        sampler = sampler_of(self.study)
        if generation == 0 or not sampler.has_generations:
            return Race()
        key = (generation, n_runs)
        if key not in self._races:
            trials, table = self._trials(), sampler.slot_table(self.study)
            last = min(generation, table.generation) - 1  # an asynchronous one may not have finished
            members = table.populations.get(last, [])
            fitness = [[read_run(run).earned for run in _runs(trials[member.number])] for member in members]
            self._races = {key: Race(thresholds(fitness, n_runs), lowest(fitness, n_runs))}
        return self._races[key]

    def _update(self, generation: int) -> None:
        sampler = sampler_of(self.study)
        if generation <= self._read or not sampler.has_generations:
            return
        trials, table = self._trials(), sampler.slot_table(self.study)
        finished = min(generation, table.generation)
        for g in range(self._read, finished):
            for member in sorted(table.populations[g], key=lambda m: (m.slot.generation, m.slot.index)):
                trial = trials[member.number]
                self._add(trial)
        self._read = finished

    def _add(self, trial: FrozenTrial) -> None:
        form, stored = trial.user_attrs.get(keys.CANONICAL), _runs(trial)
        before = self._by_form.get(form) if form else None
        if form and stored and (before is None or len(before.runs) < len(stored)):
            self._by_form[form] = Record(trial.number, tuple(read_run(run) for run in stored))

    def _trials(self) -> list[FrozenTrial]:
        return all_trials(self.study)


def _runs(trial: FrozenTrial) -> Sequence[dict[str, Any]]:
    finished = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    runs: Sequence[dict[str, Any]] = trial.user_attrs.get(keys.RUNS, []) if finished else []
    return runs
