"""Ranking by several objectives as NSGA-II ranks, doi:10.1109/4235.996017."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def fronts(losses: Sequence[Sequence[float]], violations: Sequence[float]) -> list[int]:
    """The front of each of some members, from 0: nobody dominates a member of the first.

    A member without violation dominates one with it, and of two with it the one with less; of two without
    violation, one that is nowhere worse and somewhere better dominates.

    Args:
        losses: A row a member, a column an objective, less is better.
        violations: By how much each misses its constraints in all, 0 where it misses none.
    """
    points, missed = np.array(losses, dtype=float), np.array(violations, dtype=float)
    if not len(points):
        return []
    nowhere_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    alike = (missed[:, None] == 0) & (missed[None] == 0)
    dominates = (alike & nowhere_worse & better) | (missed[:, None] < missed[None])
    ranks, rest, front = [-1] * len(points), np.ones(len(points), dtype=bool), 0
    while rest.any():
        first = rest & ~(dominates & rest[:, None]).any(axis=0)
        for i in np.flatnonzero(first):
            ranks[i] = front
        rest &= ~first
        front += 1
    return ranks


def crowding(losses: Sequence[Sequence[float]]) -> list[float]:
    """How far each member of one front is from its neighbours: the higher, the lonelier.

    Per objective, the distance between its neighbours on either side as a share of the front's width, summed;
    infinite at the ends of a front.
    """
    points = np.array(losses, dtype=float)
    found = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        width = ranked[-1] - ranked[0]
        found[order[[0, -1]]] = math.inf
        if len(ranked) > 2 and 0 < width < math.inf:
            found[order[1:-1]] += (ranked[2:] - ranked[:-2]) / width
    return [float(distance) for distance in found]
