"""optevo discovers deep-learning optimizers: genetic search with Optuna, winners as torch optimizers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optevo.errors import UserError
    from optevo.optim import PRESETS, GenomeOptimizer, TermGenome, export_source
    from optevo.samplers import GeneticSampler
    from optevo.spaces import TermSpace

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "GeneticSampler",
    "GenomeOptimizer",
    "TermGenome",
    "TermSpace",
    "UserError",
    "__version__",
    "export_source",
]

# Resolved on first use: the sampler comes without torch, the optimizer without optuna.
_HOMES = {
    "PRESETS": "optevo.optim",
    "GeneticSampler": "optevo.samplers",
    "GenomeOptimizer": "optevo.optim",
    "TermGenome": "optevo.optim",
    "TermSpace": "optevo.spaces",
    "UserError": "optevo.errors",
    "export_source": "optevo.optim",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
