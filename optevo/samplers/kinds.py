"""Samplers by the `kind` of a study file's ``[sampler]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from optuna.samplers import TPESampler

from optevo.lazy import Extensible
from optevo.samplers.base import SlotSampler
from optevo.samplers.genetic import GeneticSampler
from optevo.samplers.individuals import split
from optevo.samplers.operators import annealing
from optevo.samplers.particle import ParticleSampler
from optevo.samplers.sections import (
    GeneticSection,
    GridSection,
    ParticleSection,
    RandomSection,
    SamplerSection,
    TPESection,
)
from optevo.samplers.wrapped import SeededSampler, SlotGridSampler
from optevo.spaces.base import Space


class SamplerKind(NamedTuple):
    """A kind of sampler.

    Attributes:
        section: What a study file may say of it.
        make: Makes the sampler for a study: of (section, space, seed, group size).

    Example:
        >>> from optevo.samplers import SAMPLERS
        >>> section = SAMPLERS["genetic"].section(kind="genetic", population_size=20, n_generations=10)
        >>> section.n_elites
        3
    """

    section: type[SamplerSection]
    make: Callable[[Any, Space, int, int], SlotSampler]


def _genetic(section: GeneticSection, space: Space, seed: int, group_size: int) -> SlotSampler:
    span = section.anneal_over or section.n_generations
    return GeneticSampler(
        population_size=section.population_size,
        n_generations=section.n_generations,
        n_elites=section.n_elites,
        tournament_size=section.tournament_size,
        asynchronous=section.asynchronous,
        anneal=lambda generation, _: annealing(generation, span),
        seed=seed,
        space=space,
        presets=list(space.starts().values()),
        group_size=group_size,
        max_failures=None,  # the objective gives a slot up: it then ranks last instead of leaving a gap
        endless=False,
    )


def _particle(section: ParticleSection, space: Space, seed: int, group_size: int) -> SlotSampler:
    return ParticleSampler(
        **section.model_dump(exclude={"kind"}),
        seed=seed,
        space=space,
        presets=list(space.starts().values()),
        max_failures=None,  # as in `_genetic`
        endless=False,
    )


def _random(section: RandomSection, space: Space, seed: int, group_size: int) -> SlotSampler:
    # A single generation of draws from the space's prior.
    only = GeneticSection.model_construct(population_size=section.n_trials, n_generations=1, n_elites=0)
    return _genetic(only, space, seed, group_size)


def _tpe(section: TPESection, space: Space, seed: int, group_size: int) -> SlotSampler:
    names = space.distributions()
    presets = [split(preset, names)[0] for preset in space.starts().values()]
    return SeededSampler(lambda one: TPESampler(seed=one), seed, section.n_trials, presets)


def _grid(section: GridSection, space: Space, seed: int, group_size: int) -> SlotSampler:
    grid = space.grid() or {}
    return SeededSampler(lambda _: SlotGridSampler(grid, seed=seed), seed, section.trials(space))


#: By the `kind` of a study file's ``[sampler]``; a new kind of sampler is one entry, or another package's.
SAMPLERS = Extensible(
    "sampler",
    "an optevo.samplers.SamplerKind",
    lambda one: isinstance(one, SamplerKind),
    {
        "genetic": SamplerKind(GeneticSection, _genetic),
        "particle": SamplerKind(ParticleSection, _particle),
        "random": SamplerKind(RandomSection, _random),
        "tpe": SamplerKind(TPESection, _tpe),
        "grid": SamplerKind(GridSection, _grid),
    },
)
