"""`BreedingSampler`: children of a generation bred from the one before; a subclass says how."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.optuna_private import all_trials, set_trial_system_attr, stored_trial
from optevo.samplers.base import SlotSampler
from optevo.samplers.claiming import furthest
from optevo.samplers.individuals import individual, params_of, split
from optevo.samplers.operators import (
    Generic,
    Variation,
    check_presets,
    draw,
    given,
    inherit,
)
from optevo.samplers.slots import Member, Slot
from optevo.spaces.base import Params

if TYPE_CHECKING:
    from optuna.study import Study

    from optevo.spaces.base import Space

# What a generator is for; two purposes never share a stream.
_MATE, CHILD, _INDEPENDENT, _LOOSE = range(4)


class BreedingSampler(SlotSampler):
    """Individuals are bred from members of the generation before.

    All randomness comes from (seed, generation, slot): the same seed gives the same individuals whatever the
    number of workers and however often they are killed, as long as the objective is deterministic.

    A subclass implements `choose_parents` and `breed`.

    Args:
        space: Variation on a known space. Default: None, generic operators on what the objective suggests.
        **options: See `SlotSampler`.

    Raises:
        ValueError: See `SlotSampler`; or a preset is no point of the space.

    Example:
        >>> import optuna
        >>> from optevo.samplers import BreedingSampler
        >>> class Walk(BreedingSampler):
        ...     def choose_parents(self, population, rng, slot):
        ...         return population[:1]  # the best
        ...     def breed(self, variation, parents, rng, *, slot, seen):
        ...         return variation.vary(parents, rng, 1.0) if parents else variation.sample(rng)
        >>> study = optuna.create_study(sampler=Walk(population_size=10, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=50)
    """

    origin = "bred"

    def __init__(self, *, space: Space | None = None, **options: Any) -> None:
        super().__init__(**options)
        if space is not None:
            known = space.distributions()
            unknown = any(preset.keys() - known.keys() for preset in self.presets)
            dormant = space.sample(np.random.default_rng(0)).keys() if unknown else ()
            check_presets(self.presets, known, dormant)
        self.space = space

    # For a subclass

    def choose_parents(
        self, population: Sequence[Member], rng: np.random.Generator, slot: Slot
    ) -> list[Member]:
        """The parents of the child in `slot`, of a population sorted best first. Default: none."""
        return []

    def breed(
        self,
        variation: Variation,
        parents: Sequence[Params],
        rng: np.random.Generator,
        *,
        slot: Slot,
        seen: set[int],
    ) -> Params:
        """The child in `slot`. Default: a draw from the prior.

        Args:
            variation: The space's, or a generic one on what the objective suggests.
            parents: Their parameters, as `choose_parents` chose; none in generation 0.
            rng: All randomness.
            slot: The child's.
            seen: The variation's `identity` of all that have been proposed, for those who avoid repeating it.
        """
        return variation.sample(rng)

    def adjust(self, value: Any, d: BaseDistribution, rng: np.random.Generator, generation: int) -> Any:
        """What becomes of an inherited parameter that lies outside the common space. Default: it stays."""
        return value

    # Optuna's interface

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space's parameters, or those that all possible parents have in common."""
        self._check(study)
        if self.space is not None:
            return self.space.distributions()
        slot = self.slot(study, trial)
        if slot is None or slot.generation == 0:
            return {}
        trials, population = all_trials(study), self._population(study, slot)
        return intersection_search_space([trials[m.number] for m in population], include_pruned=True)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The individual that the trial's slot names, as far as `search_space` asks for it."""
        self._check(study)
        if not search_space:
            return {}
        slot = self.slot(study, trial)
        if slot is None:  # called without `study.ask`: no slot, so a draw
            child = (self.space or Generic(search_space)).sample(self._rng(study, _LOOSE, trial.number))
        elif self.asynchronous and slot.generation:
            child = self._asynchronous_child(study, trial, slot, search_space)
        else:
            child = self._child(study, slot, search_space)
        suggested, dormant = split(child, search_space)
        if dormant and not trial.system_attrs.get("fixed_params"):
            set_trial_system_attr(study, trial, keys.DORMANT, dormant)
        return suggested

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter outside the common space: a preset's, a parent's where one has it, or a draw."""
        self._check(study)
        slot, name_key = self.slot(study, trial), zlib.crc32(param_name.encode())
        if slot is None:
            return draw(param_distribution, self._rng(study, _LOOSE, trial.number, name_key))
        rng = self._rng(study, _INDEPENDENT, *slot.claim, name_key)
        parents = [params_of(parent) for parent in self._parents(study, trial, slot)]
        if self.is_preset(slot):
            preset = self.presets[slot.index]
            if param_name not in preset:
                return draw(param_distribution, rng)
            return given(param_name, preset[param_name], param_distribution)
        value = inherit(param_name, param_distribution, parents, rng)
        return self.adjust(value, param_distribution, rng, slot.generation) if parents else value

    # For whoever runs the study

    def group(self, study: Study, slot: Slot) -> dict[Slot, Params]:
        """The individuals that train together with the one in `slot`, in order of their slots.

        They are the same whatever is decided already: those who stack them get the same stack again.

        Raises:
            ValueError: The sampler has no space, so it doesn't know what a trial will suggest.
        """
        if self.space is None:
            raise ValueError(f"a {type(self).__name__} without a space does not know its individuals")
        offspring = self._offspring(study, slot.generation, self.space.distributions())
        return {other: offspring[other.index] for other in self._cache(study).table.group(slot)}

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """Attributes that say where a slot's individual comes from."""
        parents, known = self._mates(study, slot), super().lineage(study, slot)
        origin = self.origin if parents else "random"
        return {
            **known,
            keys.PARENTS: [member.number for member in parents],
            keys.ORIGIN: known[keys.ORIGIN] if self.is_preset(slot) else origin,
        }

    # Parents and children

    def _rng(self, study: Study, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._study_seed(study), *purpose])

    def _study_seed(self, study: Study) -> int:
        return self._cache(study).seed if self.seed is None else self.seed

    def _mates(self, study: Study, slot: Slot) -> list[Member]:
        """The parents of a slot's child, none in generation 0."""
        if slot.generation == 0:
            return []
        population = self._population(study, slot)
        # A trial that ended before it had all its parameters does not breed.
        population = [member for member in population if self._is_whole(study, member)]
        if not population:
            return []
        rng = self._rng(study, _MATE, slot.generation, slot.index)
        return self.choose_parents(population, rng, slot)

    def _is_whole(self, study: Study, member: Member) -> bool:
        if self.space is None:
            return True
        whole: dict[int, bool] = self._cache(study).kept.setdefault("whole", {})
        if member.number not in whole:
            whole[member.number] = self.space.whole(member.params)
        return whole[member.number]

    def _population(self, study: Study, slot: Slot) -> list[Member]:
        """Whom the children of a slot's generation are bred from."""
        table = self._cache(study).table
        return table.recent() if self.asynchronous else table.populations[slot.generation - 1]

    def _parents(self, study: Study, trial: FrozenTrial, slot: Slot) -> list[FrozenTrial]:
        """A trial's parents; asynchronous, those that it was given when it began."""
        if not self.asynchronous:
            return [member.trial for member in self._mates(study, slot)]
        trials, numbers = all_trials(study), keys.ours(stored_trial(study, trial)).get(keys.PARENTS, [])
        return [trials[number] for number in numbers]

    def _asynchronous_child(
        self, study: Study, trial: FrozenTrial, slot: Slot, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """One child of an asynchronous search, bred when asked for; again the same where it failed before."""
        variation = self.space or Generic(search_space)
        earlier = furthest(all_trials(study), slot)
        if earlier is not None and variation.whole(child := individual(earlier, search_space)):
            return child
        rng = self._rng(study, CHILD, slot.generation, slot.index)
        seen = self._cache(study).seen_so_far(variation)
        parents = [individual(parent, search_space) for parent in self._parents(study, trial, slot)]
        return self.breed(variation, parents, rng, slot=slot, seen=seen)

    def _child(self, study: Study, slot: Slot, search_space: dict[str, BaseDistribution]) -> Params:
        """The child in a slot."""
        return self._offspring(study, slot.generation, search_space)[slot.index]

    def _offspring(
        self, study: Study, generation: int, search_space: dict[str, BaseDistribution]
    ) -> list[Params]:
        """Every child of a generation, no two alike where the subclass sees to it."""
        with self._lock:
            known = self._cache(study)
            key = (generation, () if self.space else tuple(search_space))
            if key not in known.offspring:
                # A straggler may still be in the generation before; nobody looks further back.
                known.offspring = {k: v for k, v in known.offspring.items() if k[0] >= generation - 1}
                variation = self.space or Generic(search_space)
                known.offspring[key] = self._breed_all(study, generation, variation)
            return known.offspring[key]

    def _breed_all(self, study: Study, generation: int, variation: Variation) -> list[Params]:
        known, names = self._cache(study), variation.distributions().keys()
        seen = known.seen_before(generation, variation)
        offspring = []
        for i in range(known.table.size(generation)):
            slot, rng = Slot(generation, i), self._rng(study, CHILD, generation, i)
            parents = [individual(member.trial, names) for member in self._mates(study, slot)]
            if self.is_preset(slot):
                child = dict(self.presets[i])
                child = child if variation.whole(child) else {**variation.sample(rng), **child}
            else:
                child = self.breed(variation, parents, rng, slot=slot, seen=seen)
            seen.add(variation.identity(child))
            offspring.append(child)
        return offspring
