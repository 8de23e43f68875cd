"""What may vary: the term genome, update graphs, and a sweep of each baseline.

>>> from optevo.spaces import SPACES, Params
>>> space = SPACES["terms"].make()
>>> params: Params = space.presets()["adamw"]
>>> space.candidate(params).formula()
'Δ = 1·m̂/(√v̂ + 1e-08)'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy
from optevo.optim.candidate import Candidate
from optevo.spaces.base import Params, Space
from optevo.spaces.baselines import BaselineSpace
from optevo.spaces.graphs import GraphSpace
from optevo.spaces.modern import ModernSpace
from optevo.spaces.terms import TermSpace

if TYPE_CHECKING:
    from optevo.spaces.kinds import SPACES, SpaceKind
    from optevo.spaces.sections import SpaceSection

__all__ = [
    "SPACES",
    "BaselineSpace",
    "Candidate",
    "GraphSpace",
    "ModernSpace",
    "Params",
    "Space",
    "SpaceKind",
    "SpaceSection",
    "TermSpace",
]

# Study files are pydantic's, which takes longer to import than the spaces do.
__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "SPACES": "optevo.spaces.kinds",
        "SpaceKind": "optevo.spaces.kinds",
        "SpaceSection": "optevo.spaces.sections",
    },
)
