"""Graphs as Optuna parameters: those of what is expressed, each asked for only where it matters.

Active hidden nodes are called ``h1`` to ``h5`` from the root down, and a node reads operands and nodes of a
higher number, so that all values together make a graph. The arity of a node is its operation's. Parameters
of ``i1e(i1e([mul(a13,a2)]*g))`` are ``root = "i1e"``, ``root_input = "h1"``, ``root_input_decay = False``,
``h1 = "i1e"``, ``h1_input = "g"``, ``h1_input_decay = True``, ``h1_input_decay_root = "mul"`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from optevo.naming import hint
from optevo.optim.graphs.decay_functions import BASE_NAMES, BINARY_NAMES, UNARY_NAMES
from optevo.optim.graphs.decay_graph import HIDDEN as HIDDEN_DECAY
from optevo.optim.graphs.decay_graph import DecayGraph, DecayNode
from optevo.optim.graphs.graph import HIDDEN, ROOT, NodeGenes, Pair, UpdateGraph
from optevo.optim.graphs.graph import NODES as NODE_SLOTS
from optevo.optim.graphs.operations import BINARY, SEARCHED_OPERANDS, UNARY

NODES = ("root", *(f"h{i}" for i in range(1, len(HIDDEN) + 1)))
PLACES = ("input", "first", "second")
Ask = Callable[[str], Any]


def distributions(wrappers: Sequence[str], signs: bool) -> dict[str, CategoricalDistribution]:
    """Every parameter that can occur, in the order in which they are asked for.

    Args:
        wrappers: Those to choose from.
        signs: Whether the sign is a parameter.
    """
    found: dict[str, Sequence[Any]] = {"wrapper": wrappers}
    found |= {"negated": (False, True)} if signs else {}
    for i, node in enumerate(NODES):
        found[node] = (*UNARY, *BINARY)
        for place in PLACES:
            edge = f"{node}_{place}"
            found[edge] = NODES[1:] if edge == "root_input" else (*SEARCHED_OPERANDS, *NODES[i + 1 :])
            found[f"{edge}_decay"] = (False, True)
            for inner, inputs in (("root", (*BASE_NAMES, HIDDEN_DECAY)), ("hidden", BASE_NAMES)):
                found[f"{edge}_decay_{inner}"] = (*UNARY_NAMES, *BINARY_NAMES)
                found |= {f"{edge}_decay_{inner}_{one}": inputs for one in PLACES}
    return {name: CategoricalDistribution(choices) for name, choices in found.items()}


def asked(params: Mapping[str, Any], known: Mapping[str, CategoricalDistribution]) -> Ask:
    """Answers with stored parameters; ValueError where one is missing or none of its choices."""

    def ask(name: str) -> Any:
        if name not in params:
            raise ValueError(f"Invalid parameters: {name!r} is missing")
        value, choices = params[name], known[name].choices
        if not isinstance(value, (str, bool, np.bool_)) or value not in choices:
            raise ValueError(f"Invalid {name}: {value!r}, {hint(value, map(str, choices))}")
        return value

    return ask


def decode(ask: Ask, signs: bool) -> UpdateGraph:
    """The graph of the parameters that `ask` answers with; it is asked for those that matter alone.

    What makes no graph is read as what does: an input that repeats the first one is the next choice, and of
    two operands that enter the root the second is ``h1``.
    """
    wrapper, negated = ask("wrapper"), signs and bool(ask("negated"))
    nodes, decays, needed = [NodeGenes((0,))] * len(NODES), dict[Pair, DecayGraph](), {"root"}
    for i, name in enumerate(NODES):
        if name not in needed:
            continue
        operation, inputs = _node(ask, name, (*SEARCHED_OPERANDS, *NODES[i + 1 :]), UNARY)
        if name == "root" and not {*NODES} & {*inputs.values()}:
            inputs["second"] = NODES[1]
        needed |= {*inputs.values()}
        slots = {place: _SLOTS[source] for place, source in inputs.items()}
        gene = "unary" if len(inputs) == 1 else "binary"
        nodes[_SLOTS[name] - HIDDEN.start] = NodeGenes(tuple(slots.values()), **{gene: operation})
        for place, slot in slots.items():
            if ask(f"{name}_{place}_decay"):
                decays[_SLOTS[name], slot] = _decode_decay(ask, f"{name}_{place}_decay")
    return UpdateGraph(tuple(nodes), decays, wrapper, negated)


def encode(graph: UpdateGraph, signs: bool) -> dict[str, Any]:
    """The parameters of what a graph expresses; `decode` makes the same equation of them."""
    order = _from_the_root(graph)
    names = dict(enumerate(SEARCHED_OPERANDS)) | dict(zip(order, NODES, strict=False))
    params: dict[str, Any] = {"wrapper": graph.wrapper}
    params |= {"negated": graph.negated} if signs else {}
    for number in order:
        genes = graph.genes(number)
        inputs = _encode_node(params, names[number], genes.operation, [names[slot] for slot in genes.inputs])
        for edge, slot in zip(inputs, genes.inputs, strict=True):
            decay = graph.decays.get((number, slot))
            params[f"{edge}_decay"] = decay is not None
            if decay is not None:
                _encode_node(params, f"{edge}_decay_root", decay.root.operation, decay.root.inputs)
                if decay.uses_hidden:
                    _encode_node(params, f"{edge}_decay_hidden", decay.hidden.operation, decay.hidden.inputs)
    return params


_SLOTS = {name: slot for slot, name in enumerate((*SEARCHED_OPERANDS, *NODES[1:], NODES[0]))}


def _node(ask: Ask, name: str, choices: Sequence[str], unary: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The operation of a node and its inputs by place."""
    operation = ask(name)
    if operation in unary:
        return operation, {"input": ask(f"{name}_input")}
    first, second = ask(f"{name}_first"), ask(f"{name}_second")
    if second == first:
        second = choices[(choices.index(second) + 1) % len(choices)]
    return operation, {"first": first, "second": second}


def _decode_decay(ask: Ask, prefix: str) -> DecayGraph:
    def node(name: str, choices: Sequence[str]) -> DecayNode:
        operation, inputs = _node(ask, f"{prefix}_{name}", choices, UNARY_NAMES)
        unary = operation if len(inputs) == 1 else UNARY_NAMES[0]
        binary = operation if len(inputs) == 2 else BINARY_NAMES[0]
        return DecayNode(unary, binary, tuple(inputs.values()))

    root = node("root", (*BASE_NAMES, HIDDEN_DECAY))
    dormant = DecayNode(UNARY_NAMES[0], BINARY_NAMES[0], BASE_NAMES[:1])
    return DecayGraph(node("hidden", BASE_NAMES) if HIDDEN_DECAY in root.inputs else dormant, root)


def _encode_node(params: dict[str, Any], name: str, operation: str, inputs: Sequence[str]) -> list[str]:
    """Write a node's parameters; return the names of its edges."""
    edges = [f"{name}_{place}" for place in (PLACES[:1] if len(inputs) == 1 else PLACES[1:])]
    params |= {name: operation, **dict(zip(edges, inputs, strict=True))}
    return edges


def _from_the_root(graph: UpdateGraph) -> list[int]:
    """The active nodes, each before what enters it, first inputs before second ones."""
    order: list[int] = []

    def visit(number: int) -> None:
        if number in NODE_SLOTS and number not in order:
            for slot in reversed(graph.genes(number).inputs):
                visit(slot)
            order.append(number)

    visit(ROOT)
    return order[::-1]
