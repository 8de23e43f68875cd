"""A function of torch and tensors as a line of Python, by calling it with values that note what is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Traced:
    """Stands for a value while a function of it is traced.

    Attributes:
        text: The line.
        binds: How strongly its last operator does, from 1 for sums to 5 for what needs no brackets.
    """

    def __init__(self, text: str, binds: int = 5) -> None:
        self.text, self.binds = text, binds

    def _within(self, binds: int) -> str:
        return self.text if self.binds >= binds else f"({self.text})"

    def __add__(self, other: Any) -> Traced:
        return Traced(f"{self._within(1)} + {_traced(other)._within(2)}", 1)

    def __radd__(self, other: Any) -> Traced:
        return _traced(other) + self

    def __sub__(self, other: Any) -> Traced:
        return Traced(f"{self._within(1)} - {_traced(other)._within(2)}", 1)

    def __rsub__(self, other: Any) -> Traced:
        return _traced(other) - self

    def __mul__(self, other: Any) -> Traced:
        return Traced(f"{self._within(2)} * {_traced(other)._within(3)}", 2)

    def __rmul__(self, other: Any) -> Traced:
        return _traced(other) * self

    def __truediv__(self, other: Any) -> Traced:
        return Traced(f"{self._within(2)} / {_traced(other)._within(3)}", 2)

    def __rtruediv__(self, other: Any) -> Traced:
        return _traced(other) / self

    def __rpow__(self, other: Any) -> Traced:
        return Traced(f"{_traced(other)._within(5)}**{self._within(4)}", 4)

    def __neg__(self) -> Traced:
        return Traced(f"-{self._within(3)}", 3)

    def __getattr__(self, name: str) -> Traced:
        return Traced(f"{self._within(5)}.{name}")

    def __call__(self, *args: Any, **options: Any) -> Traced:
        given: Sequence[str] = [_traced(one).text for one in args]
        given = [*given, *(f"{name}={_traced(one).text}" for name, one in options.items())]
        return Traced(f"{self._within(5)}({', '.join(given)})")


def _traced(value: Any) -> Traced:
    return value if isinstance(value, Traced) else Traced(repr(value))
