"""An equation as the function that updates a tensor, and its text, which exported files hold."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.equation import Edge, Equation, Node
from optevo.optim.graphs.operations import MOMENTS, OPERANDS, OPERATIONS

_STEPS = {
    "none": ["w.sub_(step)"],
    "momentum": ["b.mul_(m).sub_(step)", "w.add_(b)"],
    "nesterov": ["b.mul_(m).sub_(step)", "w.add_(b, alpha=m).sub_(step)"],
    "lookahead": ["b.mul_(m).sub_(step)", "w.add_(b).sub_(step)"],
}


@dataclass(frozen=True)
class Program:
    """What an equation asks of an optimizer.

    Attributes:
        equation: In normal form.
        states: Names of the tensors that it keeps for each parameter, all of which start at zero.
        decays: Those that it reads, each once; ``d1`` is the first's value.
        source: The function `update(w, g, *states, lr, m, k, d1, …, generator)`, which changes `w` and the
            states in place. The tensors are alike in shape; `lr` is η and may be a column for rows that are
            updated at rates of their own; `m` is the wrapper's coefficient, `k` the step count from 1 on.
        whole: Whether a parameter must be updated as a whole, since an operation looks at all of it.
        draws: Whether it draws random numbers.
    """

    equation: Equation
    states: tuple[str, ...]
    decays: tuple[Decay, ...]
    source: str
    whole: bool
    draws: bool

    @functools.cached_property
    def update(self) -> Callable[..., None]:
        """The function of `source`."""
        # The source has lines of the tables alone, and nothing of the equation's text.
        space: dict[str, Any] = {"torch": torch, "math": math}
        exec(compile(self.source, f"<{self.equation.text()}>", "exec"), space)
        made: Callable[..., None] = space["update"]
        return made

    def tables(self, total_steps: int) -> list[tuple[float, ...]]:
        """The values of each decay over a run."""
        return [decay.table(total_steps) for decay in self.decays]


@functools.lru_cache(maxsize=256)
def program(text: str, *, draws: bool = True) -> Program:
    """The program of an equation's text.

    Args:
        text: See `Equation.text`.
        draws: Whether dropout drops; False makes it the identity. Default: True.

    Raises:
        ValueError: The text is none of an equation.
    """
    return _Writer(Equation.parse(text).normal(), draws).program()


class _Writer:
    """Writes each distinct part of an equation once."""

    def __init__(self, equation: Equation, draws: bool) -> None:
        self.equation, self.drops = equation, draws
        self.lines: list[str] = []
        self.values: dict[Node | Edge, str] = {}
        self.kept: list[str] = []
        self.decays: list[Decay] = []
        self.draws = self.whole = False

    def program(self) -> Program:
        moments, wrapper = self.equation.moments, self.equation.wrapper
        head = [MOMENTS[name].source for name in moments]
        head += [f"k{name} = 1 - {MOMENTS[name].beta}**k" for name in moments]
        value = self.edge(self.equation.root)
        states = (*moments, *self.kept, *(["b"] if wrapper != "none" else []))
        tail = [
            # Not a number as soon as one element of the update is not finite, so that the loss tells.
            f"step = {value} * ({'-' * self.equation.negated}lr + 0 * {value}.sum(-1, keepdim=True))",
            *_STEPS[wrapper],
        ]
        numbers = ["lr", "m", "k", *(f"d{i + 1}" for i in range(len(self.decays))), "generator"]
        text = f"def update({', '.join(('w', 'g', *states, *numbers))}):\n"
        text += "".join(f"    {line}\n" for line in (*head, *self.lines, *tail))
        return Program(self.equation, states, tuple(self.decays), text, self.whole, self.draws)

    def edge(self, edge: Edge) -> str:
        """The name of an edge's value."""
        value = self.node(edge.of)
        if edge.decay is None:
            return value
        if edge not in self.values:
            if edge.decay not in self.decays:
                self.decays.append(edge.decay)
            self.values[edge] = self.named(f"d{self.decays.index(edge.decay) + 1} * {value}")
        return self.values[edge]

    def node(self, one: Node) -> str:
        """The name of a node's value."""
        if one in self.values:
            return self.values[one]
        if one.name in OPERANDS:
            source = OPERANDS[one.name].source
        else:
            operation = OPERATIONS[one.name]
            names = dict(zip("xy", map(self.edge, one.inputs), strict=False))
            source = names["x"] if operation.draws and not self.drops else operation.source
            if operation.keeps:
                self.kept.append(f"n{len(self.kept) + 1}")
                names["n"] = self.kept[-1]
            self.whole |= operation.whole
            self.draws |= operation.draws and self.drops
            source = source.format(**names)
        self.values[one] = source if source.isidentifier() else self.named(source)
        return self.values[one]

    def named(self, source: str) -> str:
        name = f"x{len(self.lines) + 1}"
        self.lines.append(f"{name} = {source}")
        return name
