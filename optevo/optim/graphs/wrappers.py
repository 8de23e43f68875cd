"""The table of wrappers, of what becomes of an update U: a new one is one entry here. Pure Python.

Source: arXiv 2404.06679. From an entry follow the optimizer, the exported file, texts, formulas and pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Change = tuple[Callable[..., Any], tuple[str, ...]]


@dataclass(frozen=True)
class Wrapper:
    """What is done with an update U of the weights w at learning rate η.

    Attributes:
        title: In formulas; empty where there is nothing to name.
        lines: What is done, for people; ``{}`` is the sign of U.
        changes: The same in place: functions of torch and of what they are given, whose names these are: "w";
            "b", which starts at zero; the coefficient "m"; and "step", which is η·U.
    """

    title: str
    lines: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def keeps(self) -> bool:
        """Whether it keeps b for each parameter, and follows the schedule of m."""
        return any("b" in names for _, names in self.changes)


_SUBTRACT: Change = lambda t, w, step: w.sub_(step), ("w", "step")
_VELOCITY: Change = lambda t, b, m, step: b.mul_(m).sub_(step), ("b", "m", "step")
_ADD_VELOCITY: Change = lambda t, w, b: w.add_(b), ("w", "b")
_B = "b ← m·b {} η·U"

#: By name.
WRAPPERS: dict[str, Wrapper] = {
    "none": Wrapper("", ("w ← w {} η·U",), (_SUBTRACT,)),
    "momentum": Wrapper("momentum", (_B, "w ← w + b"), (_VELOCITY, _ADD_VELOCITY)),
    "nesterov": Wrapper(
        "Nesterov",
        (_B, "w ← w + m·b {} η·U"),
        (_VELOCITY, (lambda t, w, b, m: w.add_(b, alpha=m), ("w", "b", "m")), _SUBTRACT),
    ),
    # Nesterov's as the published search has it, which leaves out a factor.
    "lookahead": Wrapper("look-ahead", (_B, "w ← w + b {} η·U"), (_VELOCITY, _ADD_VELOCITY, _SUBTRACT)),
}
