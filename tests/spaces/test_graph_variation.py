"""Graphs as they are drawn, mutated and crossed, against the published rates."""

from __future__ import annotations

import graphlib
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from optevo.optim.graphs.gate import sign
from optevo.optim.graphs.graph import HIDDEN, NODES, OPERAND_SLOTS, ROOT, NodeGenes, UpdateGraph
from optevo.optim.graphs.operations import BINARY, UNARY
from optevo.spaces import GraphSpace
from optevo.spaces.graph_crossover import crossover
from optevo.spaces.graph_variation import Rates, mutate, random_graph

# Of 1,000 accepted individuals each, by the published program: acyclic, of these passing, of these negated,
# with 2, 3 and more active nodes, active decays of an individual.
PUBLISHED = {
    True: (0.98, 0.47, 0.25, 0.76, 0.20, 0.04, 0.61),
    False: (0.98, 0.47, 0.21, 0.77, 0.19, 0.04, 0.52),
}
ADAM = "none div(v_hat,sqrtabs(s_hat))"


def accepted(space: GraphSpace, rng: np.random.Generator, n: int) -> tuple[list[UpdateGraph], list[float]]:
    """Individuals that pass, and the shares of acyclic and of passing draws."""
    drawn = acyclic = 0
    graphs: list[UpdateGraph] = []
    while len(graphs) < n:
        drawn += 1
        graph = random_graph(rng, space.rates)
        acyclic += graph is not None
        viable = None if graph is None else space.viable(space.params(graph))
        graphs += [] if viable is None else [space.graph(viable)]
    return graphs, [acyclic / drawn, n / acyclic]


def near(share: float, expected: float, n: int) -> bool:
    """Within four points, or three errors of both where that is wider: what was published is of 1,000."""
    return abs(share - expected) <= max(0.04, 3 * math.sqrt(expected * (1 - expected) * (1 / n + 1 / 1000)))


@pytest.mark.parametrize("n", [60, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("as_published", [False, True])
def test_random_graphs_have_the_published_rates(as_published: bool, n: int):
    graphs, shares = accepted(GraphSpace(as_published=as_published), np.random.default_rng(11), n)
    sizes = Counter(min(len(graph.active()), 4) for graph in graphs)
    shares += [np.mean([graph.negated for graph in graphs]), *(sizes[size] / n for size in (2, 3, 4))]
    *expected, decays = PUBLISHED[as_published]
    assert all(near(share, one, n) for share, one in zip(shares, expected, strict=True)), shares
    counts = [sum(pair in graph.decays for pair in graph.active_pairs()) for graph in graphs]
    assert np.mean(counts) == pytest.approx(decays, abs=max(0.04, 3 * np.std(counts) / math.sqrt(n)))


def test_a_draw_has_the_shares_that_it_is_asked_for():
    rng = np.random.default_rng(3)
    graphs = [g for _ in range(500) if (g := random_graph(rng, Rates())) is not None]
    hidden = [genes for graph in graphs for genes in graph.nodes[:-1]]
    roots = [graph.nodes[-1] for graph in graphs]
    unary = [[len(genes.inputs) == 1 for genes in nodes] for nodes in (hidden, roots)]
    assert [np.mean(one) for one in unary] == pytest.approx([0.75, 0.25], abs=0.05)
    assert np.mean([genes.unary == "id" for genes in hidden]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([genes.inputs[0] in OPERAND_SLOTS for genes in hidden]) == pytest.approx(0.8, abs=0.03)
    edges = sum(len(genes.inputs) for graph in graphs for genes in graph.nodes)
    assert sum(len(graph.decays) for graph in graphs) / edges == pytest.approx(0.15, abs=0.02)
    assert {graph.wrapper for graph in graphs} == {"none", "momentum", "nesterov"}
    assert not any(graph.negated for graph in graphs)


def test_as_published_most_unary_roots_have_a_decay_and_nesterov_is_another():
    rng = np.random.default_rng(4)
    graphs = [g for _ in range(500) if (g := random_graph(rng, Rates(as_published=True))) is not None]
    unary = [graph for graph in graphs if len(graph.nodes[-1].inputs) == 1]
    with_decay = [(ROOT, graph.nodes[-1].inputs[0]) in graph.decays for graph in unary]
    assert np.mean(with_decay) == pytest.approx(0.85, abs=0.1)
    assert {graph.wrapper for graph in graphs} == {"none", "momentum", "lookahead"}


def assert_sound(graph: UpdateGraph) -> None:
    """What a graph has to be, told without the class's own checks."""
    assert len(graph.nodes) == 6
    assert graph.wrapper in ("none", "momentum", "nesterov")
    for number, genes in zip(NODES, graph.nodes, strict=True):
        assert len(genes.inputs) in (1, 2)
        assert len(set(genes.inputs)) == len(genes.inputs)
        assert all(0 <= slot < ROOT and slot != number for slot in genes.inputs)
        assert genes.unary in UNARY
        assert genes.binary in BINARY
    assert any(slot in HIDDEN for slot in graph.nodes[-1].inputs)
    active, reads = {ROOT}, {}
    while waiting := active - reads.keys():
        for number in waiting:
            reads[number] = {slot for slot in graph.genes(number).inputs if slot in HIDDEN}
            active |= reads[number]
    assert {*graphlib.TopologicalSorter(reads).static_order()} == active  # raises at a cycle
    for (number, slot), decay in graph.decays.items():
        assert number in NODES
        assert slot != number
        assert decay.decay().phenotype_fault() is None


def test_a_thousand_mutations_and_crossovers_keep_graphs_sound_and_their_texts_readable():
    rng = np.random.default_rng(5)
    graphs = [g for _ in range(40) if (g := random_graph(rng, Rates())) is not None]
    made = Counter[str]()
    while made["mutate"] + made["cross"] < 1000:
        i, j = rng.choice(len(graphs), 2, replace=False)
        kind = "mutate" if rng.random() < 0.5 else "cross"
        child = mutate(graphs[i], rng, Rates()) if kind == "mutate" else crossover(graphs[i], graphs[j], rng)
        if child is None:
            continue
        assert_sound(child)
        assert UpdateGraph.parse(child.text()).text() == child.text()
        assert UpdateGraph.from_dict(child.to_dict()) == child
        made[kind] += 1
        graphs[i] = child
    assert max(len(graph.active()) for graph in graphs) == 6  # all five hidden nodes come into use


def test_a_mutation_changes_one_thing_as_often_as_published():
    rng, kinds = np.random.default_rng(6), Counter[str]()
    graphs = [g for _ in range(30) if (g := random_graph(rng, Rates())) is not None]
    for i in range(3000):
        graph = graphs[i % len(graphs)]
        child = mutate(graph, rng, Rates())
        if child is None:
            kinds["none"] += 1
            continue
        changed = [n for n in NODES if child.genes(n) != graph.genes(n)]
        found = ["wrapper"] * (child.wrapper != graph.wrapper) + ["decay"] * (child.decays != graph.decays)
        for number in changed:
            old, new = graph.genes(number), child.genes(number)
            assert number in graph.active()
            if old.inputs == new.inputs:
                assert old.operation != new.operation
                latent = ("binary", "unary")[len(old.inputs) - 1]
                assert getattr(old, latent) == getattr(new, latent)
                found.append("operation")
            else:
                assert (old.unary, old.binary) == (new.unary, new.binary)  # what was latent is expressed now
                found.append("connection" if len(old.inputs) == len(new.inputs) else "arity")
        assert len(found) == 1, found
        kinds[found[0]] += 1
    shares = {kind: kinds[kind] / 3000 for kind in ("operation", "wrapper", "decay")}
    assert shares == pytest.approx({"operation": 0.4, "wrapper": 0.1, "decay": 0.1}, abs=0.03)
    assert kinds["none"] < 150  # connections and arities to a slot that the node cannot read
    rest = kinds["connection"] + kinds["none"] + kinds["arity"]
    assert rest / 3000 == pytest.approx(0.4, abs=0.03)
    assert kinds["arity"] / 3000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("n", "within"), [(40, 0.08), pytest.param(400, 0.05, marks=pytest.mark.slow)])
def test_about_seven_in_ten_mutants_of_accepted_graphs_pass(n: int, within: float):
    rng = np.random.default_rng(7)
    graphs, _ = accepted(GraphSpace(), rng, n)
    mutants = [mutate(graph, rng, Rates()) for graph in graphs for _ in range(4)]
    valid = [mutant is not None and sign(mutant.equation()) is not None for mutant in mutants]
    assert np.mean(valid) == pytest.approx(0.72, abs=within)


def test_every_unary_operation_can_come_of_a_mutation_but_as_published_the_last_cannot():
    graph = UpdateGraph.parse("none tanh(id(g))")
    for as_published, missing in ((False, set()), (True, {"runmax"})):
        rates, rng = Rates(operation=1.0, as_published=as_published), np.random.default_rng(8)
        found = set[str]()
        for _ in range(600):
            child = mutate(graph, rng, rates)
            assert child is not None
            found |= {child.genes(number).unary for number in child.active()}
        assert {*UNARY} - found == missing


def test_a_decay_stays_with_its_edge_when_that_is_gone_and_comes_back():
    graph = UpdateGraph.parse("none add([a1]*g,tanh(v_hat))")
    nodes = (*graph.nodes[:-1], replace(graph.nodes[-1], inputs=graph.nodes[-1].inputs[1:]))
    without = replace(graph, nodes=nodes)
    assert without.text() == "none id(tanh(v_hat))"
    rng, found = np.random.default_rng(9), set[str]()
    for _ in range(300):
        child = mutate(without, rng, Rates(operation=0, connection=0, arity=1))
        found |= set() if child is None else {child.text()}
    assert {"none add(tanh(v_hat),[id(a1)]*g)", "none add([id(a1)]*g,tanh(v_hat))"} <= found


def test_a_crossover_puts_every_part_with_its_decays_on_every_edge():
    a, b = UpdateGraph.parse(ADAM), UpdateGraph.parse("momentum i1e([mul(a13,a2)]*erf(g))")
    rng = np.random.default_rng(10)
    children = [crossover(a, b, rng) for _ in range(300)]
    parts = "i1e([mul(a13,a2)]*erf(g))", "[mul(a13,a2)]*erf(g)"
    rules = ("div({},sqrtabs(s_hat))", "div(v_hat,{})", "div(v_hat,sqrtabs({}))")
    expected = {f"{w} {rule.format(part)}" for w in ("none", "momentum") for rule in rules for part in parts}
    assert {child.text() for child in children if child is not None} == expected
    assert None not in children


def test_a_crossover_shares_what_is_computed_already():
    a, b = UpdateGraph.parse("none mul(softsign(g),erf(v_hat))"), UpdateGraph.parse("none exp(softsign(g))")
    rng, sizes = np.random.default_rng(11), dict[str, int]()
    for _ in range(200):
        child = crossover(a, b, rng)
        sizes |= {} if child is None else {child.text(): len(child.active())}
    assert sizes["none mul(softsign(g),exp(softsign(g)))"] == 3
    assert "none mul(softsign(g),softsign(g))" not in sizes  # a node reads a slot once


def test_a_crossover_that_would_take_a_sixth_hidden_node_is_none():
    a = UpdateGraph.parse("none tanh(erf(exp(abs(neg(arctan(g))))))")
    b = UpdateGraph.parse("none i1e(sigmoid(v_hat))")
    rng = np.random.default_rng(12)
    children = [crossover(a, b, rng) for _ in range(200)]
    assert {child is None for child in children} == {True, False}
    assert all(len(child.active()) <= 6 for child in children if child is not None)


def test_the_same_generator_makes_the_same_graphs_and_parents_stay_as_they_are():
    a, b = UpdateGraph.parse(ADAM), UpdateGraph.parse("momentum i1e([mul(a13,a2)]*erf(g))")
    before = a.to_dict(), b.to_dict()

    def made() -> list[UpdateGraph | None]:
        rng = np.random.default_rng(13)
        return [one for _ in range(20) for one in (mutate(a, rng, Rates()), crossover(a, b, rng))]

    assert made() == made()
    assert (a.to_dict(), b.to_dict()) == before


def test_a_root_that_reads_one_hidden_node_keeps_reading_one():
    graph, rng = UpdateGraph.parse("none add(g,tanh(v_hat))"), np.random.default_rng(14)
    rates = Rates(operation=0, connection=0.5, arity=0.5)
    children = [child for _ in range(300) if (child := mutate(graph, rng, rates)) is not None]
    roots = {child.nodes[-1].inputs for child in children}
    assert {HIDDEN.start} in [set(inputs) for inputs in roots]  # the operand can be dropped, not the node
    assert all(set(inputs) & {*HIDDEN} for inputs in roots)
    assert NodeGenes((0,)) in graph.nodes
