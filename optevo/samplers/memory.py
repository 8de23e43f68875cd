"""What a process remembers of a study's search; all of it can be read again from the storage."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import dataclass, field

from optevo.samplers.operators import Params, identity
from optevo.samplers.slots import Slot, SlotTable


@dataclass
class SamplerCache:
    """One study's slots and offspring, and what of them need not be worked out again."""

    board: SlotTable
    seed: int
    start: datetime.datetime | None  # of the first trial: tells a study from one that had its number before
    slots: dict[int, Slot] = field(default_factory=dict)  # of this process's running trials, by id
    offspring: dict[tuple[int, tuple[str, ...]], list[Params]] = field(default_factory=dict)
    seen: dict[tuple[str, ...], list[set[int]]] = field(default_factory=dict)
    late: dict[tuple[str, ...], tuple[int, set[int]]] = field(default_factory=dict)

    def seen_before(self, generation: int, names: tuple[str, ...]) -> set[int]:
        """The identity of every member of earlier generations, as far as `names` go."""
        by_generation = self.seen.setdefault(names, [])
        for g in range(len(by_generation), generation):
            members = self.board.populations[g]
            by_generation.append({identity({n: m.params.get(n) for n in names}) for m in members})
        return set().union(*by_generation[:generation])

    def seen_so_far(self, names: tuple[str, ...]) -> set[int]:
        """The identity of every member of an asynchronous search."""
        count, seen = self.late.get(names, (0, set()))
        members = self.board.members()
        fresh = list(itertools.islice(members, count, None))
        seen.update(identity({n: m.params.get(n) for n in names}) for m in fresh)
        self.late[names] = (count + len(fresh), seen)
        return seen
