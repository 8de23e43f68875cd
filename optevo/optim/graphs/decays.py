"""Decays: factors of training time on the edges of an update equation. Pure Python.

>>> decay = Decay.parse("mul(a13,a2)")
>>> decay.formula()
'a13·a2'
>>> decay.value(5, total_steps=20)
0.2325174825174825
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass

from optevo.naming import hint
from optevo.optim.graphs.decay_functions import BASES, OPERATIONS

PHENOTYPE_STEPS = 100  # a decay of the search is tested over a run of this length
_DEEPEST = 50


@dataclass(frozen=True)
class _Written:
    """An expression and how it binds; formatted with a number, it has brackets where it binds less."""

    text: str
    binds: int
    brackets: str

    def __format__(self, least: str) -> str:
        return self.text if self.binds >= int(least or 0) else self.brackets.format(self.text)


@dataclass(frozen=True)
class Decay:
    """A function of t = 0 … T − 1: a base function, or an operation on one or two decays.

    Attributes:
        name: A key of `BASES` or of `OPERATIONS`.
        args: What the operation is of; none for a base function.

    Raises:
        ValueError: The name is unknown, or takes another number of arguments.
    """

    name: str
    args: tuple[Decay, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in BASES and self.name not in OPERATIONS:
            raise ValueError(f"Invalid decay: {self.name!r}, {hint(self.name, [*BASES, *OPERATIONS])}")
        arity = 0 if self.name in BASES else OPERATIONS[self.name].arity
        if len(self.args) != arity:
            raise ValueError(f"Invalid decay: {self.name} takes {_counted(arity)}, got {len(self.args)}")

    @classmethod
    def parse(cls, text: str) -> Decay:
        """The decay that `text` says, as `text()` writes it; blanks are no matter.

        Raises:
            ValueError: It says none; the message has the text and the position.
        """
        return _Parser(text).whole()

    def text(self) -> str:
        """As in ``mul(a13,a2)``."""
        return f"{self.name}({','.join(a.text() for a in self.args)})" if self.args else self.name

    def __str__(self) -> str:
        return self.text()

    def normal(self) -> Decay:
        """The same function without `id`, the arguments of commutative operations sorted."""
        if self.name == "id":
            return self.args[0].normal()
        args = [arg.normal() for arg in self.args]
        if args and OPERATIONS[self.name].commutes:
            args.sort(key=Decay.text)
        return Decay(self.name, tuple(args))

    def names(self) -> set[str]:
        """The base functions and operations in it."""
        return {self.name}.union(*(arg.names() for arg in self.args))

    def bases(self) -> tuple[str, ...]:
        """The base functions in it, each once, in the order of `BASES`."""
        names = self.names()
        return tuple(name for name in BASES if name in names)

    def value(self, t: int, total_steps: int) -> float:
        """Its value at step t of a run of `total_steps` steps; not finite where a division says so."""
        if not self.args:
            return BASES[self.name].function(t, total_steps)
        return OPERATIONS[self.name].function(*(arg.value(t, total_steps) for arg in self.args))

    def table(self, total_steps: int) -> tuple[float, ...]:
        """Its values at the steps of a run of `total_steps` steps."""
        return _table(self, total_steps)

    def phenotype_fault(self) -> str | None:
        """Why the search refuses it: a value outside [0, 1] over 100 steps. None where it doesn't."""
        for t, value in enumerate(self.table(PHENOTYPE_STEPS)):
            if not 0.0 <= value <= 1.0:
                return f"{self.text()} is {value:.6g} at step {t} of {PHENOTYPE_STEPS}, expected 0 to 1"
        return None

    def formula(self) -> str:
        """One line for people, as in ``a13·a2``; `legend` says what the names are."""
        return self._written("symbol").text

    def legend(self) -> dict[str, str]:
        """What the base functions in its formula are: by name, with x = t/T and y = (2t mod T)/T."""
        return {name: BASES[name].formula for name in self.bases() if name != "1"}

    def latex(self) -> str:
        """Its formula in LaTeX, without dollar signs."""
        return self._written("latex").text

    def source(self) -> str:
        """Its value as a Python expression of `t` and `total_steps`; see `definitions`."""
        return self._written("source").text

    def _column(self, total_steps: int) -> list[float]:
        """`value` at every step: an operation is looked up once, not once a step."""
        if not self.args:
            function = BASES[self.name].function
            return [function(t, total_steps) for t in range(total_steps)]
        return list(map(OPERATIONS[self.name].function, *(arg._column(total_steps) for arg in self.args)))

    def _written(self, how: str) -> _Written:
        """By the templates of this name in the tables."""
        brackets = r"\left({}\right)" if how == "latex" else "({})"
        if not self.args:
            base = BASES[self.name]
            names = {"symbol": self.name, "latex": base.latex, "source": base.source}
            return _Written(names[how], 3, brackets)
        operation, args = OPERATIONS[self.name], [arg._written(how) for arg in self.args]
        binds = args[0].binds if self.name == "id" else operation.binds
        return _Written(getattr(operation, how).format(*args), binds, brackets)


@functools.lru_cache(maxsize=32)  # of 100,000 steps each takes 3 MB
def _table(decay: Decay, total_steps: int) -> tuple[float, ...]:
    return tuple(decay._column(total_steps))


def definitions(decays: Iterable[Decay]) -> str:
    """The Python functions that the sources of these decays call; they need `math` alone."""
    names = set[str]().union(*(decay.names() for decay in decays))
    tables = [
        (entry.source, entry.function)
        for table in (BASES, OPERATIONS)
        for name, entry in table.items()
        if name in names
    ]
    called = {function: None for source, function in tables if source.startswith(f"{function.__name__}(")}
    own = [function for function in called if inspect.isfunction(function)]
    return "\n\n\n".join(inspect.getsource(function).rstrip() for function in own)


class _Parser:
    """A text read from left to right."""

    TOKENS = re.compile(r"\s*([A-Za-z0-9_]+|[^\s])|\s*$")

    def __init__(self, text: str) -> None:
        self.text = text
        self.token, self.at, self.end = "", 0, 0
        self.next()

    def next(self) -> None:
        found = self.TOKENS.match(self.text, self.end)
        assert found is not None  # the pattern takes any text
        self.token = found[1] or ""
        self.at, self.end = found.start(1) if found[1] else len(self.text), found.end()

    def whole(self) -> Decay:
        decay = self.decay(1)
        if self.token:
            raise self.refusal("expected nothing more")
        return decay

    def decay(self, depth: int) -> Decay:
        name = self.token
        if depth > _DEEPEST:
            raise self.refusal(f"expected at most {_DEEPEST} operations within one another")
        if name in BASES:
            self.next()
            return Decay(name)
        if name not in OPERATIONS:
            near = hint(name, [*BASES, *OPERATIONS], "expected a base function or an operation")
            raise self.refusal(near)
        self.next()
        self.take("(")
        args = [self.decay(depth + 1)]
        while len(args) < OPERATIONS[name].arity:
            self.take(",")
            args.append(self.decay(depth + 1))
        self.take(")")
        return Decay(name, tuple(args))

    def take(self, expected: str) -> None:
        if self.token != expected:
            raise self.refusal(f"expected {expected!r}")
        self.next()

    def refusal(self, said: str) -> ValueError:
        found = repr(self.token) if self.token else "the end"
        shown = self.text if len(self.text) <= 200 else f"{self.text[:200]}…"
        return ValueError(f"Invalid decay: {shown!r}, {found} at position {self.at}: {said}")


def _counted(arity: int) -> str:
    return ("no arguments", "one argument", "two arguments")[arity]
