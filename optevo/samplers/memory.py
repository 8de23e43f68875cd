"""What a process remembers of a study's search; all of it can be read again from the storage."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from optevo.optuna_private import all_trials, storage_of, study_id
from optevo.samplers.individuals import individual
from optevo.samplers.operators import Variation
from optevo.samplers.slots import Member, Slot, SlotTable
from optevo.spaces.base import Params

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study


@dataclass
class SamplerCache:
    """One study's slots and offspring, and what of them need not be worked out again."""

    table: SlotTable
    seed: int
    start: datetime.datetime | None  # of the first trial: tells a study from one that had its number before
    slots: dict[int, Slot] = field(default_factory=dict)  # of this process's running trials, by id
    offspring: dict[tuple[int, tuple[str, ...]], list[Params]] = field(default_factory=dict)
    seen: dict[tuple[str, ...], list[set[int]]] = field(default_factory=dict)
    late: dict[tuple[str, ...], tuple[int, set[int]]] = field(default_factory=dict)
    own: dict[int, Any] = field(default_factory=dict)  # what a kind of sampler keeps of them, by id
    kept: dict[Any, Any] = field(default_factory=dict)  # what it keeps of the study

    def seen_before(self, generation: int, variation: Variation) -> set[int]:
        """The identity of every member of earlier generations, as far as the variation's parameters go."""
        by_generation = self.seen.setdefault(tuple(variation.distributions()), [])
        for g in range(len(by_generation), generation):
            by_generation.append(identities(self.table.populations[g], variation))
        return set().union(*by_generation[:generation])

    def seen_so_far(self, variation: Variation) -> set[int]:
        """The identity of every member of an asynchronous search."""
        names = tuple(variation.distributions())
        count, seen = self.late.get(names, (0, set()))
        fresh = list(itertools.islice(self.table.members(), count, None))
        seen |= identities(fresh, variation)
        self.late[names] = (count + len(fresh), seen)
        return seen


def identities(members: Iterable[Member], variation: Variation) -> set[int]:
    """The identity of each member that is whole."""
    found, names = set(), variation.distributions().keys()
    for member in members:
        params = individual(member.trial, names)
        if variation.whole(params):
            found.add(variation.identity(params))
    return found


class StudyCaches:
    """A cache a study; by storage and study, since one sampler may serve several studies.

    Args:
        lock: Held while caches are looked up, since threads share them.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._by_storage: weakref.WeakKeyDictionary[BaseStorage, dict[int, SamplerCache]] = (
            weakref.WeakKeyDictionary()
        )

    def get(
        self, study: Study, make_table: Callable[[], SlotTable], trials: Sequence[FrozenTrial] | None = None
    ) -> SamplerCache:
        """What is known of the study; begun anew where `trials` show another study in its place."""
        with self._lock:
            studies = self._by_storage.setdefault(storage_of(study), {})
            known = studies.get(study_id(study))
            if known is not None and (not trials or known.start == trials[0].datetime_start):
                return known
            trials = all_trials(study) if trials is None else trials
            start = trials[0].datetime_start if trials else None
            # The first trial's start is the one random thing about a study that all workers read alike.
            text = f"{study.study_name}\n{start.astimezone(datetime.UTC) if start else None}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            known = SamplerCache(make_table(), seed, start)
            known.table.update(trials, *study.directions)
            if trials:
                studies[study_id(study)] = known
            return known
