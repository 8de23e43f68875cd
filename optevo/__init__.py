"""optevo discovers deep-learning optimizers: genetic search with Optuna, winners as torch optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy

if TYPE_CHECKING:
    from optevo.errors import UserError
    from optevo.optim import PRESETS, GenomeOptimizer, TermGenome, export_source
    from optevo.samplers import GeneticSampler, ParticleSampler
    from optevo.spaces import TermSpace

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "GeneticSampler",
    "GenomeOptimizer",
    "ParticleSampler",
    "TermGenome",
    "TermSpace",
    "UserError",
    "__version__",
    "export_source",
]

# Resolved on first use: the sampler comes without torch, the optimizer without optuna.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "PRESETS": "optevo.optim",
        "GeneticSampler": "optevo.samplers",
        "GenomeOptimizer": "optevo.optim",
        "ParticleSampler": "optevo.samplers",
        "TermGenome": "optevo.optim",
        "TermSpace": "optevo.spaces",
        "UserError": "optevo.errors",
        "export_source": "optevo.optim",
    },
)
