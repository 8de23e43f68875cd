"""Graphs and presets against the numbers of the published program, in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_oracles import SEARCH_SPACE, TRAJECTORIES, equation_of
from torch import nn

from optevo.optim import PRESETS
from optevo.optim.graphs import Equation, GraphOptimizer, UpdateGraph
from optevo.optim.graphs.equation import Edge
from optevo.optim.graphs.gate import RATES, sign, sphere
from optevo.optim.graphs.operations import MOMENTS, OPERANDS, OPERATIONS
from optevo.optim.graphs.program import program

CASES = {case["id"]: case for case in TRAJECTORIES["cases"] if not case["id"].startswith("baseline/")}
EXPRESSED = ("opt2", "opt4", "opt7", "opt9", "opt10")  # by the search's own graphs
AS_GRAPHS = {
    "opt4": "none div([erfc(erfc(a4))]*qh_v,[dtanh(a8)]*clip(two,[arctan(a13)]*exp(v_hat)))",
}
INPUTS = TRAJECTORIES["inputs"]


def equation_of_preset(case: dict[str, Any]) -> Equation:
    """The preset that a case of the oracle is about, as it has it."""
    name = case["optimizer"].lower()
    if case["form"] == "as_coded" and f"{name}_as_coded" in PRESETS and "guard" not in case:
        name += "_as_coded"
    equation = PRESETS[name].equation
    if not case["decay"]:
        return equation.without_decays()
    if case["lr_mode"] == "const":  # without the learned schedule, which is the decay of the whole
        equation = replace(equation, root=Edge(equation.root.of))
    return equation


def path_of(equation: Equation, case: dict[str, Any]) -> list[list[float]]:
    """The weights before and after each of the case's steps."""
    w0 = torch.tensor(INPUTS["w0"], dtype=torch.float64) * case.get("w0_scale", 1.0)
    params = [nn.Parameter(part.clone()) for part in w0.split(case.get("split", [5]))]
    scheduled = case["lr_mode"] == "sched"
    time = {"warmup": INPUTS["W"] / INPUTS["T"], "hold": INPUTS["H"] / INPUTS["T"]}
    if case["T"] != INPUTS["T"] or not scheduled:  # the decays' horizon is not the schedule's there
        time = {"momentum": 0.9}
    optimizer = GraphOptimizer(
        params, equation, total_steps=case["T"], lr=case.get("lr", INPUTS["lr"]), **time
    )
    rows = [w0.tolist()]
    for t, row in enumerate(INPUTS["grads"]):
        if scheduled:
            optimizer.param_groups[0]["lr"] = INPUTS["lr_sched"][t]
        gradient = torch.tensor(row, dtype=torch.float64) * case.get("grad_scale", 1.0)
        for p, part in zip(params, gradient.split(case.get("split", [5])), strict=True):
            p.grad = part
        optimizer.step()
        rows.append([x for p in params for x in p.tolist()])
    return rows


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_presets_take_the_published_path(case: dict[str, Any]) -> None:
    ours = torch.tensor(path_of(equation_of_preset(case), case))
    torch.testing.assert_close(ours, ours.new_tensor(case["w"]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c["optimizer"] in EXPRESSED], ids=lambda c: c["id"]
)
def test_the_searchs_graphs_take_the_published_path(case: dict[str, Any]) -> None:
    """Opt4 up to ε in its division."""
    text = AS_GRAPHS.get(case["optimizer"], PRESETS[case["optimizer"]].equation.text())
    equation = UpdateGraph.parse(text).equation()
    if not case["decay"]:
        equation = equation.without_decays()
    elif case["lr_mode"] == "const" and case["optimizer"] == "opt4":
        root = equation.root.of
        equation = replace(
            equation, root=Edge(replace(root, inputs=tuple(Edge(edge.of) for edge in root.inputs)))
        )
    ours = torch.tensor(path_of(equation, case))
    guarded = case["optimizer"] == "opt4" and "guard" not in case
    rtol, atol = (1e-5, 1e-6) if guarded else (1e-9, 1e-12)
    torch.testing.assert_close(ours, ours.new_tensor(case["w"]), rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", SEARCH_SPACE["graph_trajectories"], ids=lambda case: case["id"])
def test_graphs_take_the_published_path(case: dict[str, Any]) -> None:
    equation = UpdateGraph.from_equation(equation_of(case)).equation()
    inputs = SEARCH_SPACE["inputs"]
    w = nn.Parameter(torch.tensor(inputs["w0"], dtype=torch.float64))
    optimizer = GraphOptimizer([w], equation, total_steps=20, lr=0.01, warmup=0.2)
    rows = [w.tolist()]
    for t, row in enumerate(inputs["grads"]):
        optimizer.param_groups[0]["lr"] = 0.01 * (
            t / 4 if t < 4 else 0.5 * (1 + math.cos(math.pi * (t - 4) / 16))
        )
        w.grad = torch.tensor(row, dtype=torch.float64)
        optimizer.step()
        rows.append(w.tolist())
    torch.testing.assert_close(torch.tensor(rows), torch.tensor(case["w"]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", SEARCH_SPACE["integrity"], ids=lambda case: case["id"])
def test_the_sphere_judges_as_published(case: dict[str, Any]) -> None:
    equation = equation_of(case)
    assert (sign(equation) is not None) == case["accepted"]
    if case["accepted"]:
        assert sign(equation) == case["flip_sign"]
    for ours, theirs in zip(sphere(equation), (case["plain"], case.get("flip")), strict=True):
        for value, expected in zip(ours, theirs or [], strict=theirs is not None):
            if expected is None:
                assert not math.isfinite(value)
            elif abs(expected) < 1e6:
                assert value == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert len(sphere(equation)[0]) == len(RATES)


@pytest.mark.parametrize("name", SEARCH_SPACE["operand_trace"])
def test_operands_have_the_published_values(name: str) -> None:
    inputs, operand = SEARCH_SPACE["inputs"], OPERANDS[name]
    w = torch.tensor(inputs["w0"], dtype=torch.float64)
    moments = {moment: torch.zeros_like(w) for moment in MOMENTS}
    rows = []
    for t, row in enumerate(inputs["grads"]):
        known: dict[str, Any] = {"w": w, "g": torch.tensor(row, dtype=torch.float64), **moments}
        for moment, about in MOMENTS.items():
            about.update(torch, known[moment], known["g"])
            known[f"k{moment}"] = 1 - about.beta ** (t + 1)
        rows.append(operand.function(torch, *(known[read] for read in operand.reads)).tolist())
    torch.testing.assert_close(
        torch.tensor(rows), torch.tensor(SEARCH_SPACE["operand_trace"][name]), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("table", ["unary", "binary"])
def test_operations_have_the_published_values(table: str) -> None:
    values = {name: torch.tensor(one, dtype=torch.float64) for name, one in SEARCH_SPACE[table].items()}
    inputs = {name: values.pop(name) for name in ("x", "y") if name in values}
    assert values
    for name, expected in values.items():
        ours = OPERATIONS[name].function(torch, *inputs.values())
        torch.testing.assert_close(
            ours, expected, rtol=1e-9, atol=1e-12, msg=lambda said, name=name: f"{name}: {said}"
        )


def test_every_operation_and_operand_runs() -> None:
    for name in (*OPERATIONS, *OPERANDS):
        inputs = (
            "(g,w)" if name in OPERATIONS and OPERATIONS[name].arity == 2 else "(g)" * (name in OPERATIONS)
        )
        rule = program(f"momentum {name}{inputs}".replace("w)", "1e-3w)"))
        w, g = torch.full((4,), 1e3), torch.linspace(-1, 1, 4)
        generator = torch.Generator().manual_seed(0)
        rule.update(w, g, *(torch.zeros(4) for _ in rule.states), 0.1, 0.9, 1, generator)
        assert w.isfinite().all()
