"""What is known already: runs of earlier generations by canonical form, and how their best fared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.evaluation.racing import lowest, thresholds
from optevo.evaluation.within_runs import highest_losses
from optevo.optuna_private import all_trials, user_attr_of
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
        unfinished: The run after these, within which it lost the race. Default: none.
    """

    number: int
    runs: tuple[Run, ...]
    unfinished: Run | None = None

    @property
    def length(self) -> tuple[int, int]:
        """How far it reaches, in runs and tenths of a run."""
        return len(self.runs), 0 if self.unfinished is None else len(self.unfinished.losses)


class Race(NamedTuple):
    """What a trial is measured by, see `optevo.evaluation.racing`; empty for no race."""

    thresholds: Sequence[float] = ()
    lowest: Sequence[float] = ()
    highest_losses: Sequence[Sequence[float]] = ()


@dataclass
class Archive:
    """Finished generations, read from the storage as they end.

    Only generations before a trial's own are looked at: so what it copies and what it must beat depend on
    neither timing nor the number of workers. A study without generations has nothing to offer. What was only
    screened says nothing of a full evaluation, nor the other way round.

    Args:
        study: One of ours.
        screens: Whether a generation has the cheap evaluation. Default: none has.
    """

    study: optuna.Study
    screens: Callable[[int], bool] = lambda generation: False
    _read: int = 0  # generations
    # By form and whether it was screened: trials as they finished, and what they came to.
    _unread: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    _by_form: dict[tuple[str, bool], Record] = field(default_factory=dict)
    _races: dict[tuple[int, int], Race] = field(default_factory=dict)

    def record(self, canonical: str, generation: int) -> Record | None:
        """The longest record of a canonical form before `generation`, the one in progress."""
        self._update(generation)
        key = canonical, self.screens(generation)
        record, unread = self._by_form.get(key), self._unread.pop(key, [])
        trials = self._trials() if unread else ()
        for number in unread:
            found = Record(number, *_runs(trials[number]))
            if found.length > (record.length if record else (0, 0)):
                record = self._by_form[key] = found
        return record

    def race(self, generation: int, n_runs: int) -> Race:
        """The race of a trial of `generation`, against the members of the one before."""
        sampler = sampler_of(self.study)
        if generation == 0 or not (sampler.has_generations and sampler.races):
            return Race()
        key = (generation, n_runs)
        if key not in self._races:
            trials, table = self._trials(), sampler.slot_table(self.study)
            last = min(generation, table.generation) - 1  # an asynchronous one may not have finished
            members = [
                member
                for member in table.populations.get(last, [])
                if self.screens(member.slot.generation) == self.screens(generation)
            ]
            runs = [_runs(trials[member.number])[0] for member in members]
            fitness = [[run.earned for run in each] for each in runs]
            asked = thresholds(fitness, n_runs), lowest(fitness, n_runs), highest_losses(runs, n_runs)
            self._races = {key: Race(*asked)}
        return self._races[key]

    def _update(self, generation: int) -> None:
        sampler = sampler_of(self.study)
        if generation <= self._read or not sampler.has_generations:
            return
        table = sampler.slot_table(self.study)
        finished = min(generation, table.generation)
        members = [
            member
            for g in range(self._read, finished)
            for member in sorted(table.populations[g], key=lambda m: (m.slot.generation, m.slot.index))
        ]
        forms = user_attr_of(self.study, keys.CANONICAL, [member.trial for member in members])
        for member, form in zip(members, forms, strict=True):
            if isinstance(form, str) and form:
                key = form, self.screens(member.slot.generation)
                self._unread.setdefault(key, []).append(member.number)
        self._read = finished

    def _trials(self) -> Sequence[FrozenTrial]:
        return all_trials(self.study)


def _runs(trial: FrozenTrial) -> tuple[tuple[Run, ...], Run | None]:
    """The whole runs of a finished trial, and the unfinished one."""
    attrs = keys.ours(trial) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else {}
    unfinished = attrs.get(keys.UNFINISHED)
    return tuple(map(read_run, attrs.get(keys.RUNS, []))), read_run(unfinished) if unfinished else None
