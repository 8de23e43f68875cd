"""`ParticleSampler`: the best of many random individuals, each followed through mutations of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution

from optevo import keys
from optevo.naming import explain_keywords
from optevo.samplers.base import whole_number
from optevo.samplers.breeding import CHILD, BreedingSampler
from optevo.samplers.individuals import individual
from optevo.samplers.memory import identities
from optevo.samplers.operators import Generic, Variation, mutate_value, unique_child
from optevo.samplers.slots import Member, Slot, earned
from optevo.spaces.base import Params

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optevo.spaces.base import Space

_MOST_DRAWS = 100  # of a mutant that its particle has not been before


@dataclass
class _Offspring:
    """The children of one particle in one step, as far as they have been drawn."""

    tabu: set[int]  # the identity of all that the particle has been, and of these children
    attempts: list[list[Params]] = field(default_factory=list)  # a child a mutation each


@dataclass
class _Particles:
    """What a process remembers of a study's particles."""

    #: By generation from 1 on, see `ParticleSampler._positions`.
    positions: list[list[Member | None]] = field(default_factory=list)
    #: By a variation's names and generation, the identity of what each particle was.
    been: dict[tuple[str, ...], list[dict[int, set[int]]]] = field(default_factory=dict)
    #: By generation, particle and a variation's names.
    offspring: dict[tuple[int, int, tuple[str, ...]], _Offspring] = field(default_factory=dict)


@explain_keywords
class ParticleSampler(BreedingSampler):
    """The mutation-only genetic algorithm of arXiv 2404.06679, for any number of workers.

    Generation 0 is `initial_size` random individuals. The `n_particles` best of them are evaluated again as
    generation 1, and each is a particle from then on. In a step, which is a generation, every particle has
    `n_mutations` mutated children, and moves to the best of them **even where it is worse**: its parent is
    too old to stay. There is no crossover, no elite and no competition between particles. The result is the
    best individual of the whole search, `study.best_trial`, and not where particles are in the end.

    A child that ends without a value is replaced by another, up to `n_attempts` at each place. A particle
    whose children all ended so stays where it is. A particle is never again what it has been: mutants are
    drawn until one is new, by the space's `identity`.

    What individuals are depends on the seed and on values alone, not on timing, workers or kills, as long as
    the objective is deterministic. A step waits for its slowest particle.

    With a `space` its own prior and mutation are used; without one, sane operators on whatever the objective
    suggests. Nothing races: a child behind others may still be its particle's best.

    Args:
        initial_size: Random individuals. Default: 500.
        n_particles: How many of them are followed. Default: 50.
        n_steps: Steps; with `endless`, particles go on after them. Default: 5.
        n_mutations: Children of a particle in a step. Default: 7.
        n_attempts: Individuals that are tried at the place of a child, until one has a value. Default: 4.
        seed: Seed of the search. Default: None, derived from the study's name and first moment.
        space: Variation on a known space. Default: None, generic operators.
        presets: Parameters that hold the first slots of generation 0.
        max_failures: Failed trials after which an attempt is given up. None: never. Default: 3.
        patience: Seconds without any change after which a worker in `study.optimize` takes over a slot from
            the longest-running trial, which is presumed dead. Default: 600.
        endless: False makes `ask` raise `NoSlot` instead of waiting or starting another step; the surplus
            trial is marked FAIL. Default: True.
        constraints_func: The values of a trial's constraints, see `SlotSampler`. Default: None.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A size or a preset's value is out of range, the space does not evolve, or the study has
            several objectives.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=ParticleSampler(initial_size=20, n_particles=4, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=100)
    """

    origin = "mutation"
    races = False

    def __init__(
        self,
        *,
        initial_size: int = 500,
        n_particles: int = 50,
        n_steps: int = 5,
        n_mutations: int = 7,
        n_attempts: int = 4,
        seed: int | None = None,
        space: Space | None = None,
        presets: Sequence[Mapping[str, Any]] = (),
        max_failures: int | None = 3,
        patience: float = 600.0,
        endless: bool = True,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        self.n_particles = whole_number("n_particles", n_particles, 1)
        self.n_steps = whole_number("n_steps", n_steps, 1)
        self.n_mutations = whole_number("n_mutations", n_mutations, 1)
        self.n_attempts = whole_number("n_attempts", n_attempts, 1)
        if whole_number("initial_size", initial_size, 1) < self.n_particles:
            raise ValueError(f"Invalid n_particles: {n_particles}, of {initial_size} initial individuals")
        if space is not None and not space.evolves:
            raise ValueError(f"Invalid space: {space.name!r} has no mutation: evolves is False")
        super().__init__(
            population_size=initial_size,
            n_generations=2 + self.n_steps,
            seed=seed,
            space=space,
            presets=presets,
            max_failures=max_failures,
            patience=patience,
            endless=endless,
            constraints_func=constraints_func,
        )

    # Places

    def size(self, generation: int, populations: Mapping[int, Sequence[Member]]) -> int:
        """Particles, as far as generation 0 has members for them; times mutations in a step."""
        if generation == 0:
            return self.population_size
        found = len(populations[0]) if 0 in populations else self.n_particles
        n_particles = max(1, min(self.n_particles, found))
        return n_particles if generation == 1 else n_particles * self.n_mutations

    def attempts(self, generation: int) -> int:
        """Those of a mutation; what is evaluated before has a single one."""
        return self.n_attempts if generation > 1 else 1

    def screens(self, generation: int) -> bool:
        """The initial population is only screened."""
        return generation == 0

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """Attributes that say where a slot's individual comes from."""
        known = super().lineage(study, slot)
        again = slot.generation == 1 and known[keys.PARENTS]
        return {**known, keys.ORIGIN: "re-evaluation"} if again else known

    def positions(self, study: Study) -> list[list[int | None]]:
        """Where each particle is as a generation from 1 on begins."""
        generation = self.slot_table(study).generation
        if not generation:
            return []
        with self._lock:
            self._positions(study, generation)
            known = self._particles(study).positions[:generation]
        return [[None if one is None else one.number for one in each] for each in known]

    def _particle(self, slot: Slot) -> int:
        return slot.index if slot.generation == 1 else slot.index // self.n_mutations

    # Where particles are

    def _particles(self, study: Study) -> _Particles:
        known: _Particles = self._cache(study).kept.setdefault("particles", _Particles())
        return known

    def _positions(self, study: Study, generation: int) -> list[Member | None]:
        """Where each particle is as a generation from 1 on begins; None where nobody was whole."""
        with self._lock:
            known, positions = self._cache(study), self._particles(study).positions
            for g in range(len(positions), generation):
                population = (one for one in known.table.populations[g] if self._is_whole(study, one))
                if g == 0:
                    size = known.table.size(1)
                    best: list[Member | None] = [*itertools.islice(population, size)]
                    positions.append(best + [None] * (size - len(best)))
                else:
                    moved = dict[int, Member]()
                    for member in population:  # best first, and of equal ones the first slot
                        if earned(member.trial) is not None:
                            moved.setdefault(self._particle(member.slot), member)
                    positions.append([moved.get(i, stays) for i, stays in enumerate(positions[-1])])
            return positions[generation - 1]

    def _population(self, study: Study, slot: Slot) -> list[Member]:
        return [one for one in self._positions(study, slot.generation) if one is not None]

    def _mates(self, study: Study, slot: Slot) -> list[Member]:
        """The one parent: where the particle is."""
        if slot.generation == 0:
            return []
        position = self._positions(study, slot.generation)[self._particle(slot)]
        return [] if position is None else [position]

    def _been(self, study: Study, slot: Slot, variation: Variation) -> set[int]:
        """The identity of all that a slot's particle has been in earlier generations."""
        known = self._cache(study)
        names = tuple(variation.distributions())
        by_generation = self._particles(study).been.setdefault(names, [])
        for g in range(len(by_generation), slot.generation):
            members = dict[int, list[Member]]()
            if g == 0:
                members |= {i: [one] for i, one in enumerate(self._positions(study, 1)) if one is not None}
            else:
                for member in (*known.table.populations[g], *known.table.earlier_attempts[g]):
                    members.setdefault(self._particle(member.slot), []).append(member)
            by_generation.append({i: identities(each, variation) for i, each in members.items()})
        particle = self._particle(slot)
        return set().union(*(sets.get(particle, set()) for sets in by_generation[: slot.generation]))

    # Children

    def _child(self, study: Study, slot: Slot, search_space: dict[str, BaseDistribution]) -> Params:
        """The child in a slot; in a step, an attempt is drawn for all of a particle's places together."""
        if slot.generation < 2:
            return super()._child(study, slot, search_space)
        variation = self.space or Generic(search_space)
        particle, place = divmod(slot.index, self.n_mutations)
        with self._lock:
            known = self._particles(study).offspring
            for old in [key for key in known if key[0] < slot.generation - 1]:
                del known[old]
            key = (slot.generation, particle, tuple(variation.distributions()))
            if key not in known:
                known[key] = _Offspring(self._been(study, slot, variation))
            offspring = known[key]
            while len(offspring.attempts) <= slot.attempt:
                offspring.attempts.append(self._draw(study, slot, offspring, variation))
            return offspring.attempts[slot.attempt][place]

    def _draw(self, study: Study, slot: Slot, offspring: _Offspring, variation: Variation) -> list[Params]:
        """The next attempt's child at each of a particle's places, no two alike."""
        names, particle = variation.distributions().keys(), self._particle(slot)
        parents = [individual(member.trial, names) for member in self._mates(study, slot)]
        children = []
        for place in range(self.n_mutations):
            rng = self._rng(study, CHILD, slot.generation, particle, place, len(offspring.attempts))
            child = self.breed(variation, parents, rng, slot=slot, seen=offspring.tabu)
            offspring.tabu.add(variation.identity(child))
            children.append(child)
        return children

    def breed(
        self,
        variation: Variation,
        parents: Sequence[Params],
        rng: np.random.Generator,
        *,
        slot: Slot,
        seen: set[int],
    ) -> Params:
        """In generation 1 the parent as it is, in a step its mutant; without one, a draw from the prior."""
        if not parents:
            return unique_child(variation, parents, seen, rng, decay=1.0)
        if slot.generation == 1:
            return dict(parents[0])
        for _ in range(_MOST_DRAWS):
            child = variation.vary(parents, rng, 1.0)
            if variation.identity(child) not in seen:
                break
        return child

    def adjust(self, value: Any, d: BaseDistribution, rng: np.random.Generator, generation: int) -> Any:
        """A mutation, but of what is evaluated again."""
        return value if generation == 1 else mutate_value(value, d, rng, 1.0)
