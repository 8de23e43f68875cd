"""Crossing graphs: a part of one, with its decays, in the place of a part of another.

Beyond arXiv 2404.06679, which has no crossover. All randomness is the generator that it is given.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optevo.optim.graphs.equation import Node
from optevo.optim.graphs.graph import HIDDEN, OPERAND_SLOTS, ROOT, UpdateGraph, reached
from optevo.spaces.decay_variation import pick


def crossover(a: UpdateGraph, b: UpdateGraph, rng: np.random.Generator) -> UpdateGraph | None:
    """`a` with a part of `b` in the place of what enters one of its active edges.

    The part is what a random active node of `b` computes, with the decays inside and that of an edge into it.
    It takes places of `a` that are not active then, and shares what `a` computes already. The wrapper is
    either's, all else is `a`'s.

    Returns:
        A graph, or None where it would take more than five hidden nodes, or a node would read one slot twice.
    """
    number, replaced = pick(rng, a.active_pairs())
    above, top = pick(rng, [(None, ROOT), *(pair for pair in b.active_pairs() if pair[1] in HIDDEN)])
    wrapper = pick(rng, (a.wrapper, b.wrapper))

    free, shared = _room(a, number, replaced)
    computed = b.expressions()
    new = _unshared(b, top, computed, shared)
    if len(new) > len(free):
        return None
    slots = {slot: slot for slot in OPERAND_SLOTS}
    slots |= {node: shared[one] for node, one in computed.items() if one in shared}
    slots |= dict(zip(new, free, strict=False))

    nodes = list(a.nodes)
    decays = {pair: one for pair, one in a.decays.items() if pair[0] not in {slots[node] for node in new}}
    for node in new:
        genes = b.genes(node)
        nodes[slots[node] - HIDDEN.start] = replace(genes, inputs=tuple(slots[slot] for slot in genes.inputs))
    for (node, slot), decay in b.decays.items():
        if node in new and slot in slots:
            decays[slots[node], slots[slot]] = decay
    genes = a.genes(number)
    inputs = tuple(slots[top] if slot == replaced else slot for slot in genes.inputs)
    nodes[number - HIDDEN.start] = replace(genes, inputs=inputs)
    decays.pop((number, slots[top]), None)  # a dormant one
    if above is not None and (above, top) in b.decays:
        decays[number, slots[top]] = b.decays[above, top]
    try:
        return replace(a, nodes=tuple(nodes), decays=decays, wrapper=wrapper)
    except ValueError:  # a slot read twice
        return None


def _room(a: UpdateGraph, number: int, replaced: int) -> tuple[list[int], dict[Node, int]]:
    """The hidden nodes that `a` can spare without an edge, and what the others compute without it."""
    nodes, genes = list(a.nodes), a.genes(number)
    kept = tuple(slot for slot in genes.inputs if slot != replaced)
    nodes[number - HIDDEN.start] = replace(genes, inputs=kept)
    stays = set(reached(nodes, ROOT))
    shared = {
        one: node
        for node, one in a.expressions().items()
        if node in stays and number not in reached(a.nodes, node)
    }
    return [node for node in HIDDEN if node not in stays], shared


def _unshared(b: UpdateGraph, top: int, computed: dict[int, Node], shared: dict[Node, int]) -> list[int]:
    """The nodes of `b` from `top` down to what is shared."""
    new: list[int] = []

    def visit(slot: int) -> None:
        if slot in OPERAND_SLOTS or slot in new or computed[slot] in shared:
            return
        new.append(slot)
        for below in b.genes(slot).inputs:
            visit(below)

    visit(top)
    return new
