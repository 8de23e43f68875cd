"""Shuffles that are the same everywhere and for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def fixed_order(count: int, key: str) -> list[int]:
    """A shuffle of 0 .. count - 1 that is the same everywhere and for ever: by SHA-256 of key and number.

    A seeded generator's stream may change with torch's or NumPy's version, and with it what "the same 15,000
    examples" are.
    """
    return sorted(range(count), key=lambda number: hashlib.sha256(f"{key}:{number}".encode()).digest())


def stratified_order(labels: Sequence[int], key: str) -> list[int]:
    """A fixed shuffle in which any leading part holds each class in proportion, to within one example."""
    totals: dict[int, int] = {}
    for label in labels:
        totals[label] = totals.get(label, 0) + 1
    seen = dict.fromkeys(totals, 0)
    share = {}
    shuffled = fixed_order(len(labels), key)
    for number in shuffled:
        seen[labels[number]] += 1
        share[number] = (seen[labels[number]] - 0.5) / totals[labels[number]]
    return sorted(shuffled, key=share.__getitem__)
