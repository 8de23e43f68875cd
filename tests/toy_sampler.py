"""Another sampler: one file and one registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from optevo.samplers import SAMPLERS, BreedingSampler, SamplerKind, SamplerSection
from optevo.samplers.operators import Params, Variation
from optevo.samplers.slots import Member, Slot
from optevo.spaces import Space


class ClimbSection(SamplerSection):
    kind: Literal["climb"]
    size: int
    rounds: int

    def trials(self, space: Space) -> int:
        return self.size * self.rounds

    def places(self, space: Space) -> int:
        return self.size


class Climb(BreedingSampler):
    """Every child comes from the best so far."""

    origin = "climbed"

    def choose_parents(
        self, population: Sequence[Member], rng: np.random.Generator, slot: Slot
    ) -> list[Member]:
        return [population[0]]

    def breed(
        self,
        variation: Variation,
        parents: Sequence[Params],
        rng: np.random.Generator,
        *,
        slot: Slot,
        seen: set[int],
    ) -> Params:
        return variation.vary(parents, rng, 1.0) if parents else variation.sample(rng)


def make(section: Any, space: Space, seed: int, group_size: int) -> Climb:
    return Climb(
        population_size=section.size,
        n_generations=section.rounds,
        seed=seed,
        space=space,
        presets=list(space.presets().values()),
        max_failures=None,
        endless=False,
    )


SAMPLERS["climb"] = SamplerKind(ClimbSection, make)
