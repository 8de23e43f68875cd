"""optevo discovers deep-learning optimizers: genetic search with Optuna, winners as torch optimizers.

>>> import optevo
>>> optevo.PRESETS["evolved"].formula()
'Δ = 3.64·m/(√v + 5.44e-09) + 0.734·sign(g)'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy

if TYPE_CHECKING:
    from optevo.api.comparing import Ablation, Comparison, ablate, compare
    from optevo.api.reports import report
    from optevo.api.result import SearchResult
    from optevo.api.searching import search, sweep
    from optevo.errors import UserError
    from optevo.optim import PRESETS, GenomeOptimizer, TermGenome, export_source
    from optevo.samplers import GeneticSampler, ParticleSampler
    from optevo.spaces import TermSpace

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "Ablation",
    "Comparison",
    "GeneticSampler",
    "GenomeOptimizer",
    "ParticleSampler",
    "SearchResult",
    "TermGenome",
    "TermSpace",
    "UserError",
    "__version__",
    "ablate",
    "compare",
    "export_source",
    "report",
    "search",
    "sweep",
]

# Resolved on first use: the sampler comes without torch, the optimizer without optuna.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "PRESETS": "optevo.optim",
        "Ablation": "optevo.api.comparing",
        "Comparison": "optevo.api.comparing",
        "SearchResult": "optevo.api.result",
        "ablate": "optevo.api.comparing",
        "compare": "optevo.api.comparing",
        "report": "optevo.api.reports",
        "search": "optevo.api.searching",
        "sweep": "optevo.api.searching",
        "GeneticSampler": "optevo.samplers",
        "GenomeOptimizer": "optevo.optim",
        "ParticleSampler": "optevo.samplers",
        "TermGenome": "optevo.optim",
        "TermSpace": "optevo.spaces",
        "UserError": "optevo.errors",
        "export_source": "optevo.optim",
    },
)
