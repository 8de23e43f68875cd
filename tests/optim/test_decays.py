"""Decays: their values, their texts and what they become in exported files."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from graph_oracles import SEARCH_SPACE, decay_of
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from optevo.optim.graphs.decay_functions import BASE_NAMES, BASES, BINARY_NAMES, OPERATIONS, UNARY_NAMES, i1e
from optevo.optim.graphs.decay_graph import DecayGraph, DecayNode
from optevo.optim.graphs.decays import Decay, definitions

BASE = st.sampled_from(sorted(BASES)).map(Decay)
ANY = st.recursive(
    BASE,
    lambda inner: st.sampled_from(sorted(OPERATIONS)).flatmap(
        lambda name: st.tuples(*[inner] * OPERATIONS[name].arity).map(lambda args: Decay(name, args))
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", SEARCH_SPACE["decays"])
def test_decays_of_the_oracle(name: str) -> None:
    case = SEARCH_SPACE["decays"][name]
    decay = decay_of(case["expr"])
    np.testing.assert_allclose(decay.table(20), case["T20"], rtol=1e-9, atol=1e-12)
    assert (decay.phenotype_fault() is None) == case["accepted"]
    assert min(decay.table(100)) == pytest.approx(case["phenotype_min"], rel=1e-9, abs=1e-12)
    assert max(decay.table(100)) == pytest.approx(case["phenotype_max"], rel=1e-9, abs=1e-12)


def test_base_functions_of_the_oracle() -> None:
    assert set(SEARCH_SPACE["basis_T20"]) == set(BASE_NAMES)
    for name, values in SEARCH_SPACE["basis_T20"].items():
        np.testing.assert_allclose(Decay(name).table(20), values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_unary_operations_of_the_oracle() -> None:
    values = dict(SEARCH_SPACE["decay_unary"])
    xs = values.pop("x")
    assert set(values) == set(UNARY_NAMES)
    for name, expected in values.items():
        np.testing.assert_allclose(
            [OPERATIONS[name].function(x) for x in xs], expected, rtol=1e-9, atol=1e-12, err_msg=name
        )


def test_the_search_has_the_published_numbers_of_functions() -> None:
    assert (len(BASE_NAMES), len(UNARY_NAMES), len(BINARY_NAMES)) == (14, 13, 7)


def test_i1e_is_scipys() -> None:
    xs = np.concatenate([np.geomspace(1e-300, 1e300, 500), np.linspace(0.01, 100, 1000), [30.0, 30.0000001]])
    for x in [*xs, *-xs]:
        assert i1e(float(x)) == pytest.approx(float(special.i1e(x)), rel=1e-14, abs=0)
    assert i1e(0.0) == i1e(math.inf) == 0.0


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_take_any_number(name: str) -> None:
    numbers = [0.0, -0.0, 1e-300, -1e-7, 0.5, -3.0, 800.0, -1e200, 1e308, math.inf, -math.inf, math.nan]
    for x in numbers:
        for args in [(x,)] if OPERATIONS[name].arity == 1 else [(x, y) for y in numbers]:
            assert isinstance(OPERATIONS[name].function(*args), float)


def test_a13_ends_at_exactly_0() -> None:
    assert all(Decay("a13").value(steps - 1, steps) == 0.0 for steps in range(1, 500))


@given(ANY)
def test_text_is_parsed_back(decay: Decay) -> None:
    assert Decay.parse(decay.text()) == decay
    assert Decay.parse(f" {decay.text().replace(',', ' , ').replace('(', ' (')}\n") == decay


@given(ANY)
def test_a_normal_form_is_the_same_function(decay: Decay) -> None:
    normal = decay.normal()
    assert normal.normal() == normal
    assert "id(" not in normal.text().replace("sigmoid(", "")
    assume(_finite(decay))
    np.testing.assert_allclose(normal.table(7), decay.table(7), rtol=1e-12)


def test_a_normal_form_knows_commutativity() -> None:
    assert Decay.parse("max(id(a6),mul(a2,a13))").normal() == Decay.parse("max(mul(a13,a2),a6)").normal()
    assert Decay.parse("sub(a1,a2)").normal() != Decay.parse("sub(a2,a1)").normal()


def _finite(decay: Decay) -> bool:
    return all(map(math.isfinite, decay.table(7))) and all(map(_finite, decay.args))


@given(ANY)
def test_source_computes_the_same_values_with_math_alone(decay: Decay) -> None:
    code = (
        f"import math\n\n\n{definitions([decay])}\n\n\ndef f(t, total_steps):\n    return {decay.source()}\n"
    )
    names: dict[str, object] = {}
    exec(compile(code, "exported", "exec"), names)
    function = names["f"]
    assert callable(function)
    for t, value in enumerate(decay.table(7)):
        assert not _finite(decay) or function(t, 7) == value


@pytest.mark.parametrize(
    ("text", "formula", "latex"),
    [
        ("mul(a13,a2)", "a13·a2", r"a_{13}\,a_{2}"),
        (
            "mul(add(a1,a2),sub(a3,a4))",
            "(a1 + a2)·(a3 − a4)",
            r"\left(a_{1} + a_{2}\right)\,\left(a_{3} - a_{4}\right)",
        ),
        ("sub(a1,sub(a2,a3))", "a1 − (a2 − a3)", r"a_{1} - \left(a_{2} - a_{3}\right)"),
        ("square(square(a1))", "(a1²)²", r"\left(a_{1}^2\right)^2"),
        ("id(add(a1,a2))", "a1 + a2", "a_{1} + a_{2}"),
        ("div(a1,a2)", "a1/(a2 + ε)", r"\frac{a_{1}}{a_{2} + \varepsilon}"),
        (
            "over(1,sqrtabs(erf(a14x)))",
            "1/√|erf(a14x)|",
            r"\frac{1}{\sqrt{\left|\operatorname{erf}\left(a_{14}'\right)\right|}}",
        ),
    ],
)
def test_formulas_have_the_brackets_they_need(text: str, formula: str, latex: str) -> None:
    assert Decay.parse(text).formula() == formula
    assert Decay.parse(text).latex() == latex


def test_a_legend_says_what_the_base_functions_are() -> None:
    assert Decay.parse("max(a6,mul(a10,a6))").legend() == {"a6": "(1 − cos 2πx)/2", "a10": "y"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'', the end at position 0: expected a base function or an operation"),
        ("mul(a13,)", r"'mul(a13,)', ')' at position 8: expected a base function or an operation"),
        ("mul(a13)", "')' at position 7: expected ','"),
        ("erfc(a1,a2)", "',' at position 7: expected ')'"),
        ("erfc(a1", "the end at position 7: expected ')'"),
        ("erfc", "the end at position 4: expected '('"),
        ("a1 a2", "'a2' at position 3: expected nothing more"),
        ("efrc(a1)", "'efrc' at position 0: did you mean 'erf"),
        ("a15", "'a15' at position 0: did you mean 'a"),
        ("a1(a2)", "'(' at position 2: expected nothing more"),
        ("π", "'π' at position 0: expected a base function"),
        ("id(" * 60 + "a1" + ")" * 60, "at position 150: expected at most 50 operations"),
    ],
)
def test_what_does_not_parse_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid decay: ") as error:
        Decay.parse(text)
    assert said in str(error.value)


def test_a_decay_outside_0_to_1_is_told_with_the_step() -> None:
    assert Decay.parse("add(a1,a12)").phenotype_fault() == (
        "add(a1,a12) is 1.03501 at step 1 of 100, expected 0 to 1"
    )
    assert "is inf at step 0" in str(Decay.parse("over(1,a2)").phenotype_fault())
    assert "is nan at step 0" in str(Decay.parse("over(a2,a2)").phenotype_fault())


def test_a_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="mul takes two arguments, got 1"):
        Decay("mul", (Decay("a1"),))
    with pytest.raises(ValueError, match="a1 takes no arguments, got 1"):
        Decay("a1", (Decay("a2"),))


def test_decays_are_values() -> None:
    decay = Decay.parse("max(a6,a10)")
    assert len({decay, Decay.parse("max(a6, a10)"), pickle.loads(pickle.dumps(decay))}) == 1
    assert decay.table(1000) is decay.table(1000)


@pytest.mark.parametrize(
    "text",
    [
        "a13",
        "id(a3)",
        "erfc(erfc(a4))",
        "mul(a13,a2)",
        "max(erf(a1),a1)",
        "div(a1,add(a2,a1))",
        "add(a1,a1)",
        "mul(id(a1),id(a2))",
    ],
)
def test_a_graph_expresses_a_decay(text: str) -> None:
    decay = Decay.parse(text)
    graph = DecayGraph.from_decay(decay)
    assert graph.decay().normal() == decay.normal()
    assert DecayGraph.from_dict(graph.to_dict()) == graph


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("over(a1,a2)", "has over, which no search uses"),
        ("a14x", "has a14x, which no search uses"),
        ("add(dsigmoid(a1),dsigmoid(a2))", "takes more than a root and one hidden node"),
        ("erf(erf(erf(a1)))", "takes more than a root and one hidden node"),
        ("erf(add(a1,a1))", "takes more than a root and one hidden node"),
    ],
)
def test_what_no_graph_expresses_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DecayGraph.from_decay(Decay.parse(text))


NODE = DecayNode("erf", "mul", ("a1",))


@pytest.mark.parametrize(
    ("hidden", "root", "why"),
    [
        (DecayNode("erf", "mul", ("hidden",)), NODE, "Invalid hidden.inputs: 'hidden'"),
        (
            NODE,
            DecayNode("erf", "mul", ("a1", "a1")),
            "Invalid root.inputs: .* expected one or two different",
        ),
        (NODE, DecayNode("erf", "mul", ()), "Invalid root.inputs"),
        (NODE, DecayNode("erf", "mul", ("a1", "a2", "a3")), "Invalid root.inputs"),
        (NODE, DecayNode("double", "mul", ("a1",)), "Invalid root.unary: 'double'"),
        (DecayNode("erf", "erf", ("a1",)), NODE, "Invalid hidden.binary: 'erf'"),
        (NODE, DecayNode("erf", "mul", ("a15",)), "Invalid root.inputs: 'a15', did you mean 'a"),
    ],
)
def test_genes_that_the_search_does_not_have_are_refused(
    hidden: DecayNode, root: DecayNode, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        DecayGraph(hidden, root)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"hidden": ["erf", "mul", "a1"]},
        {"hidden": "erf", "root": ["erf", "mul", "a1"]},
        {"hidden": ["erf", "mul"], "root": ["erf", "mul", "a1"]},
        {"hidden": ["erf", "mul", 3], "root": ["erf", "mul", "a1"]},
    ],
)
def test_what_is_no_decay_graph_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"^Invalid "):
        DecayGraph.from_dict(data)  # type: ignore[arg-type]
