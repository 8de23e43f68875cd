"""Kinds of parameters: what an optimizer may treat differently, known from shapes and positions.

An optimizer sees parameters without their layers. What has fewer than two dimensions is a vector, what has
three or more is a convolution, and a matrix is hidden, but for the last one, which is the head. An embedding
looks like a hidden matrix; a group with a `kind` says what its parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from optevo.naming import hint

#: "head" is embeddings and the last layer.
KINDS = ("convolution", "hidden", "head", "vector")


def check_kind(kind: Any) -> None:
    """Refuse, with a ValueError, what is no kind; None, unsaid, is fine."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"Invalid kind: {kind!r}, {hint(kind, KINDS)}")


def kinds_by_shape(params: Iterable[Any]) -> list[str]:
    """Of each parameter by its number of dimensions; no matrix is the head."""
    return [("vector", "vector", "hidden", "convolution")[min(p.ndim, 3)] for p in params]


def mark_head(groups: Sequence[dict[str, Any]]) -> None:
    """Make the last matrix of groups that don't say their `kind` the head, in their lists `kinds`."""
    for group in reversed(groups):
        if group["kind"] is None and "hidden" in group["kinds"]:
            last = len(group["kinds"]) - 1 - group["kinds"][::-1].index("hidden")
            group["kinds"][last] = "head"
            return
