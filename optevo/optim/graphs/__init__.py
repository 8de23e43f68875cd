"""Update rules as graphs: operands, operations, and decays on the edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import lazy
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.graph import UpdateGraph

if TYPE_CHECKING:
    from optevo.optim.graphs.optimizer import GraphOptimizer

__all__ = ["Equation", "GraphOptimizer", "UpdateGraph"]

__getattr__, __dir__ = lazy.attributes(__name__, {"GraphOptimizer": "optevo.optim.graphs.optimizer"})
