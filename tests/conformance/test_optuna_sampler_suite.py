"""Optuna's own sampler cases, run against ours that breed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from optevo.samplers import GeneticSampler, ParticleSampler


class TestGeneticSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return GeneticSampler


class TestParticleSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """In an initial population that is quicker to breed than the default of 500."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ParticleSampler(initial_size=100)


class TestParticleSamplerPastItsFirstSteps(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    """So few places that the cases come to re-evaluations and to mutants."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ParticleSampler(initial_size=2, n_particles=1, n_steps=1, n_mutations=2, n_attempts=2)
