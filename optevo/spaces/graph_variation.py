"""Drawing and mutating graphs as functions, after arXiv 2404.06679.

All randomness is the generator that they are given. Nobody here asks whether a graph can descend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from optevo.optim.graphs.decay_graph import DecayGraph
from optevo.optim.graphs.graph import (
    HIDDEN,
    OPERAND_SLOTS,
    ROOT,
    NodeGenes,
    Pair,
    UpdateGraph,
    find_cycle,
)
from optevo.optim.graphs.operations import BINARY, UNARY
from optevo.spaces.decay_variation import mutate_decay, pick, sample_decay, without

IDENTITY = UNARY[0]


@dataclass(frozen=True)
class Rates:
    """The probabilities of drawing and of mutating; their defaults are the published ones.

    Attributes:
        hidden_unary: Of one input, for a hidden node.
        root_unary: Of one input, for the root.
        identity: Of the identity, for a unary operation.
        operand: Of an operand, for an input that could be a hidden node.
        edge_decay: Of a decay, for an edge.
        operation: Of mutations, those of a node's operation.
        connection: Those of where an input comes from.
        arity: Those of how many inputs there are.
        wrapper: Those of the wrapper; the rest are those of decays.
        swap: Of connections of a node with two inputs, those that exchange them.
        remove: Of mutations of an edge with a decay, those that take it away.
        as_published: Whether what the published program does by mistake is done as well: it has another
            Nesterov step, prefers decays where the root has one input, and never comes to some alternatives.
    """

    hidden_unary: float = 0.75
    root_unary: float = 0.25
    identity: float = 0.2
    operand: float = 0.8
    edge_decay: float = 0.15
    operation: float = 0.4
    connection: float = 0.3
    arity: float = 0.1
    wrapper: float = 0.1
    swap: float = 0.2
    remove: float = 0.5
    as_published: bool = False

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Those to choose from."""
        return ("none", "momentum", "lookahead" if self.as_published else "nesterov")

    def edge_decay_of(self, number: int, genes: NodeGenes) -> float:
        """The probability of a decay on an edge into a node."""
        reversed_there = self.as_published and number == ROOT and len(genes.inputs) == 1
        return 1 - self.edge_decay if reversed_there else self.edge_decay


def random_graph(rng: np.random.Generator, rates: Rates) -> UpdateGraph | None:
    """A random graph; None where what is active has a cycle, as 2 % of them have."""
    nodes = []
    for number in HIDDEN:
        pair = rng.random() >= rates.hidden_unary
        first = _operand_or(rng, rates, without(HIDDEN, (number,)))
        inputs: tuple[int, ...] = (first,)
        if pair:
            inputs = (first, _operand_or(rng, rates, without(HIDDEN, (number, first)), inputs))
        nodes.append(_node(rng, rates, inputs))
    if rng.random() < rates.root_unary:
        inputs = (pick(rng, HIDDEN),)
    else:
        first = _operand_or(rng, rates, HIDDEN)
        others = without(HIDDEN, (first,))
        inputs = (first, pick(rng, HIDDEN) if first in OPERAND_SLOTS else _operand_or(rng, rates, others))
    nodes.append(_node(rng, rates, inputs))
    decays = {
        (number, slot): sample_decay(rng)
        for number, genes in zip((*HIDDEN, ROOT), nodes, strict=True)
        for slot in genes.inputs
        if rng.random() < rates.edge_decay_of(number, genes)
    }
    wrapper = pick(rng, rates.wrappers)
    return UpdateGraph(tuple(nodes), decays, wrapper) if find_cycle(nodes) is None else None


def _operand_or(
    rng: np.random.Generator, rates: Rates, hidden: Sequence[int], taken: tuple[int, ...] = ()
) -> int:
    if rng.random() < rates.operand:
        return pick(rng, without(OPERAND_SLOTS, taken))
    return pick(rng, hidden)


def _node(rng: np.random.Generator, rates: Rates, inputs: tuple[int, ...]) -> NodeGenes:
    unary = IDENTITY if rng.random() < rates.identity else pick(rng, without(UNARY, (IDENTITY,)))
    return NodeGenes(inputs, unary, pick(rng, BINARY))


def mutate(graph: UpdateGraph, rng: np.random.Generator, rates: Rates) -> UpdateGraph | None:
    """A copy with one thing changed at a random active node; None where that makes no graph."""
    number = pick(rng, graph.active())
    chance = rng.random()
    for share, change in (
        (rates.operation, _other_operation),
        (rates.connection, _other_inputs),
        (rates.arity, _other_arity),
    ):
        if chance < share:
            return _with(graph, number, change(graph, number, rng, rates))
        chance -= share
    if chance < rates.wrapper:
        return replace(graph, wrapper=pick(rng, without(rates.wrappers, (graph.wrapper,))))
    return replace(graph, decays=_other_decays(graph, number, rng, rates))


def _other_operation(graph: UpdateGraph, number: int, rng: np.random.Generator, rates: Rates) -> NodeGenes:
    genes = graph.genes(number)
    if len(genes.inputs) == 2:
        return replace(genes, binary=pick(rng, without(BINARY, (genes.binary,))))
    known = UNARY[:-1] if rates.as_published else UNARY  # its last one is out of reach there
    if genes.unary != IDENTITY and rng.random() < rates.identity:
        return replace(genes, unary=IDENTITY)
    return replace(genes, unary=pick(rng, without(known, (IDENTITY, genes.unary))))


def _other_inputs(graph: UpdateGraph, number: int, rng: np.random.Generator, rates: Rates) -> NodeGenes:
    genes = graph.genes(number)
    inputs = list(genes.inputs)
    if len(inputs) == 2 and rng.random() < rates.swap:
        return replace(genes, inputs=genes.inputs[::-1])
    place = int(rng.integers(len(inputs)))
    options = _unconnected(genes)
    if number == ROOT and not any(slot in HIDDEN for slot in inputs[:place] + inputs[place + 1 :]):
        options = without(HIDDEN, inputs)
        options = options[1:] if rates.as_published else options
    inputs[place] = pick(rng, options)
    return replace(genes, inputs=tuple(inputs))


def _other_arity(graph: UpdateGraph, number: int, rng: np.random.Generator, rates: Rates) -> NodeGenes:
    genes = graph.genes(number)
    if len(genes.inputs) == 1:
        pair = (*genes.inputs, pick(rng, _unconnected(genes)))
        return replace(genes, inputs=pair if rng.random() < 0.5 else pair[::-1])
    kept = [slot for slot in genes.inputs if number != ROOT or slot in HIDDEN]
    return replace(genes, inputs=(pick(rng, kept),))


def _other_decays(
    graph: UpdateGraph, number: int, rng: np.random.Generator, rates: Rates
) -> dict[Pair, DecayGraph]:
    pair, decays = (number, pick(rng, graph.genes(number).inputs)), dict(graph.decays)
    if pair not in decays:
        decays[pair] = sample_decay(rng)
    elif rng.random() < rates.remove:
        del decays[pair]
    else:
        decays[pair] = mutate_decay(decays[pair], rng, rates.as_published)
    return decays


def _unconnected(genes: NodeGenes) -> tuple[int, ...]:
    """Every other slot, the root and the node itself as well: those make no graph, as some others do."""
    return without(range(ROOT + 1), genes.inputs)


def _with(graph: UpdateGraph, number: int, genes: NodeGenes) -> UpdateGraph | None:
    nodes = list(graph.nodes)
    nodes[number - HIDDEN.start] = genes
    try:
        return replace(graph, nodes=tuple(nodes))
    except ValueError:  # a slot that a node cannot read, or a cycle
        return None
