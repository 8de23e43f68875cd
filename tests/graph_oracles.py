"""The numbers of the second system that several test files use, and decays of its notation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optevo.optim.graphs.decays import Decay

_DATA = Path(__file__).parent / "data"
SEARCH_SPACE: dict[str, Any] = json.loads((_DATA / "nos_search_space.json").read_text("utf-8"))
TRAJECTORIES: dict[str, Any] = json.loads((_DATA / "nos_trajectories.json").read_text("utf-8"))


def decay_of(nested: Any) -> Decay:
    """A decay as the oracle writes it: a name, or a list of an operation's name and its arguments."""
    return Decay(nested) if isinstance(nested, str) else Decay(nested[0], tuple(map(decay_of, nested[1:])))
