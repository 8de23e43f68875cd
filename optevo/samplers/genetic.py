"""`GeneticSampler`: tournament, elites, crossover and annealed mutation behind Optuna's sampler interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution

from optevo.naming import explain_keywords
from optevo.samplers.base import whole_number
from optevo.samplers.breeding import BreedingSampler
from optevo.samplers.operators import (
    Variation,
    annealing,
    mutate_value,
    tournament,
    unique_child,
)
from optevo.samplers.slots import Member, Slot
from optevo.spaces.base import Params

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optevo.spaces.base import Space


@explain_keywords
class GeneticSampler(BreedingSampler):
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

    Of several objectives, members are ranked as NSGA-II ranks: by front, and in a front by crowding distance.
    There, let the elites be half of the population.

    `optevo.keys.ours` reads where a trial comes from: generation, slot, parents (trial numbers) and origin.

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
        anneal: How strongly children are mutated, given their parents' generation, from 0 on, and
            `n_generations`. Default: from 1 down to ½, see `optevo.samplers.operators.annealing`.
        constraints_func: The values of a trial's constraints, see `SlotSampler`. Default: None.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A size or a preset's value is out of range. Without a space, a preset's fault shows when
            its trial suggests another value or name.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=GeneticSampler(population_size=20, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=100)
    """

    ranks_fronts = True
    origin = "crossover+mutation"

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
        anneal: Callable[[int, int | None], float] = annealing,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            n_elites=n_elites,
            seed=seed,
            space=space,
            presets=presets,
            group_size=group_size,
            max_failures=max_failures,
            patience=patience,
            endless=endless,
            asynchronous=asynchronous,
            constraints_func=constraints_func,
        )
        if space is not None and not space.evolves and n_generations != 1:
            raise ValueError(
                f"Invalid space: {space.name!r} does not evolve beyond its first generation: evolves is False"
            )
        self.tournament_size = whole_number("tournament_size", tournament_size, 1)
        self.anneal = anneal

    def choose_parents(
        self, population: Sequence[Member], rng: np.random.Generator, slot: Slot
    ) -> list[Member]:
        """Winners of tournaments, as many as a child of the space has."""
        n = 2 if self.space is None else self.space.n_parents
        return [population[tournament(len(population), self.tournament_size, rng)] for _ in range(n)]

    def breed(
        self,
        variation: Variation,
        parents: Sequence[Params],
        rng: np.random.Generator,
        *,
        slot: Slot,
        seen: set[int],
    ) -> Params:
        """A child of the parents that was not proposed before, as far as the space allows it."""
        decay = self._decay(slot.generation) if parents else 1.0
        return unique_child(variation, parents, seen, rng, decay=decay)

    def adjust(self, value: Any, d: BaseDistribution, rng: np.random.Generator, generation: int) -> Any:
        """A mutation."""
        return mutate_value(value, d, rng, self._decay(generation))

    def _decay(self, generation: int) -> float:
        return self.anneal(generation - 1, self.n_generations)
