"""How to propose: real Optuna samplers. Importing this needs optuna and numpy, not torch."""

from __future__ import annotations

from optevo.samplers.claims import NoSlot
from optevo.samplers.genetic import GeneticSampler
from optevo.samplers.seeded import SeededSampler, SlotGridSampler

__all__ = ["GeneticSampler", "NoSlot", "SeededSampler", "SlotGridSampler"]
