"""`GeneticSampler`: tournament, elites, crossover and annealed mutation behind Optuna's sampler interface."""

from __future__ import annotations

import datetime
import hashlib
import threading
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.samplers.claiming import claim, earlier_params
from optevo.samplers.memory import SamplerCache
from optevo.samplers.operators import (
    Generic,
    Params,
    Variation,
    annealing,
    check_presets,
    draw,
    identity,
    inherit,
    mutate_value,
    tournament,
    unique_child,
)
from optevo.samplers.slots import Member, Slot, SlotTable, claimed

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from optevo.spaces.base import Space

# What a generator is for; two purposes never share a stream.
_MATE, _CHILD, _INDEPENDENT, _LOOSE = range(4)


class GeneticSampler(BaseSampler):
    """A genetic algorithm with exact generations for any number of workers.

    Each generation is bred from the finished previous one: `n_elites` members stay as they are without being
    evaluated again, every other place is a child of two tournament winners, crossed over and mutated. Pruned
    trials are members that rank by the value they earned. All randomness comes from (seed, generation, slot),
    so the same seed gives the same genomes whatever the number of workers and however often they are killed,
    as long as the objective is deterministic. Cost per ask does not grow with the number of trials.

    With a `space` (for instance `optevo.spaces.TermSpace()`) its own prior, crossover and mutation are used;
    without one, sane operators on whatever the objective suggests. Works with fixed and enqueued parameters:
    such a trial holds a slot like any other.

    Inside `study.optimize`, a worker waits where a generation's slots are all taken and not all finished. If
    nothing finishes for `patience` seconds, the longest-running trial is presumed dead and its slot evaluated
    again; with plain `study.ask()`, which must not wait, this happens at once. The first to finish counts.

    `asynchronous`, nobody waits: once a generation's slots are all taken, the next one begins, and its
    children are bred from whoever has finished, the `n_elites` best of all and the latest of the others. What
    is bred then depends on who finishes when: such a search cannot be repeated.

    Trials get the user attributes `generation`, `slot`, `parents` (trial numbers) and `origin`.

    Args:
        population_size: Members of a generation. Default: 50.
        n_generations: Over how many generations mutation anneals to half its strength. Default: None, never.
        n_elites: Members carried over unchanged. Default: 3.
        tournament_size: Members drawn for each parent. Default: 4.
        seed: Seed of the search. Default: None, derived from the study's name and first moment.
        space: Variation on a known space. Default: None, generic operators.
        presets: Parameters that hold the first slots of generation 0.
        group_size: So many neighbouring slots belong to one trial at a time, see `group`. Default: 1.
        max_failures: Failed trials after which a slot is given up and leaves the population. None: never.
            Default: 3.
        patience: Seconds, see above. Default: 600.
        endless: False makes `ask` raise `NoSlot` instead of waiting or starting a generation beyond
            `n_generations`; the surplus trial is marked FAIL. Default: True.
        asynchronous: See above. Default: False.

    Raises:
        ValueError: A size or a preset's value is out of range, or the study has several objectives.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=GeneticSampler(population_size=20, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=100)
    """

    has_generations = True

    def __init__(
        self,
        *,
        population_size: int = 50,
        n_generations: int | None = None,
        n_elites: int = 3,
        tournament_size: int = 4,
        seed: int | None = None,
        space: Space | None = None,
        presets: Sequence[Mapping[str, Any]] = (),
        group_size: int = 1,
        max_failures: int | None = 3,
        patience: float = 600.0,
        endless: bool = True,
        asynchronous: bool = False,
    ) -> None:
        if population_size < 1:
            raise ValueError(f"Invalid population_size: {population_size}, expected at least 1")
        if not 0 <= n_elites < population_size:
            raise ValueError(f"Invalid n_elites: {n_elites}, expected 0 to {population_size - 1}")
        if tournament_size < 1:
            raise ValueError(f"Invalid tournament_size: {tournament_size}, expected at least 1")
        if n_generations is not None and n_generations < 1:
            raise ValueError(f"Invalid n_generations: {n_generations}, expected at least 1")
        if len(presets) > population_size:
            raise ValueError(f"Invalid presets: {len(presets)} of them in a population of {population_size}")
        if seed is not None and seed < 0:
            raise ValueError(f"Invalid seed: {seed}, expected at least 0")
        if group_size < 1:
            raise ValueError(f"Invalid group_size: {group_size}, expected at least 1")
        if asynchronous and group_size > 1:
            raise ValueError("Invalid group_size: an asynchronous search has no groups, set it to 1")
        if max_failures is not None and max_failures < 1:
            raise ValueError(f"Invalid max_failures: {max_failures}, expected at least 1")
        if not patience >= 0:
            raise ValueError(f"Invalid patience: {patience}, expected at least 0 seconds")
        if space is not None:
            check_presets(presets, space.distributions())
        self.population_size = population_size
        self.n_generations = n_generations
        self.n_elites = n_elites
        self.tournament_size = tournament_size
        self.seed = seed
        self.space = space
        self.presets = [dict(preset) for preset in presets]
        self.group_size = group_size
        self.max_failures = max_failures
        self.patience = patience
        self.endless = endless
        self.asynchronous = asynchronous
        self._reset()

    def _reset(self) -> None:
        # By storage and study, since one sampler may serve several studies; only a cache of what is stored.
        self._known: weakref.WeakKeyDictionary[BaseStorage, dict[int, SamplerCache]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_known", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    # Optuna's interface

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot; writes the claim and the lineage."""
        _single_objective(study)
        slot = claim(
            study,
            trial,
            lambda: self.board(study),
            self._lock,
            patience=self.patience if study._thread_local.in_optimize_loop else 0.0,
            endless=self.endless,
        )
        self._memory(study).slots[trial._trial_id] = slot
        attrs = self.lineage(study, slot)
        if trial.system_attrs.get("fixed_params"):
            attrs |= {keys.PARENTS: [], keys.ORIGIN: "enqueued"}
        for key, value in attrs.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        trial.user_attrs = {**trial.user_attrs, **attrs}  # Optuna read the trial before

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space's parameters, or those that all parents have in common."""
        _single_objective(study)
        if self.space is not None:
            return self.space.distributions()
        slot = self._slot(study, trial)
        if slot is None or slot.generation == 0:
            return {}
        trials = _trials(study)
        population = self._population(study, slot)
        return intersection_search_space([trials[m.number] for m in population], include_pruned=True)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The child that the trial's slot names, as far as `search_space` asks for it."""
        _single_objective(study)
        if not search_space:
            return {}
        slot = self._slot(study, trial)
        if slot is None:  # called without `study.ask`: no slot, so a draw
            rng = self._rng(study, _LOOSE, trial.number)
            return (self.space or Generic(search_space)).sample(rng)
        if self.asynchronous and slot.generation:
            child = self._asynchronous_child(study, trial, slot, search_space)
        else:
            child = self._offspring(study, slot.generation, search_space)[slot.index]
        return {name: child[name] for name in search_space if name in child}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter outside the common space: a preset's, a parent's where one has it, or a draw."""
        _single_objective(study)
        slot, name_key = self._slot(study, trial), zlib.crc32(param_name.encode())
        if slot is None:
            return draw(param_distribution, self._rng(study, _LOOSE, trial.number, name_key))
        rng = self._rng(study, _INDEPENDENT, slot.generation, slot.index, name_key)
        parents = self._parents(study, trial, slot)
        if slot.generation == 0 and slot.index < len(self.presets):
            return inherit(param_name, param_distribution, [self.presets[slot.index]], rng)
        value = inherit(param_name, param_distribution, parents, rng)
        decay = annealing(slot.generation - 1, self.n_generations)
        return mutate_value(value, param_distribution, rng, decay) if parents else value

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Mark a trial late whose slot another has decided meanwhile."""
        slot = self._slot(study, trial)
        self._memory(study).slots.pop(trial._trial_id, None)
        if not self.endless:  # then slots are only taken over from trials that have been failed
            return
        if slot is not None and self.board(study).decided(slot):
            study._storage.set_trial_system_attr(trial._trial_id, keys.LATE, True)

    def reseed_rng(self) -> None:
        """Nothing to do: randomness follows from the slot, so parallel workers never repeat each other."""

    # For whoever runs the study

    def board(self, study: Study) -> SlotTable:
        """The study's slots as the storage has them now."""
        with self._lock:
            trials = _trials(study)
            board = self._memory(study, trials).board
            board.update(trials, study.direction)
            return board

    slot_table = board

    def failed_before(self, study: Study, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that had failed in a slot when its present trial was given it, but for interrupted ones."""
        return self._memory(study).board.failed(slot)

    def group(self, study: Study, slot: Slot) -> dict[Slot, Params]:
        """The individuals that train together with the one in `slot`, in order of their slots.

        They are the same whatever is decided already: those who stack them get the same stack again.

        Raises:
            ValueError: The sampler has no space, so it doesn't know what a trial will suggest.
        """
        if self.space is None:
            raise ValueError("a GeneticSampler without a space does not know its individuals beforehand")
        offspring = self._offspring(study, slot.generation, self.space.distributions())
        return {other: offspring[other.index] for other in self._memory(study).board.group(slot)}

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """User attributes that say where a slot's individual comes from."""
        parents = self._mates(study, slot)
        origin = "crossover+mutation" if parents else "random"
        if slot.generation == 0 and slot.index < len(self.presets):
            origin = "preset"
        return {
            keys.GENERATION: slot.generation,
            keys.SLOT: slot.index,
            keys.PARENTS: [member.number for member in parents],
            keys.ORIGIN: origin,
        }

    # Slots

    def _slot(self, study: Study, trial: FrozenTrial) -> Slot | None:
        known = self._memory(study).slots.get(trial._trial_id)
        if known is not None:
            return known
        # `trial` was read before `before_trial` wrote the claim.
        return claimed(study._storage.get_trial(trial._trial_id))

    # Genomes

    def _rng(self, study: Study, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._study_seed(study), *purpose])

    def _study_seed(self, study: Study) -> int:
        return self._memory(study).seed if self.seed is None else self.seed

    def _memory(self, study: Study, trials: list[FrozenTrial] | None = None) -> SamplerCache:
        """What is known of the study; begun anew where `trials` show another study in its place."""
        with self._lock:
            studies = self._known.setdefault(study._storage, {})
            known = studies.get(study._study_id)
            if known is not None and (not trials or known.start == trials[0].datetime_start):
                return known
            trials = _trials(study) if trials is None else trials
            start = trials[0].datetime_start if trials else None
            # The first trial's start is the one random thing about a study that all workers read alike.
            text = f"{study.study_name}\n{start.astimezone(datetime.UTC) if start else None}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            board = SlotTable(
                self.population_size,
                self.n_elites,
                self.max_failures,
                self.group_size,
                n_generations=None if self.endless else self.n_generations,
                asynchronous=self.asynchronous,
            )
            known = SamplerCache(board, seed, start)
            known.board.update(trials, study.direction)
            if trials:
                studies[study._study_id] = known
            return known

    def _mates(self, study: Study, slot: Slot) -> list[Member]:
        """The two parents of a slot's child, none in generation 0."""
        if slot.generation == 0:
            return []
        population = self._population(study, slot)
        if self.space is not None:  # a trial that ended before it had all its parameters does not breed
            names = self.space.distributions().keys()
            population = [member for member in population if names <= member.params.keys()]
        if not population:
            return []
        rng = self._rng(study, _MATE, slot.generation, slot.index)
        return [population[tournament(len(population), self.tournament_size, rng)] for _ in range(2)]

    def _population(self, study: Study, slot: Slot) -> list[Member]:
        """Whom the children of a slot's generation are bred from."""
        board = self._memory(study).board
        return board.recent() if self.asynchronous else board.populations[slot.generation - 1]

    def _parents(self, study: Study, trial: FrozenTrial, slot: Slot) -> list[Params]:
        """The parameters of a trial's parents; asynchronous, of those that it was given when it began."""
        if not self.asynchronous:
            return [member.params for member in self._mates(study, slot)]
        numbers = study._storage.get_trial(trial._trial_id).user_attrs.get(keys.PARENTS, [])
        trials = _trials(study)
        return [trials[number].params for number in numbers]

    def _asynchronous_child(
        self, study: Study, trial: FrozenTrial, slot: Slot, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """One child of an asynchronous search, bred when asked for; again the same where it failed before."""
        variation = self.space or Generic(search_space)
        names = tuple(variation.distributions())
        earlier = earlier_params(_trials(study), slot)
        if earlier.keys() >= set(names):
            return earlier
        rng = self._rng(study, _CHILD, slot.generation, slot.index)
        decay = annealing(slot.generation - 1, self.n_generations)
        seen = self._memory(study).seen_so_far(names)
        return unique_child(variation, self._parents(study, trial, slot), seen, rng, decay=decay)

    def _offspring(
        self, study: Study, generation: int, search_space: dict[str, BaseDistribution]
    ) -> list[Params]:
        """Every child of a generation, no two alike where the space allows it."""
        with self._lock:
            known = self._memory(study)
            key = (generation, () if self.space else tuple(search_space))
            if key not in known.offspring:
                # A straggler may still be in the generation before; nobody looks further back.
                recent = {k: offspring for k, offspring in known.offspring.items() if k[0] >= generation - 1}
                known.offspring = recent
                known.offspring[key] = self._breed(study, generation, self.space or Generic(search_space))
            return known.offspring[key]

    def _breed(self, study: Study, generation: int, variation: Variation) -> list[Params]:
        known, names = self._memory(study), tuple(variation.distributions())
        board, seen = known.board, known.seen_before(generation, names)
        decay = annealing(generation - 1, self.n_generations)
        offspring = []
        for i in range(board.size(generation)):
            rng = self._rng(study, _CHILD, generation, i)
            parents = [member.params for member in self._mates(study, Slot(generation, i))]
            if generation == 0 and i < len(self.presets):
                child = {**variation.sample(rng), **self.presets[i]}
            else:
                child = unique_child(variation, parents, seen, rng, decay=decay)
            seen.add(identity(child))
            offspring.append(child)
        return offspring


def _single_objective(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError("GeneticSampler has one objective, the study has several")


def _trials(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)
