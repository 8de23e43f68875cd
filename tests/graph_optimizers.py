"""Equations that between them have every kind of state and of number, and their optimizers."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from contract import Subject, imported

from optevo.optim.graphs import GraphOptimizer
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.presets import PRESETS


def _genome(text: str, *numbers: float) -> GraphGenome:
    return GraphGenome(Equation.parse(text), *numbers)


STEPS = 100  # the length of the runs that the decays and the wrapper take them for
GRAPHS: dict[str, GraphGenome] = {
    # all moments and the weights
    "moments": _genome("none add(qh_v,softsign(mul(1e-5w,add(qh_s,add(qh_l,qh_lg)))))", 0.01),
    "opt6": PRESETS["opt6"].at_rate(0.01),
    "bounded": _genome("nesterov i1e(i1e([a13]*g))", 0.5),
    "a5": PRESETS["a5"].at_rate(0.01),
    "remembers": _genome(
        "momentum add(ema0.95(g),mul(runmax(abs(g)),tanh([a1]*change(ema0.95(v_hat)))))", 0.003, 0.2, 0.3
    ),
    "negated": _genome("-lookahead sub(delta(delta(mul(1e-6w,g))),g)", 0.003),
    "drops": _genome("nesterov add(dropout0.5(g),dropout0.1(tanh(g)))", 0.003),
}


def _facts(name: str) -> dict[str, Any]:
    if name != "drops":
        return {}
    return {"waits": "a generator on another device needs the device", "apart": False}


GRAPH_LIBRARYS = {
    name: Subject(
        functools.partial(
            GraphOptimizer,
            equation=one.equation,
            total_steps=STEPS,
            lr=one.lr,
            warmup=one.warmup,
            hold=one.hold,
        ),
        one.lr,
        **_facts(name),
    )
    for name, one in GRAPHS.items()
    if name in ("moments", "a5", "remembers", "drops")  # every kind of state; the rest have their own tests
}


def exported_graphs(*names: str) -> dict[str, Subject]:
    """Exported files of equations, each as a subject; one of them has no rate."""
    made = {}
    for name in names:
        genome = GRAPHS[name]
        module = imported(f"graph_{name}", replace(genome, lr=None) if name == "a5" else genome)
        needs = {"lr": genome.lr, "total_steps": STEPS}
        needs = {one: needs[one] for one in module.Evolved.RANGES if one in needs}
        make = functools.partial(module.Evolved, **needs)
        made[name] = Subject(make, genome.lr, module=module, **_facts(name))
    return made
