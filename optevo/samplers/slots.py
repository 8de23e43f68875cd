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
bred from it. Its members are ranked: first those that completed, then those that were pruned, by value each.
Who keeps to its constraints is before who does not, and these rank by how much they miss them, as in Optuna's
NSGA-II; pruned trials without a value are last.

Asynchronous, nobody waits for that: once a generation's slots are all taken, those of the next one are open,
and children are bred from whoever has finished, see `SlotTable.recent`.

With a `group_size` above one, neighbouring slots form groups and a trial claims its whole group: nobody else
takes a slot in which a trial of the group is at work.

Where a place has several attempts, each is a slot with an individual of its own. The next one opens where an
attempt has ended without a value, and the last one that finished is the place's member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.samplers.fronts import crowding, fronts
from optevo.samplers.individuals import params_of
from optevo.spaces.base import Params

# With tournaments of four, two parents in three come from the best quarter of a population.
USEFUL = 0.25


@dataclass(frozen=True)
class Slot:
    """One place in a generation, and which attempt at it."""

    generation: int
    index: int
    attempt: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """Generation and index, whichever the attempt."""
        return self.generation, self.index

    @property
    def claim(self) -> list[int]:
        """What a trial writes that claims it."""
        return [*self.place, self.attempt] if self.attempt else [*self.place]


@dataclass(frozen=True)
class Member:
    """A trial that counts in a population."""

    number: int
    slot: Slot
    value: float  # infinitely bad where the trial earned none
    trial: FrozenTrial = field(repr=False, compare=False)

    @property
    def params(self) -> Params:
        """The trial's, which a storage may read only now, with its dormant ones."""
        return params_of(self.trial)

    complete: bool = True  # pruned otherwise
    values: tuple[float, ...] = ()  # of several objectives; `value` is the first of them
    violation: float = 0.0  # by how much it misses its constraints, in all


@dataclass
class _Holders:
    live: dict[int, FrozenTrial] = field(default_factory=dict)
    finished: list[FrozenTrial] = field(default_factory=list)
    failed: list[FrozenTrial] = field(default_factory=list)  # but for interrupted ones
    interrupted: list[FrozenTrial] = field(default_factory=list)

    @property
    def decider(self) -> FrozenTrial:
        """The one that counts of those that have finished."""
        return min(self.finished, key=lambda trial: trial.number)


class SlotTable:
    """The slots of one study. `update` is incremental: its cost does not grow with the history.

    Args:
        population_size: Slots of generation 0.
        n_elites: Members carried over into each later generation.
        max_failures: Failed trials after which a slot is given up; None: never.
        group_size: Slots of a group. Default: 1.
        n_generations: There are no slots beyond so many. Default: None, no end.
        asynchronous: Whether the next generation opens before all slots are decided. Default: False.
        sizes: Places of a generation, given the finished ones. Default: as above.
        attempts: Attempts at each place of a generation. Default: one.
        claim_key: The system attribute in which trials claim slots. Those that claim under another key are
            none of this table's. Default: `keys.CLAIM`.

    Attributes:
        populations: Finished generations, best member first.
        earlier_attempts: Of finished generations, those attempts that another one followed.
    """

    def __init__(
        self,
        population_size: int,
        n_elites: int,
        max_failures: int | None,
        group_size: int = 1,
        *,
        n_generations: int | None = None,
        asynchronous: bool = False,
        sizes: Callable[[int, Mapping[int, Sequence[Member]]], int] | None = None,
        attempts: Callable[[int], int] = lambda generation: 1,
        claim_key: str = keys.CLAIM,
    ) -> None:
        self.population_size = population_size
        self.n_elites = n_elites
        self.max_failures = max_failures
        self.group_size = group_size
        self.n_generations = n_generations
        self.asynchronous = asynchronous
        self.generation = 0  # the first that is in progress
        self.populations: dict[int, list[Member]] = {}
        self.earlier_attempts: dict[int, list[Member]] = {}
        self.attempts = attempts
        self.claim_key = claim_key
        self._other_keys = {keys.CLAIM, keys.STAGE_CLAIM} - {claim_key}
        self._sizes = sizes
        self._members: dict[Slot, Member] = {}  # of all generations, asynchronous only
        self._directions: Sequence[StudyDirection] = [StudyDirection.MINIMIZE]
        self._unsettled: dict[int, FrozenTrial] = {}
        self._read = 0
        self._holders: dict[Slot, _Holders] = {}

    def size(self, generation: int) -> int:
        """Number of places of a generation."""
        if self._sizes is not None:
            return self._sizes(generation, self.populations)
        return bred_size(generation, self.population_size, self.n_elites)

    def update(self, trials: Sequence[FrozenTrial], *directions: StudyDirection) -> None:
        """Take in the storage's present state; `trials` are all of the study's, in order."""
        self._directions = directions
        for holders in self._holders.values():
            holders.live.clear()
        fresh = [trials[number] for number in self._unsettled] + list(trials[self._read :])
        self._read = len(trials)
        self._unsettled = {}
        for trial in fresh:
            if not self._other_keys.isdisjoint(trial.system_attrs):
                continue
            if not trial.state.is_finished():
                self._unsettled[trial.number] = trial
            slot = self.claimed(trial)
            if slot is None or slot.generation < self.generation or keys.LATE in trial.system_attrs:
                continue
            holders = self._holders.setdefault(slot, _Holders())
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                holders.finished.append(trial)
                if self.asynchronous:
                    self._members.setdefault(slot, _member(trial, slot, directions))
            elif trial.state == TrialState.FAIL:
                interrupted = keys.ours(trial).get(keys.INTERRUPTED, False)
                (holders.interrupted if interrupted else holders.failed).append(trial)
            else:
                holders.live[trial.number] = trial
        while not self.ended and not self.open(self.generation) and not self.live(self.generation):
            self._finish()

    def open(self, generation: int) -> list[Slot]:
        """Slots that nobody holds, those that failed before last."""
        return sorted(filter(self._is_open, self._current(generation)), key=self._failures)

    def group(self, slot: Slot) -> list[Slot]:
        """The slots that train together with `slot`, itself among them, in order."""
        first = slot.index - slot.index % self.group_size
        last = min(first + self.group_size, self.size(slot.generation))
        return [replace(slot, index=i) for i in range(first, last)]

    @property
    def ended(self) -> bool:
        """Whether the last generation has finished."""
        return self.n_generations is not None and self.generation >= self.n_generations

    def claimable(self) -> list[Slot]:
        """Open slots for new trials: of each group in which nobody is at work, the first of `open`.

        They are of the generation in progress; asynchronous, of the first that has any.
        """
        generation = self.generation
        while self.n_generations is None or generation < self.n_generations:
            first: dict[int, Slot] = {}
            for slot in self.open(generation):
                if not any(self._at_work(other) for other in self.group(slot)):
                    first.setdefault(slot.index // self.group_size, slot)
            if first or not self.asynchronous:
                return list(first.values())
            generation += 1
        return []

    def members(self) -> Iterable[Member]:
        """Those that have finished in whichever generation, as they came in; asynchronous only."""
        return self._members.values()

    def recent(self) -> list[Member]:
        """A population of whoever has finished, best first: the elites of all, and the latest of the others.

        A window that slides over the generations; asynchronous only.
        """
        ranked = self._ranked(list(self._members.values()))
        elites, others = ranked[: self.n_elites], ranked[self.n_elites :]
        others.sort(key=lambda member: member.number, reverse=True)
        return self._ranked(elites + others[: self.size(1)])

    def live(self, generation: int) -> list[FrozenTrial]:
        """Trials at work on undecided slots of a generation, the longest-running first."""
        held = (self._holders.get(slot) for slot in self._current(generation))
        trials = (t for h in held if h is not None and not h.finished for t in h.live.values())
        return sorted(trials, key=lambda trial: trial.number)

    def undecided(self, before: float = math.inf) -> int:
        """How many trials numbered below `before` are running and have not chosen a slot."""
        running = (t for t in self._unsettled.values() if t.state == TrialState.RUNNING)
        return sum(trial.number < before and self.claimed(trial) is None for trial in running)

    def claimed(self, trial: FrozenTrial) -> Slot | None:
        """The slot of this table that a trial's attributes name, if any."""
        return claimed(trial, self.claim_key)

    def failed(self, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that failed in a slot of a generation in progress, but for interrupted ones."""
        holders = self._holders.get(slot)
        return () if holders is None else holders.failed

    def interrupted(self, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that were interrupted in a slot of a generation in progress."""
        holders = self._holders.get(slot)
        return () if holders is None else holders.interrupted

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
        slots = [slot for trial in self.live(self.generation) if (slot := self.claimed(trial)) is not None]
        return min(slots, key=lambda slot: (slots.count(slot), slots.index(slot)))

    def _current(self, generation: int) -> Iterator[Slot]:
        """The attempt that each place of a generation has come to."""
        n_attempts = self.attempts(generation)
        for i in range(self.size(generation)):
            slot = Slot(generation, i)
            while slot.attempt + 1 < n_attempts and self._came_to_nothing(slot):
                slot = replace(slot, attempt=slot.attempt + 1)
            yield slot

    def _came_to_nothing(self, slot: Slot) -> bool:
        holders = self._holders.get(slot)
        return holders is not None and bool(holders.finished) and earned(holders.decider) is None

    def _at_work(self, slot: Slot) -> Iterable[int]:
        holders = self._holders.get(slot)
        return () if holders is None else holders.live

    def _is_open(self, slot: Slot) -> bool:
        holders = self._holders.get(slot)
        if holders is None:
            return True
        spent = self.max_failures is not None and len(holders.failed) >= self.max_failures
        return not (holders.live or holders.finished or spent)

    def _failures(self, slot: Slot) -> int:
        holders = self._holders.get(slot)
        return 0 if holders is None else len(holders.failed)

    def _finish(self) -> None:
        """Rank the generation in progress, with the elites before it, and go on to the next."""
        g = self.generation
        members = self.populations[g - 1][: self.n_elites] if g else []
        earlier: list[Member] = []
        for last in list(self._current(g)):
            slots = (replace(last, attempt=attempt) for attempt in range(last.attempt + 1))
            held = [(slot, self._holders.pop(slot)) for slot in slots]
            done = [_member(h.decider, slot, self._directions) for slot, h in held if h.finished]
            members = [*members, *done[-1:]]
            earlier += done[:-1]
        self.populations[g] = self._ranked(members)
        self.earlier_attempts[g] = earlier
        self.generation += 1

    def _ranked(self, members: list[Member]) -> list[Member]:
        """Best first. Of several objectives: front by front, and in a front the loneliest first."""
        ranked = sorted(members, key=self._order)
        if len(self._directions) == 1:
            return ranked
        whole = [member for member in ranked if member.complete]
        losses = [self._losses(member) for member in whole]
        found = fronts(losses, [member.violation for member in whole])
        by_front: list[Member] = []
        for front in range(max(found, default=-1) + 1):
            places = [place for place, one in enumerate(found) if one == front]
            lonely = crowding([losses[place] for place in places])
            by_front += [whole[i] for _, i in sorted(zip(lonely, places, strict=True), key=lambda p: -p[0])]
        return by_front + [member for member in ranked if not member.complete]

    def _losses(self, member: Member) -> list[float]:
        signs = [-1 if d == StudyDirection.MAXIMIZE else 1 for d in self._directions]
        return [sign * value for sign, value in zip(signs, member.values, strict=True)]

    def _order(self, member: Member) -> tuple[bool, float, bool, float, int, int]:
        # What a pruned trial earned is of a part of the work, and on any scale: no match for a whole one's.
        # Ties by slot, not by trial number: who evaluated a slot must not change the ranking.
        loss = -member.value if self._directions[0] == StudyDirection.MAXIMIZE else member.value
        nothing = not member.complete and loss == math.inf
        slot = member.slot
        return nothing, member.violation, not member.complete, loss, slot.generation, slot.index


def bred_size(generation: int, population_size: int, n_elites: int) -> int:
    """Places of a generation whose elites, but for the first generation, take none."""
    return population_size if generation == 0 else population_size - n_elites


def claimed(trial: FrozenTrial, key: str = keys.CLAIM) -> Slot | None:
    """The slot that a trial's attributes name under `key`, if any; by default the search's."""
    claim = trial.system_attrs.get(key)
    return None if claim is None else Slot(*claim)


def places(trials: Iterable[FrozenTrial]) -> int:
    """At how many places trials have a slot, whichever attempt."""
    return len({slot.place for trial in trials if (slot := claimed(trial)) is not None})


def fate(trial: FrozenTrial) -> str:
    """What became of a failed trial, for people, such as "was interrupted"."""
    if keys.ERROR in keys.ours(trial):
        lines = str(keys.ours(trial)[keys.ERROR]).strip().splitlines() or [""]
        return f"failed: {lines[-1]}"
    if keys.ours(trial).get(keys.INTERRUPTED):
        return "was interrupted"
    if keys.LOST in trial.system_attrs:
        return f"lost its worker ({trial.system_attrs[keys.LOST]})"
    return "was ended by something else"


def _member(trial: FrozenTrial, slot: Slot, directions: Sequence[StudyDirection]) -> Member:
    worst = -math.inf if directions[0] == StudyDirection.MAXIMIZE else math.inf
    value = earned(trial)
    complete = trial.state == TrialState.COMPLETE
    values = tuple(trial.values or ()) if len(directions) > 1 else ()
    missed = math.fsum(max(0.0, constraint) for constraint in trial.constraints.values())
    return Member(trial.number, slot, worst if value is None else value, trial, complete, values, missed)


def earned(trial: FrozenTrial) -> float | None:
    """The value of a finished trial; None where it earned none.

    It earned none where it is pruned without a value: a run of it diverged, its rule cannot descend, or its
    slot was given up. Older studies have −1 there, which is no score either.
    """
    value: float | None = trial.values[0] if trial.values else None
    if value is None or math.isnan(value):
        return None
    if value == -1 and trial.state == TrialState.PRUNED:
        runs = keys.ours(trial).get(keys.RUNS)  # None where an objective of somebody's own prunes
        if runs is not None and (not runs or any(run["diverged_at"] is not None for run in runs)):
            return None
    return value
