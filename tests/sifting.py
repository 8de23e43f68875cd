"""A sampler that only screens its first generation, and two evaluations for it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest

from optevo.samplers import SAMPLERS, GeneticSampler, SamplerKind
from optevo.samplers.sections import GeneticSection
from optevo.spaces import Space


class SiftSection(GeneticSection):
    screens: ClassVar[bool] = True
    kind: Literal["sift"]  # type: ignore[assignment]

    def check(self, space: Space, group_size: int) -> None:
        """It suits any."""


class Sift(GeneticSampler):
    """The genetic algorithm, but for a generation 0 that is only screened."""

    def screens(self, generation: int) -> bool:
        return generation == 0


def make(section: Any, space: Space, seed: int, group_size: int) -> Sift:
    return Sift(
        population_size=section.population_size,
        n_generations=section.n_generations,
        n_elites=section.n_elites,
        seed=seed,
        space=space,
        presets=list(space.presets().values()),
        group_size=group_size,
        max_failures=None,
        endless=False,
    )


@pytest.fixture
def sift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind "sift" is known during a test."""
    monkeypatch.setitem(SAMPLERS, "sift", SamplerKind(SiftSection, make))
