"""Who holds which slot: a generation's exact bookkeeping, read from the storage alone.

Generation 0 has `population_size` slots, every later one `population_size − n_elites`: elites are carried
over, not trained again. A trial claims a slot by writing it to its own attributes and reading again. If
anybody else is on that slot it steps back and chooses anew, so two trials never work on one slot; since the
later of two writers always sees the earlier one's claim, no lock is needed. Askers that have not chosen yet
are ordered by trial number and take the open slots in that order, so that they rarely meet.

A slot is decided by the first trial that finishes in it (COMPLETE or PRUNED), or given up after
`max_failures` failed ones. A generation ends when all its slots have: only then are children bred from it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.samplers.operators import Params, identity

# A claim takes milliseconds: a RUNNING trial without one after this long has lost its process.
UNDECIDED_SECONDS = 60.0


@dataclass(frozen=True)
class Slot:
    """One place in a generation."""

    generation: int
    index: int


@dataclass(frozen=True)
class Member:
    """A trial that counts in a population."""

    number: int
    value: float  # infinitely bad where the trial earned none
    params: Params = field(repr=False)


@dataclass
class _Holders:
    live: dict[int, FrozenTrial] = field(default_factory=dict)
    finished: list[FrozenTrial] = field(default_factory=list)
    failures: int = 0


class Board:
    """The slots of one study. `update` is incremental: its cost does not grow with the history.

    Args:
        population_size: Slots of generation 0.
        n_elites: Members carried over into each later generation.
        max_failures: Failed trials after which a slot is given up.
    """

    def __init__(self, population_size: int, n_elites: int, max_failures: int) -> None:
        self.population_size = population_size
        self.n_elites = n_elites
        self.max_failures = max_failures
        self.generation = 0  # the one in progress
        self.populations: dict[int, list[Member]] = {}  # finished generations, best member first
        self.seen: set[int] = set()  # `identity` of every member so far
        self._unsettled: dict[int, FrozenTrial] = {}
        self._read = 0
        self._holders: dict[Slot, _Holders] = {}

    def size(self, generation: int) -> int:
        """Number of slots of a generation."""
        return self.population_size if generation == 0 else self.population_size - self.n_elites

    def update(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        """Take in the storage's present state; `trials` are all of the study's, in order."""
        for holders in self._holders.values():
            holders.live.clear()
        fresh = [trials[number] for number in self._unsettled] + list(trials[self._read :])
        self._read = len(trials)
        self._unsettled = {}
        for trial in fresh:
            if not trial.state.is_finished():
                self._unsettled[trial.number] = trial
            slot = claimed(trial)
            if slot is None:
                continue
            holders = self._holders.setdefault(slot, _Holders())
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                holders.finished.append(trial)
            elif trial.state == TrialState.FAIL:
                holders.failures += not trial.user_attrs.get(keys.INTERRUPTED, False)
            else:
                holders.live[trial.number] = trial
        while not self.open(self.generation) and not self.live(self.generation):
            self._finish(direction)

    def open(self, generation: int) -> list[Slot]:
        """Slots that nobody holds, in order."""
        slots = (Slot(generation, i) for i in range(self.size(generation)))
        return [slot for slot in slots if self._is_open(slot)]

    def live(self, generation: int) -> list[FrozenTrial]:
        """Trials at work on undecided slots of a generation, the longest-running first."""
        slots = (Slot(generation, i) for i in range(self.size(generation)))
        held = (self._holders.get(slot) for slot in slots)
        trials = (t for h in held if h is not None and not h.finished for t in h.live.values())
        return sorted(trials, key=lambda trial: trial.number)

    def undecided(self, before: float = math.inf) -> int:
        """How many trials numbered below `before` are running and have not chosen a slot."""
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        return sum(
            trial.number < before
            and trial.state == TrialState.RUNNING
            and claimed(trial) is None
            and trial.datetime_start is not None
            and (now - trial.datetime_start).total_seconds() < UNDECIDED_SECONDS
            for trial in self._unsettled.values()
        )

    def rivals(self, slot: Slot, number: int) -> bool:
        """Whether a trial other than `number` works on `slot` or has decided it."""
        holders = self._holders.get(slot, _Holders())
        return bool(holders.finished) or any(n != number for n in holders.live)

    @property
    def settled(self) -> int:
        """How many trials have finished, whatever the state."""
        return self._read - len(self._unsettled)

    def longest_held(self) -> Slot:
        """The live slot of the generation in progress that was claimed first, least often taken over."""
        slots = [slot for trial in self.live(self.generation) if (slot := claimed(trial)) is not None]
        return min(slots, key=lambda slot: (slots.count(slot), slots.index(slot)))

    def _is_open(self, slot: Slot) -> bool:
        holders = self._holders.get(slot)
        if holders is None:
            return True
        return not holders.live and not holders.finished and holders.failures < self.max_failures

    def _finish(self, direction: StudyDirection) -> None:
        """Rank the generation in progress, with the elites before it, and go on to the next."""
        g = self.generation
        members = self.populations[g - 1][: self.n_elites] if g else []
        for i in range(self.size(g)):
            holders = self._holders.pop(Slot(g, i))
            if holders.finished:
                trial = min(holders.finished, key=lambda t: (t.datetime_complete, t.number))
                members = [*members, _member(trial, direction)]
        best_first = -1 if direction == StudyDirection.MAXIMIZE else 1
        self.populations[g] = sorted(members, key=lambda m: (best_first * m.value, m.number))
        self.seen.update(identity(member.params) for member in members)
        self.generation += 1


def claimed(trial: FrozenTrial) -> Slot | None:
    """The slot that a trial's attributes name, if any."""
    claim = trial.system_attrs.get(keys.CLAIM)
    return None if claim is None else Slot(*claim)


def _member(trial: FrozenTrial, direction: StudyDirection) -> Member:
    worst = -math.inf if direction == StudyDirection.MAXIMIZE else math.inf
    value = trial.values[0] if trial.values else None
    return Member(trial.number, worst if value is None or math.isnan(value) else value, trial.params)
