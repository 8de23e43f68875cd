"""`UpdateGraph`: the genes of an update rule, of which its `Equation` is what is expressed. Pure Python.

Source: arXiv 2404.06679. Slots 0 to 19 are operands, 20 to 24 five hidden nodes, 25 is the root, whose value
is the update. A hidden node reads operands and other hidden nodes; the root reads at least one hidden node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optevo.naming import hint
from optevo.optim.graphs.decay_graph import DecayGraph
from optevo.optim.graphs.equation import Edge, Equation, Node
from optevo.optim.graphs.operations import BINARY, OPERANDS, OPERATIONS, SEARCHED_OPERANDS, UNARY
from optevo.optim.graphs.wrappers import WRAPPERS

OPERAND_SLOTS = range(len(SEARCHED_OPERANDS))
HIDDEN = range(len(SEARCHED_OPERANDS), len(SEARCHED_OPERANDS) + 5)
ROOT = HIDDEN.stop
NODES = (*HIDDEN, ROOT)

Pair = tuple[int, int]  # a node and one of its input slots


@dataclass(frozen=True)
class NodeGenes:
    """One node.

    Attributes:
        inputs: One slot, or an ordered pair of distinct ones.
        unary: Its operation while it has one input; latent otherwise. Default: "id".
        binary: Its operation while it has two; latent otherwise. Default: "add".
    """

    inputs: tuple[int, ...]
    unary: str = "id"
    binary: str = "add"

    @property
    def operation(self) -> str:
        """The one that is expressed."""
        return self.unary if len(self.inputs) == 1 else self.binary


@dataclass(frozen=True)
class UpdateGraph:
    """An update rule as genes.

    Attributes:
        nodes: The five hidden nodes, then the root.
        decays: By node and input slot; one whose edge is not there is dormant. Default: none.
        wrapper: One of `WRAPPERS`. Default: "none".
        negated: Whether the update is turned around. Default: False.

    Raises:
        ValueError: The genes are none of a graph, or what is active has a cycle.

    Example:
        >>> from optevo.optim import UpdateGraph
        >>> graph = UpdateGraph.parse("nesterov div(v_hat,sqrtabs(s_hat))")
        >>> graph.equation().formula()
        'Δ = v̂/(√|ŝ| + 1e-7), Nesterov'
    """

    nodes: tuple[NodeGenes, ...]
    decays: Mapping[Pair, DecayGraph] = field(default_factory=dict)
    wrapper: str = "none"
    negated: bool = False

    def __post_init__(self) -> None:
        if len(self.nodes) != len(NODES):
            raise ValueError(f"Invalid nodes: {len(self.nodes)} of them, expected {len(NODES)}")
        if self.wrapper not in list(WRAPPERS):
            raise ValueError(f"Invalid wrapper: {self.wrapper!r}, {hint(self.wrapper, WRAPPERS)}")
        for number, genes in zip(NODES, self.nodes, strict=True):
            _check_node(number, genes)
        for number, slot in self.decays:
            whole = type(number) is type(slot) is int
            if not whole or number not in NODES or slot not in range(ROOT) or number == slot:
                raise ValueError(f"Invalid decay on the edge from slot {slot} to node {number}: no such edge")
        if (cycle := find_cycle(self.nodes)) is not None:
            raise ValueError(f"Invalid inputs: nodes {' ← '.join(map(str, cycle))} go round in a cycle")

    def __hash__(self) -> int:
        return hash((self.nodes, frozenset(self.decays.items()), self.wrapper, self.negated))

    def active(self) -> list[int]:
        """The nodes that the root reads, directly or not, itself last."""
        return list(reached(self.nodes, ROOT))

    def active_pairs(self) -> list[Pair]:
        """The edges of active nodes, each as a node and its input slot."""
        return [(number, slot) for number in self.active() for slot in self.genes(number).inputs]

    def genes(self, number: int) -> NodeGenes:
        """Those of the node at a slot."""
        return self.nodes[number - HIDDEN.start]

    def equation(self) -> Equation:
        """What is expressed."""
        return Equation(Edge(self.expressions()[ROOT]), self.wrapper, self.negated)

    def expressions(self) -> dict[int, Node]:
        """What each active node computes, those of inputs before what they enter."""
        known: dict[int, Node] = {}
        for number in self.active():
            genes = self.genes(number)
            edges = []
            for slot in genes.inputs:
                of = known[slot] if slot in known else Node(SEARCHED_OPERANDS[slot])
                decay = self.decays.get((number, slot))
                edges.append(Edge(of, None if decay is None else decay.decay()))
            known[number] = Node(genes.operation, tuple(edges))
        return known

    @classmethod
    def from_equation(cls, equation: Equation) -> UpdateGraph:
        """Genes that express an equation, with identities where a graph needs them.

        Raises:
            ValueError: The search space has no graph for it: an operation, a decay or a number of nodes is
                beyond it.
        """
        return _Layout().graph(equation)

    @classmethod
    def parse(cls, text: str) -> UpdateGraph:
        """The graph of an equation's text; ValueError where there is none."""
        return cls.from_equation(Equation.parse(text))

    def text(self) -> str:
        """The expressed equation's; of the genes' other parts nothing."""
        return self.equation().text()

    def to_dict(self) -> dict[str, Any]:
        """All genes as JSON-ready values."""
        return {
            "nodes": [[list(one.inputs), one.unary, one.binary] for one in self.nodes],
            "decays": [[*pair, decay.to_dict()] for pair, decay in sorted(self.decays.items())],
            "wrapper": self.wrapper,
            "negated": self.negated,
        }

    @classmethod
    def from_dict(cls, genes: Mapping[str, Any]) -> UpdateGraph:
        """The inverse of `to_dict`.

        Raises:
            ValueError: Something is missing or none of a graph.
        """
        if missing := {"nodes", "decays", "wrapper", "negated"} - set(genes):
            raise ValueError(f"Invalid graph: {min(missing)!r} is missing")
        try:
            nodes = tuple(NodeGenes(tuple(i), unary, binary) for i, unary, binary in genes["nodes"])
            decays = {(a, b): DecayGraph.from_dict(one) for a, b, one in genes["decays"]}
        except (TypeError, ValueError) as error:
            raise ValueError(f"Invalid graph: {error}") from None
        if not isinstance(genes["negated"], bool):
            raise ValueError(f"Invalid negated: {genes['negated']!r}, expected true or false")
        return cls(nodes, decays, genes["wrapper"], genes["negated"])


def find_cycle(nodes: Sequence[NodeGenes]) -> list[int] | None:
    """The nodes of a cycle among those that the root reads, its first one at both ends; None without."""
    path: list[int] = []
    done: set[int] = set()

    def visit(number: int) -> list[int] | None:
        if number in path:
            return [*path[path.index(number) :], number]
        if number in OPERAND_SLOTS or number in done:
            return None
        path.append(number)
        for slot in nodes[number - HIDDEN.start].inputs:
            if (found := visit(slot)) is not None:
                return found
        done.add(path.pop())
        return None

    return visit(ROOT)


def reached(nodes: Sequence[NodeGenes], root: int) -> Iterator[int]:
    """Nodes in an order in which inputs come first, `root` last."""
    seen: set[int] = set()

    def visit(number: int) -> Iterator[int]:
        if number in OPERAND_SLOTS or number in seen:
            return
        seen.add(number)
        for slot in nodes[number - HIDDEN.start].inputs:
            yield from visit(slot)
        yield number

    return visit(root)


def _check_node(number: int, genes: NodeGenes) -> None:
    where = "the root" if number == ROOT else f"node {number}"
    if genes.unary not in UNARY:
        raise ValueError(f"Invalid unary operation of {where}: {genes.unary!r}, {hint(genes.unary, UNARY)}")
    if genes.binary not in BINARY:
        raise ValueError(
            f"Invalid binary operation of {where}: {genes.binary!r}, {hint(genes.binary, BINARY)}"
        )
    if any(type(slot) is not int for slot in genes.inputs):
        raise ValueError(f"Invalid inputs of {where}: {genes.inputs}, expected numbers of slots")
    if len(genes.inputs) not in (1, 2) or len(set(genes.inputs)) < len(genes.inputs):
        raise ValueError(f"Invalid inputs of {where}: {genes.inputs}, expected a slot or two distinct ones")
    if any(slot not in range(ROOT) or slot == number for slot in genes.inputs):
        raise ValueError(f"Invalid inputs of {where}: {genes.inputs}, expected slots 0 to 24 but not its own")
    if number == ROOT and not any(slot in HIDDEN for slot in genes.inputs):
        raise ValueError(f"Invalid inputs of the root: {genes.inputs}, expected a hidden node (20 to 24)")


class _Layout:
    """Lays an equation out on slots; equal parts share a node."""

    def __init__(self) -> None:
        self.hidden: list[NodeGenes] = []
        self.decays: dict[Pair, DecayGraph] = {}
        self.known: dict[Node, int] = {}
        self.twins: dict[int, int] = {}

    def graph(self, equation: Equation) -> UpdateGraph:
        top = equation.root
        if top.decay is not None or not any(edge.of.name in OPERATIONS for edge in top.of.inputs):
            # What has a decay on its output, or reads operands alone, goes through the root's identity.
            top = Edge(Node("id", (top if top.of.name in OPERATIONS else Edge(Node("id", (top,))),)))
        root = self.node(top.of, ROOT)
        spare = NodeGenes((0,))
        hidden = [*self.hidden, *[spare] * (len(HIDDEN) - len(self.hidden))]
        return UpdateGraph((*hidden, root), self.decays, equation.wrapper, equation.negated)

    def node(self, one: Node, number: int) -> NodeGenes:
        """The genes of a node that lies at a slot."""
        if not OPERATIONS[one.name].searched:
            raise ValueError(f"Invalid equation: {one.name!r} is no operation of the search space")
        slots: list[int] = []
        for edge in one.inputs:
            slot = self.slot(edge.of)
            slots.append(self.twin(slot, edge.of) if slot in slots else slot)
        for slot, edge in zip(slots, one.inputs, strict=True):
            if edge.decay is not None:
                if (fault := edge.decay.phenotype_fault()) is not None:
                    raise ValueError(f"Invalid equation: the decay {fault}")
                self.decays[number, slot] = DecayGraph.from_decay(edge.decay)
        if len(slots) == 1:
            return NodeGenes((slots[0],), unary=one.name)
        return NodeGenes((slots[0], slots[1]), binary=one.name)

    def slot(self, one: Node) -> int:
        if one.name in OPERANDS:
            if not OPERANDS[one.name].searched:
                raise ValueError(f"Invalid equation: {one.name!r} is no operand of the search space")
            return SEARCHED_OPERANDS.index(one.name)
        if one not in self.known:
            self.known[one] = self.place(one)
        return self.known[one]

    def twin(self, slot: int, one: Node) -> int:
        """Another node of the same value, since a node cannot read one slot twice."""
        if slot not in self.twins:
            self.twins[slot] = self.place(Node("id", (Edge(one),)) if slot in OPERAND_SLOTS else one)
        return self.twins[slot]

    def place(self, one: Node) -> int:
        if len(self.hidden) == len(HIDDEN):
            raise ValueError(f"Invalid equation: it takes more than {len(HIDDEN)} hidden nodes")
        number = HIDDEN.start + len(self.hidden)
        self.hidden.append(NodeGenes((0,)))  # its place; its inputs lie behind it
        self.hidden[number - HIDDEN.start] = self.node(one, number)
        return number
