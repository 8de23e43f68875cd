"""Who draws from global random generators, which no task may."""

from __future__ import annotations

# ruff: noqa: NPY002  the global generator is what is watched
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class GlobalGenerators:
    """Python's, NumPy's and torch's global generators, watched; on leaving, they are as they were.

    Attributes:
        touched: Who has drawn from which, or seeded it, in order.
    """

    def __init__(self) -> None:
        self.touched: list[tuple[str, str]] = []

    def __enter__(self) -> GlobalGenerators:
        self._before = _states()
        return self

    def __exit__(self, *_: object) -> None:
        _set(self._before)

    @contextlib.contextmanager
    def watched(self, who: str, seed: int) -> Iterator[None]:
        """Note what is touched within, under global generators of a given seed."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = _states()
        yield
        after = _states()
        for library, state in before.items():
            if not _equal(state, after[library]) and (who, library) not in self.touched:
                self.touched.append((who, library))


def _states() -> dict[str, Any]:
    found: dict[str, Any] = {
        "torch": torch.random.get_rng_state(),
        "numpy": np.random.get_state(legacy=False),
    }
    found["random"] = random.getstate()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["torch.cuda"] = torch.cuda.get_rng_state_all()
    return found


def _set(states: dict[str, Any]) -> None:
    torch.random.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["random"])
    if "torch.cuda" in states:
        torch.cuda.set_rng_state_all(states["torch.cuda"])


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return all(map(torch.equal, one, other))
    return repr(one) == repr(other) if not isinstance(one, dict) else _same_numpy(one, other)


def _same_numpy(one: dict[str, Any], other: dict[str, Any]) -> bool:
    ours, theirs = one["state"], other["state"]
    return ours["pos"] == theirs["pos"] and bool((ours["key"] == theirs["key"]).all())
