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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optevo.naming import hint
from optevo.optim.graphs.decay_functions import BASE_NAMES, BASES, BINARY_NAMES, OPERATIONS, UNARY_NAMES

PHENOTYPE_STEPS = 100  # a decay of the search is tested over a run of this length
HIDDEN = "hidden"  # what a root calls the hidden node among its inputs
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

    def bases(self) -> tuple[str, ...]:
        """The base functions in it, each once, in the order of `BASES`."""
        names = self._names()
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

    def _names(self) -> set[str]:
        return {self.name}.union(*(arg._names() for arg in self.args))

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
    names = set[str]().union(*(decay._names() for decay in decays))
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


@dataclass(frozen=True)
class DecayNode:
    """A node of a `DecayGraph`; the arity gene is the number of inputs.

    Attributes:
        unary: What it does with one input, one of `UNARY_NAMES`.
        binary: What it does with two inputs, one of `BINARY_NAMES`.
        inputs: One name or two different ones, in order: base functions or, in a root, `HIDDEN`.
    """

    unary: str
    binary: str
    inputs: tuple[str, ...]

    @property
    def operation(self) -> str:
        """The expressed one."""
        return self.unary if len(self.inputs) == 1 else self.binary


@dataclass(frozen=True)
class DecayGraph:
    """The genes of a decay in the search: a root that may read a hidden node.

    Values outside [0, 1] are no fault of the genes: see `Decay.phenotype_fault`.

    Attributes:
        hidden: Reads base functions alone. It may be dormant.
        root: Reads base functions, the hidden node, or one of each.

    Raises:
        ValueError: An operation or an input is none of the search's, or there are not one or two inputs.
    """

    hidden: DecayNode
    root: DecayNode

    def __post_init__(self) -> None:
        for place, node, known in (
            ("hidden", self.hidden, BASE_NAMES),
            ("root", self.root, (*BASE_NAMES, HIDDEN)),
        ):
            for gene, names in (("unary", UNARY_NAMES), ("binary", BINARY_NAMES)):
                value = getattr(node, gene)
                if value not in names:
                    raise ValueError(f"Invalid {place}.{gene}: {value!r}, {hint(value, names)}")
            for name in node.inputs:
                if name not in known:
                    raise ValueError(f"Invalid {place}.inputs: {name!r}, {hint(name, known)}")
            if len(node.inputs) not in (1, 2) or len({*node.inputs}) != len(node.inputs):
                raise ValueError(f"Invalid {place}.inputs: {node.inputs}, expected one or two different ones")

    @property
    def uses_hidden(self) -> bool:
        """Whether the root reads the hidden node."""
        return HIDDEN in self.root.inputs

    def decay(self) -> Decay:
        """What it expresses."""
        hidden = Decay(self.hidden.operation, tuple(map(Decay, self.hidden.inputs)))
        args = tuple(hidden if name == HIDDEN else Decay(name) for name in self.root.inputs)
        return Decay(self.root.operation, args)

    @classmethod
    def from_decay(cls, decay: Decay) -> DecayGraph:
        """The graph that expresses `decay`, with identities where it needs them; latent genes are the first.

        Raises:
            ValueError: Two nodes and the search's operations can't express it.
        """
        shown, bare = decay.text(), decay if _fits(decay) else _without_id(decay)
        outside = [name for name in bare._names() if name not in {*BASE_NAMES, *UNARY_NAMES, *BINARY_NAMES}]
        if outside:
            raise ValueError(f"Invalid decay graph: {shown} has {sorted(outside)[0]}, which no search uses")
        root = bare if bare.args else Decay("id", (bare,))
        # Two inputs are different ones: a base function that is read twice is read through the hidden node.
        if len(root.args) == 2 and root.args[0] == root.args[1] and not root.args[0].args:
            root = Decay(root.name, (root.args[0], Decay("id", (root.args[1],))))
        if not _fits(root):
            raise ValueError(f"Invalid decay graph: {shown} takes more than a root and one hidden node")
        inner = [arg for arg in root.args if arg.args]
        hidden = inner[0] if inner else Decay("id", (Decay(BASE_NAMES[0]),))
        inputs = tuple(HIDDEN if arg.args else arg.name for arg in root.args)
        return cls(_node(hidden.name, tuple(a.name for a in hidden.args)), _node(root.name, inputs))

    def to_dict(self) -> dict[str, list[Any]]:
        """As JSON has it: for each node its unary and its binary operation, then its inputs."""
        return {
            place: [node.unary, node.binary, *node.inputs]
            for place, node in (("hidden", self.hidden), ("root", self.root))
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecayGraph:
        """The graph that `to_dict` wrote.

        Raises:
            ValueError: It says something else.
        """
        if not isinstance(data, Mapping) or data.keys() != {"hidden", "root"}:
            raise ValueError(f"Invalid decay graph: {data!r}, expected hidden and root")
        nodes = {}
        for place, genes in data.items():
            if (
                not isinstance(genes, (list, tuple))
                or len(genes) < 3
                or not all(isinstance(g, str) for g in genes)
            ):
                raise ValueError(f"Invalid {place}: {genes!r}, expected two operations and one or two inputs")
            nodes[place] = DecayNode(genes[0], genes[1], tuple(genes[2:]))
        return cls(**nodes)


def _counted(arity: int) -> str:
    return ("no arguments", "one argument", "two arguments")[arity]


def _without_id(decay: Decay) -> Decay:
    if decay.name == "id":
        return _without_id(decay.args[0])
    return Decay(decay.name, tuple(map(_without_id, decay.args)))


def _fits(root: Decay) -> bool:
    """Whether it is an operation on base functions and at most one operation on different base functions."""
    inner = [arg for arg in root.args if arg.args]
    different = all(len({*node.args}) == len(node.args) for node in (root, *inner))
    return (
        bool(root.args)
        and len(inner) <= 1
        and different
        and not any(a.args for one in inner for a in one.args)
    )


def _node(name: str, inputs: tuple[str, ...]) -> DecayNode:
    unary = name if name in UNARY_NAMES else UNARY_NAMES[0]
    binary = name if name in BINARY_NAMES else BINARY_NAMES[0]
    return DecayNode(unary, binary, inputs)
