"""How to propose: real Optuna samplers. Importing this needs optuna and numpy, not torch.

>>> from optevo.samplers import SAMPLERS
>>> sorted(SAMPLERS)
['genetic', 'grid', 'particle', 'random', 'tpe']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy
from optevo.samplers.base import SlotSampler, populations, sampler_of
from optevo.samplers.breeding import BreedingSampler
from optevo.samplers.claiming import NoSlot
from optevo.samplers.genetic import GeneticSampler
from optevo.samplers.particle import ParticleSampler
from optevo.samplers.wrapped import SeededSampler, SlotGridSampler

if TYPE_CHECKING:
    from optevo.samplers.kinds import SAMPLERS, SamplerKind
    from optevo.samplers.sections import SamplerSection

__all__ = [
    "SAMPLERS",
    "BreedingSampler",
    "GeneticSampler",
    "NoSlot",
    "ParticleSampler",
    "SamplerKind",
    "SamplerSection",
    "SeededSampler",
    "SlotGridSampler",
    "SlotSampler",
    "populations",
    "sampler_of",
]

# Study files are pydantic's, which takes longer to import than the samplers do.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "SAMPLERS": "optevo.samplers.kinds",
        "SamplerKind": "optevo.samplers.kinds",
        "SamplerSection": "optevo.samplers.sections",
    },
)
