"""Optimizers written as genomes. Needs torch alone, and that only once an optimizer is built.

>>> import torch
>>> from optevo.optim import PRESETS
>>> model = torch.nn.Linear(4, 2)
>>> optimizer, scheduler = PRESETS["evolved"].build(model.parameters(), total_steps=1000)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optevo.optim.genome import TERMS, TermGenome
from optevo.optim.presets import PRESETS
from optevo.optim.rule import Rule
from optevo.optim.schedules import WarmupCosine

if TYPE_CHECKING:
    from optevo.optim.export import export_source
    from optevo.optim.optimizer import GenomeOptimizer
    from optevo.optim.reference import ReferenceOptimizer

__all__ = [
    "PRESETS",
    "TERMS",
    "GenomeOptimizer",
    "ReferenceOptimizer",
    "Rule",
    "TermGenome",
    "WarmupCosine",
    "export_source",
]

# Importing torch takes seconds; a sampler that only breeds genomes never needs it.
_LAZY = {
    "GenomeOptimizer": "optevo.optim.optimizer",
    "ReferenceOptimizer": "optevo.optim.reference",
    "export_source": "optevo.optim.export",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
