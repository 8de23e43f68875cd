"""Variants of a winner: its equation without each of its decays and operations. Pure Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from optevo.optim.candidate import WINNER, Candidate, Variants
from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.equation import Edge, Equation, Node
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.operations import OPERANDS
from optevo.optim.graphs.wrappers import WRAPPERS
from optevo.optim.variants import SCHEDULED, TUNED, Rescheduled, distinct

UNDECAYED = "without any decay"
_PLACES = {1: ("its input",), 2: ("its first input", "its second input")}
_LONGEST = 48  # characters of an expression in a name


def variants(winner: GraphGenome, tuned: Candidate | None = None) -> Variants:
    """The winner, and what remains of it without each of its parts; by name, no two the same optimizer.

    Args:
        winner: Its learning rate and base schedule are those of all variants.
        tuned: AdamW as a sweep tuned it. Default: None, without the variants that need it.
    """
    equation = winner.equation
    made: dict[str, Candidate] = {WINNER: winner}

    def add(name: str, changed: Equation) -> None:
        alike = sum(other == name or other.startswith(f"{name} (") for other in made)
        made[f"{name} ({alike + 1})" if alike else name] = replace(winner, equation=changed)

    decayed = list(dict.fromkeys(edge for edge in equation.edges() if edge.decay is not None))
    for edge in decayed:
        on = "the whole update" if edge == equation.root else _told(edge.of)
        assert edge.decay is not None
        add(f"without the decay {edge.decay.formula()} on {on}", _without_decay(equation, edge))
    if len(decayed) > 1:
        add(UNDECAYED, equation.without_decays())
    bare = [*made][-1]  # the winner where there is no decay
    for wrapper in WRAPPERS:
        if wrapper != equation.wrapper:
            add(_swapped(equation.wrapper, wrapper), replace(equation, wrapper=wrapper))
    for node in dict.fromkeys(node for node in equation.nodes() if node.inputs):
        for i, place in enumerate(_PLACES[len(node.inputs)]):
            add(f"{_told(node)} replaced by {place}", _without_node(equation, node, i))
    account: tuple[tuple[str, str, str], ...] = ()
    if tuned is not None:
        made |= {TUNED: tuned, SCHEDULED: Rescheduled(tuned, winner)}
        # One thing changed at a time: each line begins where the one before it ends.
        account = (
            ("the winner − tuned AdamW", WINNER, TUNED),
            ("of it the base schedule", SCHEDULED, TUNED),
            ("of it the rule, at its learning rate", bare, SCHEDULED),
            *[("of it the decays", WINNER, bare)] * bool(decayed),
        )
    note = "Every variant has the winner's learning rate and base schedule; none was tuned again."
    return Variants(distinct(made, (bare, TUNED, SCHEDULED)), account, note)


def _swapped(old: str, new: str) -> str:
    before, after = WRAPPERS[old].title, WRAPPERS[new].title
    if before and after:
        return f"{after} instead of {before}"
    return f"with {after}" if after else f"without {before}"


def _without_decay(equation: Equation, undecayed: Edge) -> Equation:
    return _changed(equation, lambda edge: replace(edge, decay=None) if edge == undecayed else None)


def _without_node(equation: Equation, node: Node, place: int) -> Equation:
    """With one of its inputs, and that one's decay, in the place of `node`."""
    entering = node.inputs[place]

    def change(edge: Edge) -> Edge | None:
        if edge.of != node:
            return None
        decays = [one for one in (edge.decay, entering.decay) if one is not None]
        both = Decay("mul", (decays[0], decays[1])) if len(decays) == 2 else None
        return Edge(entering.of, both or next(iter(decays), None))

    return _changed(equation, change)


def _changed(equation: Equation, change: Callable[[Edge], Edge | None]) -> Equation:
    """With `change` applied from the root on; nothing within what it returned is changed again."""

    def visit(edge: Edge) -> Edge:
        changed = change(edge)
        if changed is not None:
            return changed
        return replace(edge, of=replace(edge.of, inputs=tuple(map(visit, edge.of.inputs))))

    return replace(equation, root=visit(equation.root))


def _told(node: Node) -> str:
    """An operand's symbol, or an operation with what it is of, as far as there is room."""
    if node.name in OPERANDS:
        return OPERANDS[node.name].symbol
    bare = Equation(Edge(node)).without_decays().text().removeprefix("none ")
    return bare if len(bare) <= _LONGEST else f"{bare[: _LONGEST - 1]}…"
