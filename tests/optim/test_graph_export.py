"""Exported equations: the same optimizer to the last bit, torch alone, and readable."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from contract import assert_equal, parameters, run, values
from graph_optimizers import GRAPHS

from optevo.optim.graphs import Equation
from optevo.optim.graphs import optimizer as library
from optevo.optim.graphs.decays import Decay
from optevo.optim.graphs.equation import Edge, Node
from optevo.optim.graphs.export import export_graph
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.operations import OPERANDS, OPERATIONS
from optevo.optim.graphs.presets import PRESETS
from optevo.optim.graphs.wrappers import WRAPPERS

STEPS = 12


def node(name: str, *inputs: Node | Edge) -> Node:
    return Node(name, tuple(one if isinstance(one, Edge) else Edge(one) for one in inputs))


def _all_operations() -> GraphGenome:
    """Every operand and operation in one rule, bounded at each step, each under a decay."""
    parts = [node(name) for name in OPERANDS]
    for name, operation in OPERATIONS.items():
        parts.append(node(name, *[node("tanh", node("g"))] * operation.arity))
    decays = [Decay("erfc", (Decay(f"a{i % 14 + 1}"),)) for i in range(len(parts))]
    edges = [Edge(part, decay) for part, decay in zip(parts, decays, strict=True)]
    while len(edges) > 1:
        edges = [Edge(node("tanh", node("add", *edges[:2]))), *edges[2:]]
        edges.append(edges.pop(0))
    (whole,) = edges
    return GraphGenome(Equation(whole, "momentum", negated=True), 0.01)


GENOMES = {
    **{name: PRESETS[name].at_rate(0.01) for name in ("opt3_as_coded", "opt4", "opt9", "opt10")},
    **GRAPHS,
    "everything": _all_operations(),
    "a held rate": replace(GRAPHS["bounded"], warmup=0.3, hold=0.4),
    "infinite at first": GraphGenome(Equation.parse("none [over(1,a2)]*g"), 0.01),
    **{w: GraphGenome(Equation.parse(f"{w} [a1]*g"), 0.01) for w in WRAPPERS},
}
every_genome = pytest.mark.parametrize("name", GENOMES)


def load(source: str) -> ModuleType:
    module = ModuleType("exported")
    exec(compile(source, "exported.py", "exec"), module.__dict__)
    return module


def made(module: ModuleType, params: Any, **options: Any) -> torch.optim.Optimizer:
    timed = {"total_steps": STEPS} if "total_steps" in module.Evolved.RANGES else {}
    return module.Evolved(params, **timed, **options)


@every_genome
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exported_optimizer_equals_the_librarys_to_the_last_bit(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small parameters, one in blocks, and one with gaps in memory; with its schedule and past the end."""
    genome, module = GENOMES[name], load(GENOMES[name].source("Evolved", {}))
    for one in (module, library):
        monkeypatch.setattr(one, "PACKED", 16)
        monkeypatch.setattr(one, "BLOCK", 7)
    shapes = ((3, 5), (4, 5), (7,), (), (0,))
    ours, theirs = parameters(*shapes, dtype=dtype), parameters(*shapes, dtype=dtype)
    for params in (ours, theirs):
        params[0].data = params[0].detach().t().contiguous().t()
        params[2].data = torch.empty(14, dtype=dtype)[::2].copy_(params[2].detach())
    settings = {"weight_decay": 0.1, "maximize": dtype == torch.float32}
    mine, scheduler = genome.build(ours, STEPS, **settings)
    other = made(module, theirs, **settings)
    schedule = module.scheduler(other, STEPS)
    for k in range(STEPS + 2):
        run(mine, ours, range(k, k + 1))
        run(other, theirs, range(k, k + 1))
        assert_equal(values(ours), values(theirs))
        assert scheduler.get_last_lr() == schedule.get_last_lr()
        scheduler.step()
        schedule.step()
    assert [len(mine.state[p]) for p in ours] == [len(other.state[p]) for p in theirs]


@every_genome
def test_an_exported_file_checks_itself_and_imports_torch_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = GENOMES[name].source("Named", {"study": "s"})
    exec(compile(source, "named.py", "exec"), {"__name__": "__main__"})
    assert "Named" in capsys.readouterr().out
    imported = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            imported.add((statement.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch"}


@every_genome
def test_an_exported_file_is_readable(name: str) -> None:
    source = GENOMES[name].source("Evolved", {"study": "s"})
    assert GENOMES[name].formula() in load(source).Evolved.__doc__
    assert source.endswith("\n")
    assert not source.endswith("\n\n")
    assert not re.search(r"@[A-Z_]+@|^\|", source, re.MULTILINE)
    assert not any(line != line.rstrip() for line in source.splitlines())
    if name in PRESETS:
        assert max(map(len, source.splitlines())) <= 111


@pytest.mark.parametrize("number", ["0.5", "a13(t", "0.95"])
def test_a_spoilt_file_fails_its_own_check(number: str) -> None:
    source = PRESETS["opt10"].at_rate(0.5).source("Evolved", {})
    spoilt = {"0.5": "lr=0.51, total", "a13(t": "a2(t", "0.95": "0.951"}
    right = {"0.5": "lr=0.5, total"}.get(number, number)
    assert right in source
    with pytest.raises(AssertionError):
        exec(source.replace(right, spoilt[number]), {"__name__": "__main__"})


def test_the_class_asks_for_what_it_needs_and_no_more() -> None:
    """Its length where time is part of the rule, its rate where none is known, a seed where it draws."""
    for text, lr, names in (
        ("none id(g)", 0.1, ["lr=0.1"]),
        ("none id(g)", None, ["lr"]),
        ("none [a1]*g", None, ["lr", "total_steps"]),
        ("momentum id(g)", 0.1, ["lr=0.1", "total_steps"]),
        ("none dropout0.5(g)", 0.1, ["lr=0.1", "seed=0"]),
    ):
        module = load(export_graph(GraphGenome(Equation.parse(text), lr)))
        known = inspect.signature(module.Evolved).parameters.values()
        told = [one.name if one.default is one.empty else f"{one.name}={one.default}" for one in known]
        own = [one for one in told if one not in ("params", "weight_decay=0.0", "maximize=False")]
        assert own == names
        assert set(module.Evolved.RANGES) == {"weight_decay", *(one.partition("=")[0] for one in names)}
        with pytest.raises(TypeError, match="missing" if "=" not in " ".join(names) else "unexpected"):
            module.Evolved(parameters(), **({} if "=" not in " ".join(names) else {"betas": (0.9, 0.9)}))


def test_its_checkpoints_are_the_librarys() -> None:
    genome = GRAPHS["drops"]
    module = load(genome.source("Evolved", {}))
    whole, params = parameters(), parameters()
    expected = run(genome.optimizer(whole, STEPS), whole, 6)
    first = genome.optimizer(params, STEPS)
    run(first, params, 3)
    second = made(module, params)
    second.load_state_dict(first.state_dict())
    assert_equal(run(second, params, range(3, 6)), expected)


@pytest.mark.parametrize("name", ["update", "decays", "shares", "_pieces", "torch", "a13", "1st", "BLOCK"])
def test_a_class_name_that_the_file_needs_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="class_name"):
        export_graph(PRESETS["opt10"], class_name=name)


def test_provenance_is_kept_as_data() -> None:
    told = {"study": 'x"""; raise SystemExit', "@FORMULA@": "\\"}
    assert told == load(export_graph(PRESETS["opt4"], provenance=told)).PROVENANCE


@pytest.mark.parametrize("steps", [1.5, True, 0, float("nan")])
def test_an_exported_rule_takes_a_whole_number_of_steps(steps: Any) -> None:
    module = load(GraphGenome("none [a1]*g", lr=0.1).source("Evolved", {}))
    with pytest.raises(ValueError, match="Invalid total_steps"):
        module.Evolved(parameters(), total_steps=steps)
