"""Numbers as other libraries have them. Nothing here imports NumPy."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """A NumPy scalar, out of somebody's table, as Python's own; anything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value
