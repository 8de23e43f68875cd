"""What remains of a graph without each of its parts, and its picture."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.candidate import WINNER
from optevo.optim.graphs import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.presets import PRESETS
from optevo.optim.graphs.variants import UNDECAYED, variants
from optevo.optim.variants import SCHEDULED, TUNED

ADAMW = TunedBaseline("adamw", 1e-3, 0.1)


def texts(equation: str) -> dict[str, str | None]:
    made = variants(GraphGenome(Equation.parse(equation), lr=0.1)).candidates
    return {name: candidate.text() for name, candidate in made.items()}


def test_each_part_of_opt10_is_taken_away():
    assert texts("nesterov i1e(i1e([mul(a13,a2)]*g))") == {
        WINNER: "nesterov i1e(i1e([mul(a13,a2)]*g))",
        "without the decay a13·a2 on g": "nesterov i1e(i1e(g))",
        "without Nesterov": "none i1e(i1e([mul(a13,a2)]*g))",
        "momentum instead of Nesterov": "momentum i1e(i1e([mul(a13,a2)]*g))",
        "look-ahead instead of Nesterov": "lookahead i1e(i1e([mul(a13,a2)]*g))",
        "i1e(g) replaced by its input": "nesterov i1e([mul(a13,a2)]*g)",  # the outer one is the same
    }


def test_a_node_gives_way_to_either_input_and_decays_on_the_way_are_multiplied():
    found = texts("-none [a1]*div([a2]*g,sqrtabs(s_hat))")
    assert found["without the decay a1 on the whole update"] == "-none div([a2]*g,sqrtabs(s_hat))"
    assert found["without the decay a2 on g"] == "-none [a1]*div(g,sqrtabs(s_hat))"
    assert found[UNDECAYED] == "-none div(g,sqrtabs(s_hat))"
    assert found["div(g,sqrtabs(s_hat)) replaced by its first input"] == "-none [mul(a1,a2)]*g"
    assert found["div(g,sqrtabs(s_hat)) replaced by its second input"] == "-none [a1]*sqrtabs(s_hat)"
    assert found["with momentum"] == "-momentum [a1]*div([a2]*g,sqrtabs(s_hat))"


def test_what_is_used_twice_is_changed_in_both_places_and_only_there():
    found = texts("none add(mul(tanh([a1]*g),two),tanh([a1]*g))")
    assert found["without the decay a1 on g"] == "none add(mul(tanh(g),two),tanh(g))"
    assert found["tanh(g) replaced by its input"] == "none add(mul([a1]*g,two),[a1]*g)"
    nested = texts("none sub(g,sub(g,g))")  # what comes out looks like what was to be changed
    assert nested["sub(g,g) replaced by its first input"] == "none sub(g,g)"


def test_parts_that_read_alike_keep_names_of_their_own():
    found = texts("none add([a1]*tanh([a2]*g),[a1]*tanh([a3]*g))")
    assert found["without the decay a1 on tanh(g)"] == "none add(tanh([a2]*g),[a1]*tanh([a3]*g))"
    assert found["without the decay a1 on tanh(g) (2)"] == "none add([a1]*tanh([a2]*g),tanh([a3]*g))"


@pytest.mark.parametrize("name", PRESETS)
def test_no_two_variants_are_one_optimizer_and_all_keep_the_rate(name: str):
    winner = replace(PRESETS[name], lr=0.3, warmup=0.2)
    made = variants(winner, ADAMW).candidates
    assert next(iter(made.items())) == (WINNER, winner)
    assert len({one.canonical() for one in made.values()}) == len(made)
    own = [one for one in made.values() if isinstance(one, GraphGenome)]
    assert len(own) == len(made) - 2
    assert {(one.lr, one.warmup, one.hold) for one in own} == {(0.3, 0.2, 0.0)}


@pytest.mark.parametrize("name", ["opt10", "opt4", "opt9_nodecay"])
def test_the_lines_of_the_account_add_up_to_the_whole(name: str):
    found = variants(PRESETS[name].at_rate(0.3), ADAMW)
    (_, first, last), *parts = found.account
    assert (first, last) == (WINNER, TUNED)
    path = [(new, old) for _, new, old in parts]
    assert path[0] == (SCHEDULED, TUNED)
    assert path[-1][0] == WINNER
    assert all(new == old for (new, _), (_, old) in itertools.pairwise(path))
    assert {name for pair in path for name in pair} <= found.candidates.keys()
    assert variants(PRESETS[name]).account == ()


def test_a_drawing_has_each_sub_expression_once_and_decays_on_their_edges():
    rule = "-nesterov [a1]*sub(tanh([mul(a13,a2)]*g),mul(v_hat,tanh([mul(a13,a2)]*g)))"
    drawing = GraphGenome(Equation.parse(rule)).drawing()
    labels = [node.label for node in drawing.nodes]
    assert labels == ["g", "tanh(x)", "v̂", "x·y", "x − y", "b ← m·b + η·U\nw ← w + m·b + η·U"]
    assert [node.kind for node in drawing.nodes] == [
        "input",
        "operation",
        "input",
        *["operation"] * 2,
        "output",
    ]
    assert {(labels[e.start], labels[e.end][:7], e.label, e.place) for e in drawing.edges} == {
        ("g", "tanh(x)", "a13·a2", ""),
        ("v̂", "x·y", "", ""),
        ("tanh(x)", "x·y", "", ""),
        ("tanh(x)", "x − y", "", "x"),
        ("x·y", "x − y", "", "y"),
        ("x − y", "b ← m·b", "a1", "U"),
    }
    assert all(edge.start < edge.end for edge in drawing.edges)
    assert "v ← 0.9·v + 0.1·g" in drawing.notes
    assert "a2 = x" in drawing.notes


def test_a_drawing_s_curves_are_what_the_optimizer_and_its_scheduler_run_with():
    genome = GraphGenome(Equation.parse("momentum [a2]*tanh([a1]*g)"), lr=1.0, warmup=0.2, hold=0.1)
    curves = {name: list(curve(10)) for name, curve in genome.drawing().curves.items()}
    base = [genome.schedule(10)(step) for step in range(10)]
    assert list(curves) == ["base schedule", "base schedule × a2", "momentum m", "a1", "a2"]
    assert curves["base schedule"] == base
    assert curves["base schedule × a2"] == [t / 10 * factor for t, factor in enumerate(base)]
    assert curves["a1"] == pytest.approx([1 - t / 10 for t in range(10)])
    assert (curves["momentum m"][0], curves["momentum m"][2], curves["momentum m"][-1]) == (0.95, 0.85, 0.95)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_drawing_and_a_text_that_reads_back(name: str):
    genome = PRESETS[name]
    drawing = genome.drawing()
    assert drawing.nodes[-1].kind == "output"
    assert {edge.start for edge in drawing.edges} == set(range(len(drawing.nodes) - 1))
    assert GraphGenome(Equation.parse(genome.text())) == genome
    assert genome.latex().startswith("U = ")
    for curve in drawing.curves.values():
        assert len(curve(20)) == 20
