"""How to propose: real Optuna samplers. Importing this needs optuna and numpy, not torch."""

from __future__ import annotations

from optevo.samplers.claiming import NoSlot
from optevo.samplers.genetic import GeneticSampler
from optevo.samplers.wrapped import SeededSampler, SlotGridSampler

__all__ = ["GeneticSampler", "NoSlot", "SeededSampler", "SlotGridSampler"]
