"""An equation as the function that updates a tensor, and its text, which exported files hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.equation import Edge, Equation, Node
from optevo.optim.graphs.operations import MOMENTS, OPERANDS, OPERATIONS
from optevo.optim.graphs.tracing import Traced
from optevo.optim.graphs.wrappers import WRAPPERS


class Step(NamedTuple):
    """One line of a program.

    Attributes:
        target: The name of its value; None where it changes something in place.
        function: Of torch and the values.
        inputs: Their names.
    """

    target: str | None
    function: Callable[..., Any]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """What an equation asks of an optimizer.

    Attributes:
        equation: In normal form.
        states: Names of the tensors that it keeps for each parameter, all of which start at zero.
        decays: Those that it reads, each once; ``d1`` is the first's value.
        steps: What is done, in order.
        whole: Whether a parameter must be updated as a whole, since an operation looks at all of it.
        draws: Whether it draws random numbers.
    """

    equation: Equation
    states: tuple[str, ...]
    decays: tuple[Decay, ...]
    steps: tuple[Step, ...]
    whole: bool
    draws: bool

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of what `update` takes."""
        numbers = ("lr", "m", "k", *(f"d{i + 1}" for i in range(len(self.decays))), "generator")
        return ("w", "g", *self.states, *numbers)

    def update(self, *values: Any) -> None:
        """One step: changes `w` and the states in place.

        Args:
            *values: In the order of `arguments`. The tensors are alike in shape; `lr` is η and may be a
                column, for rows that are updated at rates of their own; `m` is the wrapper's coefficient and
                `k` the step count from 1 on.
        """
        known: dict[str | None, Any] = dict(zip(self.arguments, values, strict=True))
        for target, function, inputs in self.steps:
            known[target] = function(torch, *[known[name] for name in inputs])

    @functools.cached_property
    def source(self) -> str:
        """`update` as a Python function of torch alone."""
        text = f"def update({', '.join(self.arguments)}):\n"
        for target, function, inputs in self.steps:
            line = function(Traced("torch"), *map(Traced, inputs)).text
            text += f"    {line}\n" if target is None else f"    {target} = {line}\n"
        return text

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
        self.steps: list[Step] = []
        self.values: dict[Node | Edge, str] = {}
        self.kept: list[str] = []
        self.decays: list[Decay] = []
        self.draws = self.whole = False

    def program(self) -> Program:
        moments, wrapper = self.equation.moments, WRAPPERS[self.equation.wrapper]
        head = [Step(None, MOMENTS[name].update, (name, "g")) for name in moments]
        head += [
            Step(f"k{name}", lambda t, k, beta=MOMENTS[name].beta: 1 - beta**k, ("k",))
            for name in moments
            if f"k{name}" in self.equation.reads
        ]
        value = self.edge(self.equation.root)
        # Not a number as soon as one element of the update is not finite, so that the loss tells.
        scaled: Callable[..., Any] = lambda t, u, lr: u * (lr + 0 * u.sum(-1, keepdim=True))  # noqa: E731
        if self.equation.negated:
            scaled = lambda t, u, lr: u * (-lr + 0 * u.sum(-1, keepdim=True))  # noqa: E731
        tail = [Step("step", scaled, (value, "lr")), *(Step(None, *change) for change in wrapper.changes)]
        states = (*moments, *self.kept, *["b"] * wrapper.keeps)
        steps = (*head, *self.steps, *tail)
        return Program(self.equation, states, tuple(self.decays), steps, self.whole, self.draws)

    def edge(self, edge: Edge) -> str:
        """The name of an edge's value."""
        value = self.node(edge.of)
        if edge.decay is None:
            return value
        if edge not in self.values:
            if edge.decay not in self.decays:
                self.decays.append(edge.decay)
            number = f"d{self.decays.index(edge.decay) + 1}"
            self.values[edge] = self.named(lambda t, d, x: d * x, (number, value))
        return self.values[edge]

    def node(self, one: Node) -> str:
        """The name of a node's value."""
        if one not in self.values:
            self.values[one] = self.operand(one) if one.name in OPERANDS else self.operation(one)
        return self.values[one]

    def operand(self, one: Node) -> str:
        entry = OPERANDS[one.name]
        return "g" if one.name == "g" else self.named(entry.function, entry.reads)

    def operation(self, one: Node) -> str:
        entry, inputs = OPERATIONS[one.name], tuple(map(self.edge, one.inputs))
        if one.name == "id" or (entry.draws and not self.drops):
            return inputs[0]
        if entry.keeps:
            self.kept.append(f"n{len(self.kept) + 1}")
            inputs = (*inputs, self.kept[-1], "k")
        if entry.draws:
            self.draws, inputs = True, (*inputs, "generator")
        self.whole |= entry.whole
        value = self.named(entry.function, inputs)
        if entry.then is not None:
            self.steps.append(Step(None, entry.then, inputs))
        return value

    def named(self, function: Callable[..., Any], inputs: tuple[str, ...]) -> str:
        name = f"x{1 + sum(step.target is not None for step in self.steps)}"
        self.steps.append(Step(name, function, inputs))
        return name
