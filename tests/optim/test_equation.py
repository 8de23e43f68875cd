"""Equations: texts, normal forms, formulas; graphs: genes, and what they express."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from optevo.optim import PRESETS
from optevo.optim.graphs import Equation, UpdateGraph
from optevo.optim.graphs.decay_graph import DecayGraph
from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.graph import NodeGenes

GRAPH_PRESETS = {name: one for name, one in PRESETS.items() if isinstance(one, GraphGenome)}
OPT10 = "nesterov i1e(i1e([mul(a13,a2)]*g))"


@pytest.mark.parametrize("preset", GRAPH_PRESETS.values(), ids=GRAPH_PRESETS)
def test_a_text_says_all_of_an_equation(preset: GraphGenome) -> None:
    assert Equation.parse(preset.equation.text()) == preset.equation


def test_blanks_in_a_text_are_no_matter() -> None:
    assert Equation.parse("  - nesterov  i1e ( i1e( [mul(a13, a2)] g ) ) ").text() == f"-{OPT10}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none", "expected a wrapper"),
        ("", "expected a wrapper"),
        ("nestrov g", "did you mean 'nesterov'"),
        ("none expp(g)", "at character 9: unknown 'expp' before here: did you mean 'exp'"),
        ("none add(g)", "'add' takes 2 inputs, 1 are given"),
        ("none exp", "'exp' takes 1 inputs, 0 are given"),
        ("none g(w)", "unknown 'w'"),
        ("none add(g,", "it ends too soon"),
        ("none add(g g)", "expected ',' or '\\)'"),
        ("none [a77]*g", "'a77' at position 0"),
        ("none exp(g) g", "expected the end"),
        ("none exp(g;)", "cannot be read from here on"),
        (f"none {'exp(' * 200}g{')' * 200}", "nested too deeply"),
    ],
)
def test_a_text_that_does_not_parse_is_refused_where_it_goes_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Equation.parse(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("none add(g,v_hat)", "none add(v_hat,g)"),
        ("none max([a1]*exp(g),one)", "none max(one,[a1]*exp(g))"),
        ("none id(id(g))", "none g"),
        ("none exp(id(mul(g2,g)))", "none exp(mul(g,g2))"),
        ("none exp([a1]*id(g))", "none exp(id([a1]*g))"),
        ("none [add(a1,a2)]*g", "none [add(a2,a1)]*g"),
    ],
)
def test_one_optimizer_has_one_normal_form(one: str, other: str) -> None:
    assert Equation.parse(one).normal() == Equation.parse(other).normal()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("none sub(g,v_hat)", "none sub(v_hat,g)"),
        ("none g", "-none g"),
        ("none g", "momentum g"),
        ("none [a1]*g", "none g"),
        ("none exp([a1]*id([a2]*g))", "none exp([a1]*g)"),
    ],
)
def test_different_optimizers_have_different_normal_forms(one: str, other: str) -> None:
    assert Equation.parse(one).normal() != Equation.parse(other).normal()


def test_formulas_are_for_people_and_for_papers() -> None:
    equation = Equation.parse("-nesterov div([a1]*v_hat,sqrtabs(s_hat))")
    assert equation.formula() == "Δ = −[a1]·v̂/(√|ŝ| + 1e-7), Nesterov"
    assert equation.latex() == (r"U = -\frac{\left[a_{1}\right] \hat v}{\sqrt{|\hat s|} + 10^{-7}}")


EXPRESSED = ["opt2", "opt7", "opt8", "opt9", "opt10", "opt101"]


@pytest.mark.parametrize("name", EXPRESSED)
def test_a_graph_expresses_what_it_was_parsed_from(name: str) -> None:
    text = GRAPH_PRESETS[name].equation.text()
    graph = UpdateGraph.parse(text)
    assert graph.text() == text
    assert UpdateGraph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


@pytest.mark.parametrize(
    "text", ["none g", "momentum div(v_hat,s_hat)", "none add(g,g)", "nesterov [a1]*exp(g)"]
)
def test_a_graph_adds_identities_where_it_needs_them(text: str) -> None:
    graph = UpdateGraph.parse(text)
    assert graph.equation().normal() == Equation.parse(text).normal()


@pytest.mark.parametrize(
    "text", ["none mul(exp(g),exp(g))", "none add(mul(exp(g),exp(g)),div(exp(g),exp(g)))"]
)
def test_a_part_that_a_node_reads_twice_has_two_nodes(text: str) -> None:
    assert UpdateGraph.parse(text).text() == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none over(exp(g),v_hat)", "'over' is no operation of the search space"),
        ("none exp(eps)", "'eps' is no operand of the search space"),
        ("none exp(exp(exp(exp(exp(exp(exp(g)))))))", "more than 5 hidden nodes"),
        ("none exp([add(a1,a12)]*g)", "is 1.* expected 0 to 1"),
        ("none exp([add(mul(a1,a2),mul(a3,a4))]*g)", "more than a root and one hidden node"),
    ],
)
def test_an_equation_beyond_the_search_space_has_no_graph(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UpdateGraph.parse(text)


def _nodes(*root: int, **hidden: tuple[int, ...]) -> tuple[NodeGenes, ...]:
    return (*(NodeGenes(hidden.get(f"h{i}", (0,))) for i in range(20, 25)), NodeGenes(root))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (_nodes(20, h20=(21,), h21=(22,), h22=(20,)), "20 ← 21 ← 22 ← 20 go round in a cycle"),
        (_nodes(20, h20=(20,)), "inputs of node 20: .* but not its own"),
        (_nodes(20, h20=(3, 3)), "two distinct ones"),
        (_nodes(0, 3), "inputs of the root: .* expected a hidden node"),
        (_nodes(25), "inputs of the root"),
        (_nodes(20)[:5], "5 of them, expected 6"),
        ((*_nodes(20)[:5], NodeGenes((20,), unary="add")), "unary operation of the root: 'add'"),
    ],
)
def test_genes_that_are_none_of_a_graph_are_refused(nodes: tuple[NodeGenes, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UpdateGraph(nodes)


def test_what_is_not_active_may_go_round_and_decays_may_be_dormant() -> None:
    decay = DecayGraph.from_decay(Decay.parse("a1"))
    graph = UpdateGraph(_nodes(20, h23=(24,), h24=(23,)), {(21, 3): decay}, "momentum")
    assert graph.text() == "momentum id(id(g))"
    assert graph.active() == [20, 25]
    assert UpdateGraph.from_dict(graph.to_dict()) == graph


NODE, DECAY = [[20], "id", "add"], DecayGraph.from_decay(Decay.parse("a1")).to_dict()


@pytest.mark.parametrize(
    ("gene", "value"),
    [
        ("nodes", 5),
        ("nodes", [NODE] * 5),
        ("nodes", {"a": 1}),
        ("nodes", [[[[1]], "id", "add"], *[NODE] * 5]),
        ("nodes", [[[20.0], "id", "add"]] * 6),
        ("nodes", [[[True], "id", "add"], *[NODE] * 5]),
        ("nodes", [["a", "id", "add"]] * 6),
        ("decays", [[20, 0]]),
        ("decays", [[math.inf, 0, DECAY]]),
        ("decays", [["20", 0, DECAY]]),
        ("decays", [[[20], 0, DECAY]]),
        ("decays", [[20, 0, {"hidden": 5, "root": 5}]]),
        ("wrapper", []),
        ("negated", "no"),
    ],
    ids=str,
)
def test_stored_genes_of_other_types_are_refused_by_name(gene: str, value: object) -> None:
    good = UpdateGraph.parse("none exp(tanh(g))").to_dict()
    assert UpdateGraph.from_dict(good).text() == "none exp(tanh(g))"
    with pytest.raises(ValueError, match="Invalid"):
        UpdateGraph.from_dict({**good, gene: value})


def test_a_genome_has_a_rate_only_where_one_was_given() -> None:
    genome = GraphGenome(OPT10)
    with pytest.raises(ValueError, match=r"give it one by at_rate"):
        genome.build([], 10)
    assert genome.at_rate(0.5).lr == 0.5
    assert genome.at_rate(0.5).canonical() != genome.canonical()
    assert genome.gate() is None
    assert GraphGenome("none add(one,two)").gate() == (
        "gate: cannot descend; at best the shifted sphere goes from 7.15 to 4.593"
    )


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"warmup": 1.5}, "warmup"),
        ({"warmup": 0.6, "hold": 0.5}, "hold"),
        ({"lr": "0.1"}, "lr: '0.1', expected a number"),
        ({"warmup": None}, "warmup"),
        ({"hold": True}, "hold"),
        ({"equation": 5}, "equation: 5, expected a text"),
    ],
)
def test_a_genome_out_of_range_is_refused(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid {said}"):
        GraphGenome(**{"equation": OPT10, **numbers})
