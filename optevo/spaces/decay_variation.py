"""Drawing and mutating decays as functions, after arXiv 2404.06679.

All randomness is the generator that they are given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from optevo.optim.graphs.decay_functions import BASE_NAMES, BINARY_NAMES, UNARY_NAMES
from optevo.optim.graphs.decay_graph import HIDDEN, DecayGraph, DecayNode
from optevo.optim.graphs.decays import PHENOTYPE_STEPS

T = TypeVar("T")
UNARY_SHARE = 0.8  # of nodes of a drawn decay
HIDDEN_SHARE = 0.2  # of drawn roots that are made to read the hidden node
OPERATION_SHARE, CONNECTION_SHARE = 0.6, 0.25  # of mutations; the rest switches the arity
SWAP_SHARE = 0.2  # of new connections of a binary node
LEAST_DISTANCE = 1e-4  # between a mutant's values and its parent's, over 100 steps
ATTEMPTS = 100


def sample_decay(rng: np.random.Generator) -> DecayGraph:
    """A random decay with its values in [0, 1]."""
    while True:
        graph = sample_any_decay(rng)
        if graph.decay().phenotype_fault() is None:
            return graph


def sample_any_decay(rng: np.random.Generator) -> DecayGraph:
    """A random decay, whatever its values; about 91 % of these have them in [0, 1]."""
    inputs = _different(rng, BASE_NAMES) if rng.random() >= UNARY_SHARE else (pick(rng, BASE_NAMES),)
    hidden = DecayNode(pick(rng, UNARY_NAMES), pick(rng, BINARY_NAMES), inputs)
    unary, told = rng.random() < UNARY_SHARE, rng.random() < HIDDEN_SHARE
    if unary:
        inputs = (HIDDEN if told else pick(rng, (*BASE_NAMES, HIDDEN)),)
    elif told:
        inputs = (HIDDEN, pick(rng, BASE_NAMES))
        inputs = inputs if rng.random() < 0.5 else inputs[::-1]
    else:
        first = pick(rng, (*BASE_NAMES, HIDDEN))
        inputs = (first, pick(rng, without(BASE_NAMES, (first,))))
    return DecayGraph(hidden, DecayNode(pick(rng, UNARY_NAMES), pick(rng, BINARY_NAMES), inputs))


def mutate_decay(graph: DecayGraph, rng: np.random.Generator, as_published: bool = False) -> DecayGraph:
    """A copy with one gene changed, which is another function in [0, 1].

    Args:
        graph: What to mutate; it stays as it is.
        rng: All randomness.
        as_published: Take the first mutant whatever its values, as the published program does. Default:
            False, up to 100 attempts, then `graph` itself.
    """
    text, values = graph.decay().text(), graph.decay().table(PHENOTYPE_STEPS)
    for _ in range(1 if as_published else ATTEMPTS):
        mutant = _mutant(graph, rng)
        if as_published:
            return mutant
        decay = mutant.decay()
        if (
            decay.text() != text
            and decay.phenotype_fault() is None
            and math.dist(decay.table(PHENOTYPE_STEPS), values) > LEAST_DISTANCE
        ):
            return mutant
    return graph


def _mutant(graph: DecayGraph, rng: np.random.Generator) -> DecayGraph:
    hidden = graph.uses_hidden and rng.random() < 0.5
    node, known = (graph.hidden, BASE_NAMES) if hidden else (graph.root, (*BASE_NAMES, HIDDEN))
    chance = rng.random()
    if chance < OPERATION_SHARE:
        node = _other_operation(node, rng)
    elif chance < OPERATION_SHARE + CONNECTION_SHARE:
        node = replace(node, inputs=_other_inputs(node.inputs, known, rng))
    elif len(node.inputs) == 1:
        added = pick(rng, without(known, node.inputs))
        pair = (*node.inputs, added)
        node = replace(node, inputs=pair if rng.random() < 0.5 else pair[::-1])
    else:
        node = replace(node, inputs=(pick(rng, node.inputs),))
    return replace(graph, hidden=node) if hidden else replace(graph, root=node)


def _other_operation(node: DecayNode, rng: np.random.Generator) -> DecayNode:
    if len(node.inputs) == 1:
        return replace(node, unary=pick(rng, without(UNARY_NAMES, (node.unary,))))
    return replace(node, binary=pick(rng, without(BINARY_NAMES, (node.binary,))))


def _other_inputs(inputs: tuple[str, ...], known: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """One input replaced by one that the node does not read yet, or the two of them swapped."""
    if len(inputs) == 2 and rng.random() < SWAP_SHARE:
        return inputs[::-1]
    changed = list(inputs)
    changed[int(rng.integers(len(inputs)))] = pick(rng, without(known, inputs))
    return tuple(changed)


def pick(rng: np.random.Generator, names: Sequence[T]) -> T:
    """One of them, uniformly."""
    return names[int(rng.integers(len(names)))]


def _different(rng: np.random.Generator, names: Sequence[str]) -> tuple[str, str]:
    first = pick(rng, names)
    return first, pick(rng, without(names, (first,)))


def without(names: Iterable[T], taken: Collection[T]) -> tuple[T, ...]:
    """Those that are not taken, in order."""
    return tuple(name for name in names if name not in taken)
