"""`SlotSampler`: generations of slots behind Optuna's sampler interface; a subclass says how to breed."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.optuna_private import (
    all_trials,
    in_optimize_loop,
    set_trial_system_attr,
    set_trial_user_attr,
    stored_trial,
    trial_id,
)
from optevo.samplers.claiming import claim, earlier_params
from optevo.samplers.memory import SamplerCache, StudyCaches
from optevo.samplers.operators import (
    Generic,
    Params,
    Variation,
    check_presets,
    draw,
    identity,
    inherit,
)
from optevo.samplers.slots import Member, Slot, SlotTable, claimed

if TYPE_CHECKING:
    from optuna.study import Study

    from optevo.spaces.base import Space

# What a generator is for; two purposes never share a stream.
_MATE, _CHILD, _INDEPENDENT, _LOOSE = range(4)


class SlotSampler(BaseSampler):
    """Exact generations for any number of workers; who is bred from whom is a subclass's.

    A trial claims a slot of its generation in the storage, and the slot names its individual: all randomness
    comes from (seed, generation, slot). Pruned trials are members that rank by the value they earned; fixed
    and enqueued parameters hold a slot like any other; elites are carried over without another evaluation.

    A subclass implements `breed`, and `choose_parents` where children have parents. One that proposes in
    another way, as those of `optevo.samplers.wrapped`, overrides Optuna's own methods.

    Trials get the user attributes `generation`, `slot`, `parents` (trial numbers) and `origin`.

    Args:
        population_size: Members of a generation.
        n_generations: How many there are; with `endless`, over how many something may anneal. Default: None.
        n_elites: Members carried over unchanged. Default: 0.
        seed: Seed of the search. Default: None, derived from the study's name and first moment.
        space: Variation on a known space. Default: None, generic operators.
        presets: Parameters that hold the first slots of generation 0.
        group_size: So many neighbouring slots belong to one trial at a time, see `group`. Default: 1.
        max_failures: Failed trials after which a slot is given up and leaves the population. None: never.
            Default: 3.
        patience: Seconds without any change after which a worker in `study.optimize` takes over a slot from
            the longest-running trial, which is presumed dead. Default: 600.
        endless: False makes `ask` raise `NoSlot` instead of waiting or starting a generation beyond
            `n_generations`; the surplus trial is marked FAIL. Default: True.
        asynchronous: The next generation begins as soon as a generation's slots are all taken, and its
            children are bred from whoever has finished. Such a search cannot be repeated. Default: False.

    Attributes:
        has_generations: Whether later generations are bred from earlier ones, so that racing and copies can
            look back. Default: True.
        origin: What a bred trial's attribute `origin` says.
        on_trial: Called with study and trial before anything else happens to a trial. Default: None.

    Raises:
        ValueError: A size or a preset's value is out of range, or the study has several objectives.
    """

    has_generations = True
    origin = "bred"

    def __init__(
        self,
        *,
        population_size: int,
        n_generations: int | None = None,
        n_elites: int = 0,
        seed: int | None = None,
        space: Space | None = None,
        presets: Sequence[Mapping[str, Any]] = (),
        group_size: int = 1,
        max_failures: int | None = 3,
        patience: float = 600.0,
        endless: bool = True,
        asynchronous: bool = False,
    ) -> None:
        for name, value, least in (
            ("population_size", population_size, 1),
            ("n_elites", n_elites, 0),
            ("n_generations", n_generations, 1),
            ("seed", seed, 0),
            ("group_size", group_size, 1),
            ("max_failures", max_failures, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"Invalid {name}: {value}, expected at least {least}")
        if n_elites >= population_size:
            raise ValueError(f"Invalid n_elites: {n_elites}, expected 0 to {population_size - 1}")
        if len(presets) > population_size:
            raise ValueError(f"Invalid presets: {len(presets)} of them in a population of {population_size}")
        if asynchronous and group_size > 1:
            raise ValueError("Invalid group_size: an asynchronous search has no groups, set it to 1")
        if not patience >= 0:
            raise ValueError(f"Invalid patience: {patience}, expected at least 0 seconds")
        if space is not None:
            check_presets(presets, space.distributions())
        self.population_size = population_size
        self.n_generations = n_generations
        self.n_elites = n_elites
        self.seed = seed
        self.space = space
        self.presets = [dict(preset) for preset in presets]
        self.group_size = group_size
        self.max_failures = max_failures
        self.patience = patience
        self.endless = endless
        self.asynchronous = asynchronous
        self.on_trial: Callable[[Study, FrozenTrial], None] | None = None
        self._reset()

    # For a subclass

    def choose_parents(self, population: Sequence[Member], rng: np.random.Generator) -> list[Member]:
        """The parents of one child, of a population sorted best first. Default: none."""
        return []

    def breed(
        self,
        variation: Variation,
        parents: Sequence[Params],
        rng: np.random.Generator,
        *,
        generation: int,
        seen: set[int],
    ) -> Params:
        """One child.

        Args:
            variation: The space's, or a generic one on what the objective suggests.
            parents: Their parameters, as `choose_parents` chose; none in generation 0.
            rng: All randomness.
            generation: The child's, from 0 on.
            seen: `identity` of all that have been proposed, for those who avoid repeating it.
        """
        return variation.sample(rng)

    def adjust(self, value: Any, d: BaseDistribution, rng: np.random.Generator, generation: int) -> Any:
        """What becomes of an inherited parameter that lies outside the common space. Default: it stays."""
        return value

    # Optuna's interface

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot; writes the claim and the lineage."""
        self._check(study)
        if self.on_trial is not None:
            self.on_trial(study, trial)
        slot = claim(
            study,
            trial,
            lambda: self.slot_table(study),
            self._lock,
            patience=self.patience if in_optimize_loop(study) else 0.0,
            endless=self.endless,
        )
        self._cache(study).slots[trial_id(trial)] = slot
        attrs = self.lineage(study, slot)
        if trial.system_attrs.get("fixed_params"):
            attrs |= {keys.PARENTS: [], keys.ORIGIN: "enqueued"}
        for key, value in attrs.items():
            set_trial_user_attr(study, trial, key, value)
        trial.user_attrs = {**trial.user_attrs, **attrs}  # Optuna read the trial before

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
            return (self.space or Generic(search_space)).sample(self._rng(study, _LOOSE, trial.number))
        if self.asynchronous and slot.generation:
            child = self._asynchronous_child(study, trial, slot, search_space)
        else:
            child = self._offspring(study, slot.generation, search_space)[slot.index]
        return {name: child[name] for name in search_space if name in child}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter outside the common space: a preset's, a parent's where one has it, or a draw."""
        self._check(study)
        slot, name_key = self.slot(study, trial), zlib.crc32(param_name.encode())
        if slot is None:
            return draw(param_distribution, self._rng(study, _LOOSE, trial.number, name_key))
        rng = self._rng(study, _INDEPENDENT, slot.generation, slot.index, name_key)
        parents = self._parents(study, trial, slot)
        if slot.generation == 0 and slot.index < len(self.presets):
            return inherit(param_name, param_distribution, [self.presets[slot.index]], rng)
        value = inherit(param_name, param_distribution, parents, rng)
        return self.adjust(value, param_distribution, rng, slot.generation) if parents else value

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Mark a trial late whose slot another has decided meanwhile."""
        slot = self.slot(study, trial)
        self._cache(study).slots.pop(trial_id(trial), None)
        if not self.endless:  # then slots are only taken over from trials that have been failed
            return
        if slot is not None and self.slot_table(study).decided(slot):
            set_trial_system_attr(study, trial, keys.LATE, True)

    def reseed_rng(self) -> None:
        """Nothing to do: randomness follows from the slot, so parallel workers never repeat each other."""

    # For whoever runs the study

    def slot_table(self, study: Study) -> SlotTable:
        """The study's slots as the storage has them now."""
        with self._lock:
            trials = all_trials(study)
            table = self._cache(study, trials).table
            table.update(trials, study.direction)
            return table

    def slot(self, study: Study, trial: FrozenTrial) -> Slot | None:
        """A trial's slot, None where it has none."""
        known = self._cache(study).slots.get(trial_id(trial))
        # `trial` was read before `before_trial` wrote the claim.
        return claimed(stored_trial(study, trial)) if known is None else known

    def failed_before(self, study: Study, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that had failed in a slot when its present trial was given it, but for interrupted ones."""
        return self._cache(study).table.failed(slot)

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
        """User attributes that say where a slot's individual comes from."""
        parents = self._mates(study, slot)
        origin = self.origin if parents else "random"
        if slot.generation == 0 and slot.index < len(self.presets):
            origin = "preset"
        return {
            keys.GENERATION: slot.generation,
            keys.SLOT: slot.index,
            keys.PARENTS: [member.number for member in parents],
            keys.ORIGIN: origin,
        }

    # What is remembered of a study; all of it can be read again from the storage

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._caches = StudyCaches(self._lock)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_caches", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _cache(self, study: Study, trials: list[FrozenTrial] | None = None) -> SamplerCache:
        return self._caches.get(study, self._make_table, trials)

    def _check(self, study: Study) -> None:
        if len(study.directions) > 1:
            raise ValueError(f"{type(self).__name__} has one objective, the study has several")

    def _make_table(self) -> SlotTable:
        return SlotTable(
            self.population_size,
            self.n_elites,
            self.max_failures,
            self.group_size,
            n_generations=None if self.endless else self.n_generations,
            asynchronous=self.asynchronous,
        )

    def _rng(self, study: Study, *purpose: int) -> np.random.Generator:
        seed = self._cache(study).seed if self.seed is None else self.seed
        return np.random.default_rng([seed, *purpose])

    # Parents and children

    def _mates(self, study: Study, slot: Slot) -> list[Member]:
        """The parents of a slot's child, none in generation 0."""
        if slot.generation == 0:
            return []
        population = self._population(study, slot)
        if self.space is not None:  # a trial that ended before it had all its parameters does not breed
            names = self.space.distributions().keys()
            population = [member for member in population if names <= member.params.keys()]
        if not population:
            return []
        return self.choose_parents(population, self._rng(study, _MATE, slot.generation, slot.index))

    def _population(self, study: Study, slot: Slot) -> list[Member]:
        """Whom the children of a slot's generation are bred from."""
        table = self._cache(study).table
        return table.recent() if self.asynchronous else table.populations[slot.generation - 1]

    def _parents(self, study: Study, trial: FrozenTrial, slot: Slot) -> list[Params]:
        """The parameters of a trial's parents; asynchronous, of those that it was given when it began."""
        if not self.asynchronous:
            return [member.params for member in self._mates(study, slot)]
        trials, numbers = all_trials(study), stored_trial(study, trial).user_attrs.get(keys.PARENTS, [])
        return [trials[number].params for number in numbers]

    def _asynchronous_child(
        self, study: Study, trial: FrozenTrial, slot: Slot, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """One child of an asynchronous search, bred when asked for; again the same where it failed before."""
        variation = self.space or Generic(search_space)
        names = tuple(variation.distributions())
        earlier = earlier_params(all_trials(study), slot)
        if earlier.keys() >= set(names):
            return earlier
        rng = self._rng(study, _CHILD, slot.generation, slot.index)
        seen = self._cache(study).seen_so_far(names)
        parents = self._parents(study, trial, slot)
        return self.breed(variation, parents, rng, generation=slot.generation, seen=seen)

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
        known, names = self._cache(study), tuple(variation.distributions())
        seen = known.seen_before(generation, names)
        offspring = []
        for i in range(known.table.size(generation)):
            rng = self._rng(study, _CHILD, generation, i)
            parents = [member.params for member in self._mates(study, Slot(generation, i))]
            if generation == 0 and i < len(self.presets):
                child = {**variation.sample(rng), **self.presets[i]}
            else:
                child = self.breed(variation, parents, rng, generation=generation, seen=seen)
            seen.add(identity(child))
            offspring.append(child)
        return offspring


def sampler_of(study: Study) -> SlotSampler:
    """The sampler of a study of ours; every kind in `optevo.samplers.SAMPLERS` is a `SlotSampler`."""
    return cast(SlotSampler, study.sampler)
