"""Who holds which slot: a generation's exact bookkeeping, read from the storage alone.

Generation 0 has `population_size` slots, every later one `population_size − n_elites`: elites are carried
over, not trained again. A trial claims a slot by writing it to its own attributes and reading again. If
anybody else is on that slot it steps back and chooses anew, so two trials never work on one slot; since the
later of two writers always sees the earlier one's claim, no lock is needed. Askers that have not chosen yet
are ordered by trial number and take the open slots in that order, so that they rarely meet. Which trial takes
which slot does not matter: the genome is the slot's.

A slot is decided by the trial that finishes in it (COMPLETE or PRUNED). After `max_failures` failed ones it
is given up and leaves the population. Should a trial that was presumed dead finish after another has decided
its slot, it is late and does not count. A generation ends when all its slots have: only then are children
bred from it.

With a `group_size` above one, neighbouring slots form groups and a trial claims its whole group: nobody else
takes a slot in which a trial of the group is at work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.samplers.operators import Params

# A trial that names its worker but no error was killed with it: rather often the machine's fault.
MAX_LOSSES = 10


@dataclass(frozen=True)
class Slot:
    """One place in a generation."""

    generation: int
    index: int


@dataclass(frozen=True)
class Member:
    """A trial that counts in a population."""

    number: int
    slot: Slot
    value: float  # infinitely bad where the trial earned none
    params: Params = field(repr=False)


@dataclass
class _Holders:
    live: dict[int, FrozenTrial] = field(default_factory=dict)
    finished: list[FrozenTrial] = field(default_factory=list)
    failures: int = 0  # that say something about the genome
    losses: int = 0  # of a process, about which the genome can do nothing, most likely


class Board:
    """The slots of one study. `update` is incremental: its cost does not grow with the history.

    Args:
        population_size: Slots of generation 0.
        n_elites: Members carried over into each later generation.
        max_failures: Failed trials after which a slot is given up.
        group_size: Slots of a group. Default: 1.
    """

    def __init__(self, population_size: int, n_elites: int, max_failures: int, group_size: int = 1) -> None:
        self.population_size = population_size
        self.n_elites = n_elites
        self.max_failures = max_failures
        self.group_size = group_size
        self.generation = 0  # the one in progress
        self.populations: dict[int, list[Member]] = {}  # finished generations, best member first
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
            if slot is None or slot.generation < self.generation or keys.LATE in trial.system_attrs:
                continue
            holders = self._holders.setdefault(slot, _Holders())
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                holders.finished.append(trial)
            elif trial.state == TrialState.FAIL:
                lost = keys.WORKER in trial.user_attrs and keys.ERROR not in trial.user_attrs
                if not trial.user_attrs.get(keys.INTERRUPTED, False):
                    holders.losses += lost
                    holders.failures += not lost
            else:
                holders.live[trial.number] = trial
        while not self.open(self.generation) and not self.live(self.generation):
            self._finish(direction)

    def open(self, generation: int) -> list[Slot]:
        """Slots that nobody holds, those that failed before last."""
        slots = (Slot(generation, i) for i in range(self.size(generation)))
        return sorted(filter(self._is_open, slots), key=self._attempts)

    def group(self, slot: Slot) -> list[Slot]:
        """The slots that train together with `slot`, itself among them, in order."""
        first = slot.index - slot.index % self.group_size
        last = min(first + self.group_size, self.size(slot.generation))
        return [Slot(slot.generation, i) for i in range(first, last)]

    def claimable(self, generation: int) -> list[Slot]:
        """Open slots for new trials: of each group in which nobody is at work, the first of `open`."""
        first: dict[int, Slot] = {}
        for slot in self.open(generation):
            if not any(self._at_work(other) for other in self.group(slot)):
                first.setdefault(slot.index // self.group_size, slot)
        return list(first.values())

    def live(self, generation: int) -> list[FrozenTrial]:
        """Trials at work on undecided slots of a generation, the longest-running first."""
        slots = (Slot(generation, i) for i in range(self.size(generation)))
        held = (self._holders.get(slot) for slot in slots)
        trials = (t for h in held if h is not None and not h.finished for t in h.live.values())
        return sorted(trials, key=lambda trial: trial.number)

    def undecided(self, before: float = math.inf) -> int:
        """How many trials numbered below `before` are running and have not chosen a slot."""
        running = (t for t in self._unsettled.values() if t.state == TrialState.RUNNING)
        return sum(trial.number < before and claimed(trial) is None for trial in running)

    def decided(self, slot: Slot) -> bool:
        """Whether a trial has finished in `slot`, or its generation has ended."""
        holders = self._holders.get(slot)
        return slot.generation < self.generation or (holders is not None and bool(holders.finished))

    def rivals(self, slot: Slot, number: int) -> bool:
        """Whether a trial other than `number` works on the group of `slot` or has decided `slot`."""
        at_work = (n for other in self.group(slot) for n in self._at_work(other))
        return self.decided(slot) or any(n != number for n in at_work)

    @property
    def settled(self) -> int:
        """How many trials have finished, whatever the state."""
        return self._read - len(self._unsettled)

    def longest_held(self) -> Slot:
        """The live slot of the generation in progress that was claimed first, least often taken over."""
        slots = [slot for trial in self.live(self.generation) if (slot := claimed(trial)) is not None]
        return min(slots, key=lambda slot: (slots.count(slot), slots.index(slot)))

    def _at_work(self, slot: Slot) -> Iterable[int]:
        holders = self._holders.get(slot)
        return () if holders is None else holders.live

    def _is_open(self, slot: Slot) -> bool:
        holders = self._holders.get(slot)
        if holders is None:
            return True
        spent = holders.failures >= self.max_failures or holders.losses >= MAX_LOSSES
        return not holders.live and not holders.finished and not spent

    def _attempts(self, slot: Slot) -> int:
        holders = self._holders.get(slot)
        return 0 if holders is None else holders.failures + holders.losses

    def _finish(self, direction: StudyDirection) -> None:
        """Rank the generation in progress, with the elites before it, and go on to the next."""
        g = self.generation
        members = self.populations[g - 1][: self.n_elites] if g else []
        for i in range(self.size(g)):
            holders = self._holders.pop(Slot(g, i))
            if holders.finished:
                trial = min(holders.finished, key=lambda t: t.number)
                members = [*members, _member(trial, Slot(g, i), direction)]
        best_first = -1 if direction == StudyDirection.MAXIMIZE else 1
        # Ties by slot, not by trial number: who evaluated a slot must not change the ranking.
        order = lambda m: (best_first * m.value, m.slot.generation, m.slot.index)  # noqa: E731
        self.populations[g] = sorted(members, key=order)
        self.generation += 1


def claimed(trial: FrozenTrial) -> Slot | None:
    """The slot that a trial's attributes name, if any."""
    claim = trial.system_attrs.get(keys.CLAIM)
    return None if claim is None else Slot(*claim)


def _member(trial: FrozenTrial, slot: Slot, direction: StudyDirection) -> Member:
    worst = -math.inf if direction == StudyDirection.MAXIMIZE else math.inf
    value = trial.values[0] if trial.values else None
    earned = worst if value is None or math.isnan(value) else value
    return Member(trial.number, slot, earned, trial.params)
