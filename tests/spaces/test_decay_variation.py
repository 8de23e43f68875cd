"""Decays as they are drawn and mutated."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from optevo.optim.graphs.decay_graph import DecayGraph
from optevo.spaces.decay_variation import mutate_decay, sample_any_decay, sample_decay


def _share(outcomes: list[bool], expected: float) -> bool:
    """Whether the share is within four standard errors of the expected one."""
    error = math.sqrt(expected * (1 - expected) / len(outcomes))
    return abs(np.mean(outcomes) - expected) < 4 * error


def test_drawn_decays_have_the_published_rates() -> None:
    rng = np.random.default_rng(0)
    graphs = [sample_any_decay(rng) for _ in range(4000)]
    assert _share([graph.decay().phenotype_fault() is None for graph in graphs], 0.91)
    assert _share([len(graph.root.inputs) == 1 for graph in graphs], 0.8)
    assert _share([len(graph.hidden.inputs) == 1 for graph in graphs], 0.8)
    roots = [graph.root.inputs for graph in graphs]
    assert _share(["hidden" in inputs for inputs in roots if len(inputs) == 1], 0.2 + 0.8 / 15)
    assert _share(["hidden" in inputs for inputs in roots if len(inputs) == 2], 0.2 + 0.8 / 15)
    for gene, count in (("unary", 13), ("binary", 7)):
        drawn = [getattr(graph.root, gene) for graph in graphs]
        assert all(_share([one == name for one in drawn], 1 / count) for name in set(drawn))
        assert len(set(drawn)) == count


def test_drawn_decays_are_valid() -> None:
    rng = np.random.default_rng(1)
    assert all(sample_decay(rng).decay().phenotype_fault() is None for _ in range(300))


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32))
def test_every_invariant_holds_under_mutations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = sample_decay(rng)
    for _ in range(250):
        child = mutate_decay(graph, rng)
        assert child.decay().phenotype_fault() is None
        assert child.decay().text() != graph.decay().text()
        assert math.dist(child.decay().table(100), graph.decay().table(100)) > 1e-4
        assert DecayGraph.from_dict(json.loads(json.dumps(child.to_dict()))) == child
        # One gene of one node: the operation that is expressed, or its inputs.
        assert (child.hidden == graph.hidden) != (child.root == graph.root)
        graph = child


def test_mutations_have_the_published_rates() -> None:
    rng = np.random.default_rng(2)
    parent = DecayGraph.from_dict(
        {"hidden": ["erf", "mul", "a1", "a3"], "root": ["i1e", "max", "hidden", "a2"]}
    )
    mutants = [mutate_decay(parent, rng, as_published=True) for _ in range(3000)]
    assert _share([m.root == parent.root for m in mutants], 0.5)
    changed = [(m.hidden, parent.hidden) if m.root == parent.root else (m.root, parent.root) for m in mutants]
    assert _share([new.binary != old.binary for new, old in changed], 0.6)
    assert _share([len(new.inputs) == 1 for new, _ in changed], 0.15)
    assert _share([new.inputs == old.inputs[::-1] for new, old in changed], 0.25 * 0.2)


def test_every_alternative_comes_up() -> None:
    rng = np.random.default_rng(3)
    parent = DecayGraph.from_dict({"hidden": ["erf", "mul", "a1"], "root": ["i1e", "max", "hidden"]})
    mutants = [mutate_decay(parent, rng, as_published=True) for _ in range(2000)]
    assert len({m.root.unary for m in mutants}) == 13
    assert {m.root.inputs for m in mutants if len(m.root.inputs) == 1} == {
        ("hidden",),
        *((f"a{i}",) for i in range(1, 15)),
    }


def test_the_same_generator_gives_the_same_decays() -> None:
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(20):
        assert mutate_decay(sample_decay(first), first) == mutate_decay(sample_decay(second), second)


def test_as_published_keeps_what_leaves_the_range() -> None:
    rng = np.random.default_rng(4)
    parent = DecayGraph.from_dict({"hidden": ["erf", "mul", "a1"], "root": ["i1e", "max", "a1", "a2"]})
    mutants = [mutate_decay(parent, rng, as_published=True).decay() for _ in range(200)]
    assert any(mutant.phenotype_fault() for mutant in mutants)
