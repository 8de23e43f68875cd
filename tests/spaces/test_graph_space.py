"""The space of graphs: what it draws and breeds, and the parameters that Optuna sees."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.optim.graphs import Equation, UpdateGraph
from optevo.optim.graphs.genome import GraphGenome
from optevo.samplers import GeneticSampler
from optevo.spaces import GraphSpace, Params
from optevo.spaces import graphs as graphs_module
from optevo.spaces.graph_variation import Rates, mutate, random_graph
from optevo.spaces.graphs import GENES
from optevo.study.check_trials import gate_of
from optevo.study.config import parse_config

PRESETS = ("opt2", "opt4", "opt7", "opt9", "opt10", "opt101", "nesterov g")
ANY, ONLY = GraphSpace(viable=False), GraphSpace()
OPT10: Params = {
    "wrapper": "nesterov",
    "root": "i1e",
    "root_input": "h1",
    "root_input_decay": False,
    "h1": "i1e",
    "h1_input": "g",
    "h1_input_decay": True,
    "h1_input_decay_root": "mul",
    "h1_input_decay_root_first": "a13",
    "h1_input_decay_root_second": "a2",
}

GENETIC = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 1}


def without_genes(params: Params) -> Params:
    return {name: value for name, value in params.items() if name != "genes"}


def varied_graphs(seed: int, n: int) -> list[UpdateGraph]:
    """Graphs of all sizes, with latent genes and dormant decays."""
    rng, graphs = np.random.default_rng(seed), list[UpdateGraph]()
    while len(graphs) < n:
        graph = random_graph(rng, Rates(operand=0.4, edge_decay=0.4))
        for _ in range(rng.integers(4)):
            graph = graph and mutate(graph, rng, Rates())
        graphs += [] if graph is None else [graph]
    return graphs


# Parameters


def test_genes_come_back_whole_and_without_them_the_equation_does():
    for graph in varied_graphs(0, 200):
        params = ANY.params(graph)
        assert ANY.graph(json.loads(json.dumps(params))) == graph
        shown = without_genes(params)
        assert shown.keys() <= ANY.distributions().keys()
        assert ANY.graph(shown).equation() == graph.equation()
        assert without_genes(ANY.params(ANY.graph(shown))) == shown
        assert ANY.expressed(params) == shown
        assert ANY.identity(params) == ANY.identity(shown)


def test_the_parameters_of_an_optimizer_can_be_read():
    (params,) = GraphSpace(presets=("opt10",)).presets().values()
    assert without_genes(params) == OPT10


def test_genes_that_express_something_else_give_way():
    params = ANY.params(UpdateGraph.parse("nesterov i1e(i1e([mul(a13,a2)]*g))"))
    changed = {**params, "h1_input": "v_hat"}
    assert ANY.graph(changed).text() == "nesterov i1e(i1e([mul(a13,a2)]*v_hat))"
    assert ANY.candidate(changed).equation.text() == "nesterov i1e(i1e([mul(a13,a2)]*v_hat))"


@pytest.mark.parametrize(
    ("as_published", "n"), [(False, 300), (True, 100), pytest.param(False, 2000, marks=pytest.mark.slow)]
)
def test_any_values_of_the_distributions_are_a_graph(as_published: bool, n: int):
    space = GraphSpace(as_published=as_published)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    sizes, seen = Counter[int](), set[str]()
    for _ in range(n):
        params = space.suggest(study.ask())
        graph = space.graph(params)  # refuses what is none
        sizes[len(graph.active())] += 1
        seen |= params.keys()
        assert space.whole(params)
        assert space.expressed(params) == params
    assert {2, 3, 4} <= sizes.keys()
    assert seen <= space.distributions().keys()
    assert ("negated" in seen) is as_published


def test_what_makes_no_graph_is_read_as_what_does():
    root = {"wrapper": "none", "root": "add", "root_first_decay": False, "root_second_decay": False}
    h1 = {"h1": "tanh", "h1_input": "g", "h1_input_decay": False}
    h2 = {"h2": "exp", "h2_input": "g2", "h2_input_decay": False}
    for inputs, more, expected in (
        (("g", "g2"), h1, "none add(g,tanh(g))"),
        (("g", "g"), h1, "none add(g,tanh(g))"),
        (("h1", "h1"), h1 | h2, "none add(tanh(g),exp(g2))"),
        (("h1", "h2"), {**h1, "h1": "sub", "h1_first": "h2", "h1_second": "h2"} | h2, None),
    ):
        params = {**root, **dict(zip(("root_first", "root_second"), inputs, strict=True)), **more}
        if expected is None:  # the next choice after h2 is h3
            assert not ANY.whole(params)
        else:
            assert ANY.graph(params).text() == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"root": None}, "'root' is missing"),
        ({"h1_input_decay_root_first": None}, "'h1_input_decay_root_first' is missing"),
        ({"h1": "i1f"}, "Invalid h1: 'i1f', did you mean 'i1e'"),
        ({"root_input": "g"}, "Invalid root_input: 'g'"),
        ({"h1_input": "h1"}, "Invalid h1_input: 'h1'"),
        ({"h1_input_decay": 1}, "Invalid h1_input_decay: 1"),
        ({"h1_input_decay": math.nan}, "Invalid h1_input_decay: nan"),
        ({"wrapper": "lookahead"}, "Invalid wrapper: 'lookahead'"),
    ],
)
def test_a_parameter_that_is_missing_or_wrong_is_named(changed: Params, said: str):
    params = {name: value for name, value in {**OPT10, **changed}.items() if value is not None}
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        ANY.candidate(params)
    assert not ANY.whole(params)
    assert ANY.parts(params) == Counter()


@pytest.mark.parametrize("genes", [3, "g", {}, {"nodes": [], "decays": [], "wrapper": "none", "negated": 0}])
def test_genes_that_are_none_are_refused(genes: Any):
    with pytest.raises(ValueError, match="Invalid"):
        ANY.vary([{**OPT10, "genes": genes}], np.random.default_rng(0), 1.0)


# Candidates


def test_a_candidate_has_the_sign_that_descends_and_the_schedule_of_the_space():
    space = GraphSpace(warmup=0.2, hold=0.3)
    candidate = space.candidate({**OPT10, "h1_input": "agg_v"})
    assert candidate == GraphGenome("-nesterov i1e(i1e([mul(a13,a2)]*agg_v))", warmup=0.2, hold=0.3)
    assert candidate.gate() is None
    assert not space.candidate(OPT10).equation.negated


def test_a_decay_outside_its_range_is_refused_by_name():
    candidate = ANY.candidate({**OPT10, "h1_input_decay_root": "sub"})
    reason = candidate.at_rate(0.1).gate()
    assert reason is not None
    assert "the decay sub(a13,a2)" in reason
    assert "expected 0 to 1" in reason


def test_one_optimizer_written_in_two_ways_is_one_individual():
    one, other, third = (
        ANY.params(UpdateGraph.parse(text))
        for text in ("none add(id(g),tanh(v_hat))", "none id(add(tanh(v_hat),g))", "none sub(tanh(v_hat),g)")
    )
    assert ANY.identity(one) == ANY.identity(other) != ANY.identity(third)
    assert ANY.candidate(one).canonical() == ANY.candidate(other).canonical()


def test_parts_are_operations_and_the_operands_that_they_read():
    params = ANY.params(UpdateGraph.parse("none add(g,mul(g,tanh(v_hat)))"))
    assert ANY.parts(params) == {"add": 1, "mul": 1, "tanh": 1, "g": 2, "v_hat": 1}
    assert {*ANY.parts(params)} <= {*ANY.part_names}


def test_presets_are_the_published_rules():
    space = GraphSpace(presets=PRESETS)
    for name, params in space.presets().items():
        candidate = space.candidate(params)
        assert candidate.gate() is None
        assert not candidate.equation.negated
        assert "lookahead" not in candidate.equation.text(), name
    assert space.candidate(space.presets()["nesterov g"]).formula() == "Δ = g, Nesterov"
    assert len(space.caveats()) == 1
    assert GraphSpace(presets=("nesterov g",)).caveats() == []
    published = GraphSpace(presets=("opt10",), as_published=True)
    assert published.candidate(published.presets()["opt10"]).equation.wrapper == "lookahead"


# Drawing and breeding


def test_what_is_drawn_and_bred_descends_the_sphere():
    rng = np.random.default_rng(1)
    population = [ONLY.sample(rng) for _ in range(30)]
    population += [ONLY.vary([population[i], population[-1 - i]], rng, 1.0) for i in range(30)]
    population += [ONLY.vary([population[i]], rng, 1.0) for i in range(30)]
    for params in population:
        assert ONLY.candidate(params).gate() is None
        assert ONLY.graph(params).negated == ONLY.candidate(params).equation.negated
        assert ONLY.viable(params) == params
    drawn = [ANY.candidate(ANY.sample(rng)).gate() is None for _ in range(60)]
    assert 0.2 < np.mean(drawn) < 0.8


def test_the_same_generator_draws_and_breeds_the_same():
    def made() -> list[Params]:
        rng = np.random.default_rng(2)
        drawn = [ONLY.sample(rng) for _ in range(4)]
        return [*drawn, ONLY.vary(drawn[:2], rng, 0.7), ONLY.vary(drawn[2:3], rng, 1.0)]

    assert made() == made()


def test_one_parent_has_mutants_and_two_have_children_of_both():
    rng = np.random.default_rng(3)
    a, b = (ANY.params(UpdateGraph.parse(text)) for text in ("none tanh(id(g))", "momentum erf(exp(s_hat))"))
    names = {"none", "tanh", "id", "g"}, {"momentum", "erf", "exp", "s_hat"}
    mutants = [ANY.vary([a], rng, 1.0) for _ in range(100)]
    assert all(mutant != a for mutant in mutants)
    children = [ANY.graph(ANY.vary([a, b], rng, 0.01)) for _ in range(200)]
    of_both = [
        all(names & {child.wrapper, *ANY.parts(ANY.params(child))} for names in names) for child in children
    ]
    assert np.mean(of_both) == pytest.approx(0.5, abs=0.1)  # half of them are crossed


def test_a_parent_without_a_viable_child_is_its_own_child(monkeypatch: pytest.MonkeyPatch):
    parent = ONLY.sample(np.random.default_rng(4))
    monkeypatch.setattr(graphs_module, "_sign", lambda equation: None)
    monkeypatch.setattr(graphs_module, "DRAWS", 50)
    assert ONLY.vary([parent, parent], np.random.default_rng(5), 1.0) == parent
    with pytest.raises(RuntimeError, match="none of 50 random graphs can descend"):
        ONLY.sample(np.random.default_rng(6))


def test_as_published_the_sign_is_never_cleared_and_a_moving_average_never_passes():
    published = GraphSpace(as_published=True)
    negated = replace(UpdateGraph.parse("lookahead tanh(id(g))"), negated=True)
    for space, kept in ((published, True), (ONLY, False)):
        graph = negated if space is published else replace(negated, wrapper="nesterov")
        viable = space.viable(space.params(graph))
        assert viable is not None
        assert space.graph(viable).negated is kept
        assert space.candidate(without_genes(viable)).equation.negated is kept
    average = UpdateGraph.parse("none ema0.95(id(g))")
    assert published.viable(published.params(average)) is None
    assert "ema0.95" in str(published.candidate(published.params(average)).gate())
    assert ONLY.candidate(ONLY.params(average)).gate() is None


# With Optuna


def distance(space: GraphSpace, params: Params) -> float:
    """A toy objective: how far an equation is from Opt10, in the parts of both."""
    parts, wanted = space.parts(params), Counter({"i1e": 2, "g": 1})
    return float(sum(((parts - wanted) + (wanted - parts)).values()))


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_optunas_samplers_search_it(kind: str):
    sampler = {
        "tpe": optuna.samplers.TPESampler(seed=0, n_startup_trials=8),
        "random": optuna.samplers.RandomSampler(seed=0),
    }[kind]
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(OPT10)
    study.optimize(lambda trial: distance(ANY, ANY.suggest(trial)), n_trials=25)
    assert study.best_value == 0
    assert study.trials[0].params == OPT10
    for trial in study.trials:
        assert ANY.expressed(trial.params) == trial.params


def test_the_genetic_sampler_breeds_it():
    def run() -> list[tuple[Params, float | None]]:
        study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=1, space=ONLY, seed=0))
        study.optimize(lambda trial: distance(ONLY, ONLY.suggest(trial)), n_trials=11)
        return [(trial.params, trial.value) for trial in study.trials]

    first = run()
    assert first == run()
    for params, _ in first:
        assert ONLY.expressed(params) == params
        assert ONLY.candidate(params).gate() is None


def test_a_study_with_damaged_genes_is_refused_before_it_goes_on():
    study = {"name": "x", "space": {"kind": "graph"}, "sampler": GENETIC}
    evaluation = {"tasks": ["digits"], "steps": 1000, "rates": {}}
    gate = gate_of("a study", parse_config({**study, "evaluation": evaluation}, "this test"), 1)
    genes = UpdateGraph.parse("none exp(tanh(g))").to_dict()

    def checked(genes: Any) -> None:
        trial = optuna.trial.create_trial(state=TrialState.FAIL, system_attrs={keys.DORMANT: {GENES: genes}})
        trial.number = 0
        gate(trial, ("head",))

    checked(genes)
    around = [[[21], "id", "add"], [[20], "id", "add"], *genes["nodes"][2:5], [[20], "id", "add"]]
    for damaged, said in (({**genes, "nodes": around}, "20 ← 21 ← 20 go round"), ("x", "Invalid genes: 'x'")):
        with pytest.raises(UserError, match=rf"a study, trial 0: 'optevo:dormant' is wrong: .*{said}"):
            checked(damaged)


def test_what_a_stored_graph_lacks_is_named():
    study = {"name": "x", "space": {"kind": "graph"}, "sampler": GENETIC}
    evaluation = {"tasks": ["digits"], "steps": 1000, "rates": {}}
    gate = gate_of("a study", parse_config({**study, "evaluation": evaluation}, "this test"), 1)
    params = {name: value for name, value in OPT10.items() if name != "h1_input"}
    known = ONLY.distributions()
    distributions = {name: known[name] for name in params}
    trial = optuna.trial.create_trial(value=0.5, params=params, distributions=distributions)
    trial.number = 0
    with pytest.raises(UserError, match=r"a study, trial 0: .*'h1_input' is missing"):
        gate(trial, ("params",))


# Study files


def test_an_equation_is_what_it_was_whatever_the_numbering_of_its_nodes():
    equation = Equation.parse("none add(tanh(exp(g)),mul(exp(g),v_hat))")
    params = ANY.params(UpdateGraph.from_equation(equation))
    assert [params[name] for name in ("root", "h1", "h2", "h3")] == ["add", "tanh", "mul", "exp"]
    assert ANY.candidate(params).equation == equation
