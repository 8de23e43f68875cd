"""The numbers of the second system that several test files use, and decays of its notation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.equation import Edge, Equation, Node

_DATA = Path(__file__).parent / "data"
SEARCH_SPACE: dict[str, Any] = json.loads((_DATA / "nos_search_space.json").read_text("utf-8"))
TRAJECTORIES: dict[str, Any] = json.loads((_DATA / "nos_trajectories.json").read_text("utf-8"))


def decay_of(nested: Any) -> Decay:
    """A decay as the oracle writes it: a name, or a list of an operation's name and its arguments."""
    return Decay(nested) if isinstance(nested, str) else Decay(nested[0], tuple(map(decay_of, nested[1:])))


def equation_of(case: dict[str, Any]) -> Equation:
    """A case's graph and wrapper as an equation."""
    wrapper = "lookahead" if case.get("nesterov") == "search_code" else case["wrapper"]
    return Equation(_edge_of(case["graph"]), wrapper, negated=case.get("flip") is True)


def _edge_of(nested: Any) -> Edge:
    if isinstance(nested, dict):
        return replace(_edge_of(nested["of"]), decay=decay_of(nested["decay"]))
    if isinstance(nested, str):
        return Edge(Node(nested))
    return Edge(Node(nested[0], tuple(map(_edge_of, nested[1:]))))
