"""`DecayGraph`: the genes of a decay, of which a `Decay` is what is expressed. Pure Python.

Source: arXiv 2404.06679. The genes are those of a root and of one hidden node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optevo.naming import hint
from optevo.optim.graphs.decay_functions import BASE_NAMES, BINARY_NAMES, UNARY_NAMES
from optevo.optim.graphs.decays import Decay

HIDDEN = "hidden"  # what a root calls the hidden node among its inputs


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
        outside = [name for name in bare.names() if name not in {*BASE_NAMES, *UNARY_NAMES, *BINARY_NAMES}]
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
