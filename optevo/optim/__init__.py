"""Optimizers written as genomes. Needs torch alone, and that only once an optimizer is built.

>>> import torch
>>> from optevo.optim import PRESETS, Evolved
>>> model = torch.nn.Linear(4, 2)
>>> optimizer = Evolved(model.parameters())
>>> schedule = optimizer.scheduler(total_steps=1000)
>>> optimizer, schedule = PRESETS["lion"].build(model.parameters(), total_steps=1000)

The names of terms, and learned schedules by name:

>>> from optevo.optim import LEARNED, TERMS
>>> TERMS[:3], sorted(LEARNED)[:3]
(('GRAD', 'MOMENTUM', 'RMS_NORM'), ['lr1', 'lr2', 'lr3'])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy
from optevo.naming import Registry
from optevo.optim.candidate import Candidate
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.graph import UpdateGraph
from optevo.optim.graphs.presets import PRESETS as _GRAPH_PRESETS
from optevo.optim.learned import LEARNED, LearnedSchedule, learned_scheduler
from optevo.optim.schedules import WarmupCosine
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_presets import MODERN_PRESETS as _MODERN_PRESETS
from optevo.optim.terms.presets import PRESETS as _TERM_PRESETS
from optevo.optim.terms.rule import Rule
from optevo.optim.terms.table import TERMS

if TYPE_CHECKING:
    from optevo.optim.adam_variants import MARS, CautiousAdamW
    from optevo.optim.averaged import QHM, AddSign, PowerSign
    from optevo.optim.evolved import Evolved
    from optevo.optim.graphs.optimizer import GraphOptimizer
    from optevo.optim.hybrids import CautiousOrthoConvAdamW, EvolvedModern, OrthoConvAdamW
    from optevo.optim.muon import MuonAdamW, MuonConvAdamW
    from optevo.optim.schedule_free import ScheduleFreeAdamW
    from optevo.optim.soap import SOAP
    from optevo.optim.terms.export import export_source
    from optevo.optim.terms.modern_optimizer import ModernOptimizer
    from optevo.optim.terms.optimizer import GenomeOptimizer
    from optevo.optim.terms.reference import ReferenceOptimizer

#: Known optimizers by name, whatever the kind. Equations have no learning rate: give them one by `at_rate`.
PRESETS: Registry[Candidate] = Registry("preset")
PRESETS |= {**_MODERN_PRESETS, **_TERM_PRESETS, **_GRAPH_PRESETS}

__all__ = [
    "LEARNED",
    "MARS",
    "PRESETS",
    "QHM",
    "SOAP",
    "TERMS",
    "AddSign",
    "CautiousAdamW",
    "CautiousOrthoConvAdamW",
    "Equation",
    "Evolved",
    "EvolvedModern",
    "GenomeOptimizer",
    "GraphGenome",
    "GraphOptimizer",
    "LearnedSchedule",
    "ModernGenome",
    "ModernOptimizer",
    "MuonAdamW",
    "MuonConvAdamW",
    "OrthoConvAdamW",
    "PowerSign",
    "ReferenceOptimizer",
    "Rule",
    "ScheduleFreeAdamW",
    "SecondRule",
    "TermGenome",
    "UpdateGraph",
    "WarmupCosine",
    "export_source",
    "learned_scheduler",
]

# Importing torch takes seconds; a sampler that only breeds genomes never needs it.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "CautiousAdamW": "optevo.optim.adam_variants",
        "MARS": "optevo.optim.adam_variants",
        "QHM": "optevo.optim.averaged",
        "PowerSign": "optevo.optim.averaged",
        "AddSign": "optevo.optim.averaged",
        "Evolved": "optevo.optim.evolved",
        "CautiousOrthoConvAdamW": "optevo.optim.hybrids",
        "EvolvedModern": "optevo.optim.hybrids",
        "OrthoConvAdamW": "optevo.optim.hybrids",
        "MuonAdamW": "optevo.optim.muon",
        "MuonConvAdamW": "optevo.optim.muon",
        "ScheduleFreeAdamW": "optevo.optim.schedule_free",
        "SOAP": "optevo.optim.soap",
        "GraphOptimizer": "optevo.optim.graphs.optimizer",
        "GenomeOptimizer": "optevo.optim.terms.optimizer",
        "ModernOptimizer": "optevo.optim.terms.modern_optimizer",
        "ReferenceOptimizer": "optevo.optim.terms.reference",
        "export_source": "optevo.optim.terms.export",
    },
)
