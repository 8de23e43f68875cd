"""`Equation`: an update rule as an expression with decays on its edges; what an optimizer is made of.

In a text a node is ``name(input)`` or ``name(first,second)``, and a decay stands before what it multiplies::

    nesterov i1e(i1e([mul(a13,a2)]*g))
    none div(v_hat,sqrtabs(s_hat))

Pure Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optevo.naming import hint
from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.operations import MOMENTS, OPERANDS, OPERATIONS
from optevo.optim.graphs.wrappers import WRAPPERS

_NEEDLESS = re.compile(r"(?<!\w)\(([^\s()·/|]+)\)")  # brackets around a single symbol
_TOKEN = re.compile(r"\s*(?:\[(?P<decay>[^\]]*)\]|(?P<name>[A-Za-z0-9_.\-]+)|(?P<mark>[(),*]))")


@dataclass(frozen=True)
class Edge:
    """What enters a node: the value of another, times a decay.

    Attributes:
        of: The source.
        decay: Default: None, for 1.
    """

    of: Node
    decay: Decay | None = None


@dataclass(frozen=True)
class Node:
    """An operand, or an operation on what enters it.

    Attributes:
        name: Of `OPERANDS` or `OPERATIONS`.
        inputs: As many as the operation's arity; none for an operand.
    """

    name: str
    inputs: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        if self.name in OPERANDS:
            arity = 0
        elif self.name in OPERATIONS:
            arity = OPERATIONS[self.name].arity
        else:
            raise ValueError(f"unknown {self.name!r}: {_hint(self.name)}")
        if len(self.inputs) != arity:
            raise ValueError(f"{self.name!r} takes {arity or 'no'} inputs, {len(self.inputs)} are given")


@dataclass(frozen=True)
class Equation:
    """An update rule: w ← w − η·U and what a wrapper makes of it.

    Attributes:
        root: What U is; an edge, so that a decay may scale the whole.
        wrapper: "none"; "momentum" for b ← m·b − η·U, w ← w + b; or, with the same b, "nesterov" for
            w ← w + m·b − η·U and "lookahead" for w ← w + b − η·U. The coefficient m follows a schedule.
            Default: "none".
        negated: Whether −U stands for U. Default: False.

    Raises:
        ValueError: The wrapper is unknown.

    Example:
        >>> from optevo.optim import Equation
        >>> equation = Equation.parse("nesterov div(v_hat,sqrtabs(s_hat))")
        >>> equation.formula()
        'Δ = v̂/(√|ŝ| + 1e-7), Nesterov'
        >>> equation.text()
        'nesterov div(v_hat,sqrtabs(s_hat))'
    """

    root: Edge
    wrapper: str = "none"
    negated: bool = False

    def __post_init__(self) -> None:
        if self.wrapper not in list(WRAPPERS):
            raise ValueError(f"Invalid wrapper: {self.wrapper!r}, {hint(self.wrapper, WRAPPERS)}")

    @classmethod
    def parse(cls, text: str) -> Equation:
        """The inverse of `text`.

        Raises:
            ValueError: The text is none of an equation; the message says where.
        """
        if not isinstance(text, str):
            raise ValueError(f"Invalid equation: {text!r}, expected a text")
        body = text.strip()
        negated = body.startswith("-")
        wrapper, _, rest = body.removeprefix("-").strip().partition(" ")
        if not rest.strip():
            raise ValueError(
                f"Invalid equation {text!r}: expected a wrapper ({', '.join(WRAPPERS)}) and an expression, "
                "such as 'none id(g)'"
            )
        if wrapper not in WRAPPERS:
            raise ValueError(
                f"Invalid equation {text!r}: unknown wrapper {wrapper!r}, {hint(wrapper, WRAPPERS)}"
            )
        return cls(
            _Parser(text, body.index(rest, body.index(wrapper) + len(wrapper))).edge_alone(), wrapper, negated
        )

    def text(self) -> str:
        """One line that `parse` reads."""
        return f"{'-' * self.negated}{self.wrapper} {_edge_text(self.root)}"

    def normal(self) -> Equation:
        """The one of all ways to write it: identities left out, arguments that may change places in order."""
        return replace(self, root=_normal(self.root))

    def formula(self) -> str:
        """The rule as a line to read, for instance ``Δ = v̂/(√|ŝ| + 1e-7), Nesterov``."""
        title = WRAPPERS[self.wrapper].title
        wrapped = f", {title}" if title else ""
        return f"Δ = {'−' * self.negated}{_edge_told(self.root, _formula)}{wrapped}"

    def latex(self) -> str:
        """U in LaTeX, without dollar signs."""
        return "U = " + "-" * self.negated + _edge_told(self.root, _latex)

    def nodes(self) -> Iterator[Node]:
        """Every node and operand that is written, with repeats, inputs before what they enter."""
        return _walk(self.root.of)

    def edges(self) -> Iterator[Edge]:
        """Every edge that is written, with repeats; the root's last."""
        for node in self.nodes():
            yield from node.inputs
        yield self.root

    @property
    def reads(self) -> frozenset[str]:
        """What its operands read, see `Operand.reads`."""
        return frozenset().union(*(OPERANDS[n.name].reads for n in self.nodes() if n.name in OPERANDS))

    @property
    def moments(self) -> tuple[str, ...]:
        """The moments that it needs, in the table's order."""
        return tuple(name for name in MOMENTS if name in self.reads)

    def without_decays(self) -> Equation:
        """The same with every decay replaced by 1."""

        def bare(edge: Edge) -> Edge:
            return Edge(replace(edge.of, inputs=tuple(map(bare, edge.of.inputs))))

        return replace(self, root=bare(self.root))


def _walk(one: Node) -> Iterator[Node]:
    for edge in one.inputs:
        yield from _walk(edge.of)
    yield one


def _edge_text(edge: Edge) -> str:
    inputs = ",".join(map(_edge_text, edge.of.inputs))
    decay = "" if edge.decay is None else f"[{edge.decay.text()}]*"
    return f"{decay}{edge.of.name}{f'({inputs})' if inputs else ''}"


def _normal(edge: Edge) -> Edge:
    inputs = tuple(map(_normal, edge.of.inputs))
    decay = None if edge.decay is None else edge.decay.normal()
    if edge.of.name == "id" and (decay is None or inputs[0].decay is None):
        return Edge(inputs[0].of, inputs[0].decay if decay is None else decay)
    if edge.of.name in OPERATIONS and OPERATIONS[edge.of.name].commutes:
        inputs = tuple(sorted(inputs, key=_edge_text))
    return Edge(Node(edge.of.name, inputs), decay)


def _edge_told(edge: Edge, told: Any) -> str:
    inner: str = told(edge.of, [_edge_told(one, told) for one in edge.of.inputs])
    if edge.decay is None:
        return inner
    if told is _latex:
        return rf"\left[{edge.decay.latex()}\right] {inner}"
    return f"[{edge.decay.formula()}]·{inner}"


def _formula(one: Node, inputs: Sequence[str]) -> str:
    if one.name in OPERANDS:
        return OPERANDS[one.name].symbol
    written = OPERATIONS[one.name].symbol.format(**dict(zip("xy", inputs, strict=False)))
    return _NEEDLESS.sub(r"\1", written)


def _latex(one: Node, inputs: Sequence[str]) -> str:
    if one.name in OPERANDS:
        return OPERANDS[one.name].latex
    given = dict(zip("XY", inputs, strict=False))
    return re.sub("[XY]", lambda match: given[match[0]], OPERATIONS[one.name].latex)


def _hint(name: str) -> str:
    said = hint(name, [*OPERATIONS, *OPERANDS], "")
    return said or f"operands are {', '.join(OPERANDS)}; operations are {', '.join(OPERATIONS)}"


class _Parser:
    """Of a text from `start` on: edge := [decay]* node; node := name | name(edge, …)."""

    def __init__(self, text: str, start: int) -> None:
        self.text, self.at = text.strip(), start

    def edge_alone(self) -> Edge:
        edge = self.edge()
        if self.text[self.at :].strip():
            raise self.fault("expected the end")
        return edge

    def edge(self, depth: int = 0) -> Edge:
        if depth > 100:
            raise self.fault("nested too deeply")
        token, decay = self.next(), None
        if token["decay"] is not None:
            try:
                decay = Decay.parse(token["decay"])
            except ValueError as error:
                raise self.fault(f"the decay before here: {error}") from None
            token = self.next()
            if token["mark"] == "*":
                token = self.next()
        name = token["name"]
        if name is None:
            raise self.fault("expected the name of an operand or operation before here")
        if name not in OPERANDS and name not in OPERATIONS:
            raise self.fault(f"unknown {name!r} before here: {_hint(name)}")
        inputs: list[Edge] = []
        if self.text[self.at :].lstrip().startswith("("):
            self.next()
            inputs.append(self.edge(depth + 1))
            while (mark := self.next()["mark"]) == ",":
                inputs.append(self.edge(depth + 1))
            if mark != ")":
                raise self.fault("expected ',' or ')' before here")
        try:
            return Edge(Node(name, tuple(inputs)), decay)
        except ValueError as error:
            raise self.fault(f"{error}, before here") from None

    def next(self) -> re.Match[str]:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.fault(
                "cannot be read from here on" if self.text[self.at :].strip() else "it ends too soon"
            )
        self.at = match.end()
        return match

    def fault(self, what: str) -> ValueError:
        return ValueError(f"Invalid equation {self.text!r}, at character {self.at}: {what}")
