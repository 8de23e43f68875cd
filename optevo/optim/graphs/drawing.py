"""An equation as a picture: equal sub-expressions once, decays on their edges. Pure Python."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from optevo.optim.candidate import Drawing, DrawnEdge, DrawnNode
from optevo.optim.graphs.decay_functions import BASES
from optevo.optim.graphs.operations import MOMENTS, OPERANDS, OPERATIONS
from optevo.optim.graphs.wrappers import WRAPPERS
from optevo.optim.schedules import OneCycleMomentum

if TYPE_CHECKING:
    from optevo.optim.graphs.equation import Edge, Equation, Node
    from optevo.optim.graphs.genome import GraphGenome

_BASE, _MOMENTUM = "base schedule", "momentum m"


def drawing(genome: GraphGenome) -> Drawing:
    """The rule from its operands to the weights' update, with its decays and schedules as curves."""
    equation = genome.equation
    places: dict[Node, int] = {}
    for node in equation.nodes():  # what a node reads comes before it
        places.setdefault(node, len(places))
    nodes = [_drawn(node) for node in places]
    edges = [
        DrawnEdge(places[edge.of], end, _decay(edge), place)
        for node, end in places.items()
        for edge, place in zip(node.inputs, _input_names(node), strict=True)
    ]
    sign, wrapper = "−+"[equation.negated], WRAPPERS[equation.wrapper]
    told = "U is turned around" if equation.negated else "U is what comes in"
    output = "\n".join(wrapper.lines).replace("{}", sign)
    nodes.append(DrawnNode(output, "output", f"{wrapper.title}; {told}" if wrapper.title else told))
    edges.append(DrawnEdge(places[equation.root.of], len(places), _decay(equation.root), "U"))
    return Drawing(tuple(nodes), tuple(edges), _curves(genome), _notes(equation))


def _drawn(node: Node) -> DrawnNode:
    if node.name in OPERANDS:
        return DrawnNode(_bare(OPERANDS[node.name].symbol), "input", node.name)
    return DrawnNode(_bare(OPERATIONS[node.name].symbol.format(x="x", y="y")), "operation", node.name)


def _input_names(node: Node) -> tuple[str, ...]:
    """As the label of the node calls them; nothing where the order is no matter."""
    if len(node.inputs) < 2 or OPERATIONS[node.name].commutes:
        return ("",) * len(node.inputs)
    return ("x", "y")


def _bare(symbol: str) -> str:
    """Without brackets around the whole."""
    inner = symbol[1:-1]
    return inner if symbol[0] + symbol[-1] == "()" and "(" not in inner else symbol


def _decay(edge: Edge) -> str:
    return "" if edge.decay is None else edge.decay.formula()


def _curves(genome: GraphGenome) -> dict[str, Callable[[int], Sequence[float]]]:
    equation = genome.equation
    curves: dict[str, Callable[[int], Sequence[float]]] = {_BASE: functools.partial(_schedule, genome)}
    root = equation.root.decay
    if root is not None:
        curves[f"{_BASE} × {root.formula()}"] = lambda total: [
            a * b for a, b in zip(_schedule(genome, total), root.table(total), strict=True)
        ]
    if WRAPPERS[equation.wrapper].keeps:
        curves[_MOMENTUM] = functools.partial(_momenta, genome)
    for decay in dict.fromkeys(edge.decay for edge in equation.edges() if edge.decay is not None):
        curves[decay.formula()] = decay.table
    return curves


def _schedule(genome: GraphGenome, total_steps: int) -> list[float]:
    return list(map(genome.schedule(total_steps), range(total_steps)))


def _momenta(genome: GraphGenome, total_steps: int) -> list[float]:
    base = genome.schedule(total_steps)
    steps = {"warmup_steps": base.warmup_steps, "hold_steps": base.hold_steps}
    return list(map(OneCycleMomentum(total_steps, **steps), range(total_steps)))


def _notes(equation: Equation) -> tuple[str, ...]:
    """The averages, then the base functions of the decays."""
    notes = [MOMENTS[name].formula for name in equation.moments]
    symbols = "".join(OPERANDS[node.name].symbol for node in equation.nodes() if node.name in OPERANDS)
    if "\N{COMBINING CIRCUMFLEX ACCENT}" in unicodedata.normalize("NFD", symbols):
        notes.append("under a hat: divided by 1 − βᵏ at step k = 1, 2, …")
    legends = dict[str, str]()
    for edge in equation.edges():
        legends |= {} if edge.decay is None else edge.decay.legend()
    notes += [f"{name} = {legends[name]}" for name in BASES if name in legends]
    notes += ["x = t/T, y = (2t mod T)/T at step t of T"] * bool(legends)
    return tuple(notes)
