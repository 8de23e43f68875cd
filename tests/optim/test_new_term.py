"""A new term is one entry in the table: rule, formula, kernels, reference and exported file follow."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch

from optevo.optim.terms import kernels
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.kernels import has_compiler, stacked_update
from optevo.optim.terms.optimizer import rule_scalars
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.reference import ReferenceOptimizer
from optevo.optim.terms.table import BASIS, TABLE, Basis, Term

BOUNDED = Basis(  # reads all that there is to read
    "bounded",
    "{m}/(1 + |g| + {root} + {eps})",
    lambda x: x.m / (1 + x.g.abs() + (x.root + x.eps)),
    lambda t, rate: t.subtract_quotient(
        t.m_hat, torch._foreach_add(torch._foreach_add(torch._foreach_abs(t.grads), 1), t.root), rate
    ),
    "torch._foreach_addcdiv_(params, m_hat, [1 + g.abs() + r for g, r in zip(grads, root)], -({rate}))",
    reads=frozenset({"m", "m-hat", "root", "eps"}),
)
CUBE = Basis(
    "cube",
    "g³",
    lambda x: x.g**3,
    lambda t, rate: t.subtract(torch._foreach_pow(t.grads, 3), rate),
    "torch._foreach_add_(params, torch._foreach_pow(grads, 3), alpha=-({rate}))",
)
GENES: dict[str, Any] = {"lr": 1e-2, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 1e-3}


needs_compiler = pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def _entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in each of the table's two halves."""
    monkeypatch.setitem(BASIS, "bounded", BOUNDED)
    term = Term(lambda beta1: {"bounded": 1.0}, BOUNDED.value)
    monkeypatch.setitem(TABLE, "BOUNDED", term)
    monkeypatch.setattr(kernels, "_kernels", {})  # compiled for another table


@pytest.fixture(params=[True, False], ids=["corrected", "plain"])
def genome(request: pytest.FixtureRequest) -> TermGenome:
    terms = ("BOUNDED", "SIGN_GRAD", "BOUNDED", "ADAM_TERM")
    return TermGenome(terms=terms, alphas=(1.5, 0.25, 0.5, -0.5), bias_correction=request.param, **GENES)


def trained(make: Any, steps: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(7, generator=generator, dtype=torch.float64))
    optimizer = make([w])
    for _ in range(steps):
        w.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        optimizer.step()
    return w.detach()


def test_its_coefficients_fold_and_show_in_the_formula(genome: TermGenome):
    rule = genome.rule()
    assert rule.others == (("bounded", 2.0),)
    assert rule.coefficients == (0.0, 0.0, 0.0, -0.5, 0.25, 0.0, 2.0)
    hat = "\u0302" if genome.bias_correction else ""
    assert f"2·m{hat}/(1 + |g| + √v{hat} + 1e-06)" in genome.formula()


def test_canonical_forms_of_genomes_without_it_stay_as_they_were(genome: TermGenome):
    assert json.loads(genome.canonical())["bounded"] == 2.0
    assert "bounded" not in PRESETS["evolved"].canonical()


def test_eager_reference_and_exported_file_agree(genome: TermGenome):
    reference = trained(lambda params: ReferenceOptimizer(params, genome))
    eager = trained(lambda params: genome.optimizer(params, compiled=False))
    torch.testing.assert_close(eager, reference, rtol=1e-12, atol=0)
    space: dict[str, Any] = {"__name__": "exported"}
    exec(genome.source("Bounded", {}), space)
    space["self_check"]()
    torch.testing.assert_close(trained(space["Bounded"]), eager, rtol=1e-12, atol=0)


@needs_compiler
def test_the_compiled_update_agrees(genome: TermGenome):
    compiled = trained(lambda params: genome.optimizer(params, compiled=True), steps=2)
    eager = trained(lambda params: genome.optimizer(params, compiled=False), steps=2)
    torch.testing.assert_close(compiled, eager, rtol=1e-12, atol=1e-15)


def test_stacked_rows_agree_with_and_without_it(genome: TermGenome):
    stack = [genome, PRESETS["adam"], PRESETS["sgd"]]
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [torch.nn.Parameter(row.clone()) for row in rows]
    optimizers = [one.optimizer([w], compiled=False) for one, w in zip(stack, alone, strict=True)]
    m, v = torch.zeros_like(rows), torch.zeros_like(rows)
    generator = torch.Generator().manual_seed(2)
    for step in range(1, 4):
        grads = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        columns = [
            rule_scalars(one.rule(), lr=one.lr, weight_decay=one.weight_decay, step=step).folded()
            for one in stack
        ]
        stacked_update(rows, grads, m, v, torch.tensor(columns, dtype=torch.float64).t())
        for w, optimizer, g in zip(alone, optimizers, grads, strict=True):
            w.grad = g.clone()
            optimizer.step()
    torch.testing.assert_close(rows, torch.stack([w.detach() for w in alone]), rtol=1e-10, atol=1e-12)


def test_the_gate_judges_it():
    falling = TermGenome(terms=("BOUNDED",), alphas=(1.0,), **GENES)
    rising = TermGenome(terms=("BOUNDED",), alphas=(-1.0,), **GENES)
    assert falling.gate() is None
    assert str(rising.gate()).startswith("gate:")


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_a_checkpoint_of_the_smaller_table_goes_on(compiled: bool):
    """Its groups have six coefficients by position; a kernel compiled for it serves longer rules too."""
    w = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    older = PRESETS["sgd"].optimizer([w], compiled=compiled)
    checkpoint = older.state_dict()
    checkpoint["param_groups"][0]["coefficients"] = PRESETS["sgd"].rule().coefficients[:6]
    older.load_state_dict(checkpoint)
    assert older.state_dict()["param_groups"][0]["coefficients"]["momentum"] == 1.0
    w.grad = torch.ones(5, dtype=torch.float64)
    older.step()
    assert w.tolist() == pytest.approx([-0.001] * 5)
    newer = TermGenome(terms=("BOUNDED", "MOMENTUM"), alphas=(1.0, 1.0), use_second_moment=False, lr=1e-2)
    results = []
    for path in (compiled, False):
        v = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
        optimizer = newer.optimizer([v], compiled=path)
        v.grad = torch.ones(5, dtype=torch.float64)
        optimizer.step()
        results.append(v.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-15)


def test_a_checkpoint_holds_coefficients_by_name(monkeypatch: pytest.MonkeyPatch):
    """So terms of other packages may have been used in another order; where one is not used, that is told."""
    monkeypatch.setitem(BASIS, "cube", CUBE)
    monkeypatch.setitem(TABLE, "CUBE", Term(lambda beta1: {"cube": 1.0}, CUBE.value))
    genome = TermGenome(terms=("BOUNDED", "CUBE"), alphas=(1.0, 0.5), **GENES)
    w = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
    w.grad = torch.linspace(-1, 1, 5, dtype=torch.float64)
    first = genome.optimizer([w], compiled=False)
    first.step()
    checkpoint, v = copy.deepcopy(first.state_dict()), torch.nn.Parameter(w.detach().clone())
    first.step()

    monkeypatch.delitem(BASIS, "bounded")
    monkeypatch.setitem(BASIS, "bounded", BOUNDED)
    assert list(BASIS)[-2:] == ["cube", "bounded"]
    second = PRESETS["sgd"].optimizer([v], compiled=False)
    second.load_state_dict(checkpoint)
    v.grad = w.grad
    second.step()
    torch.testing.assert_close(v, w, rtol=1e-15, atol=0)

    monkeypatch.delitem(BASIS, "cube")
    with pytest.raises(ValueError, match=r"Invalid coefficients: 'cube', .* use its term first"):
        second.load_state_dict(checkpoint)
    with pytest.raises(ValueError, match=r"Invalid coefficients: 'cube'"):
        copy.deepcopy(first)
    checkpoint["param_groups"][0]["coefficients"] = (1.0,) * 8
    with pytest.raises(ValueError, match="Invalid coefficients: 8 numbers, expected 7 at most"):
        second.load_state_dict(checkpoint)


def test_coefficients_are_a_groups_own():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = PRESETS["adam"].optimizer(groups)
    optimizer.param_groups[0]["coefficients"]["adam"] = 0.0
    assert optimizer.param_groups[1]["coefficients"]["adam"] == 1.0


def test_an_entry_that_reads_a_corrected_moment_has_to_read_the_moment():
    with pytest.raises(ValueError, match="m-hat"):
        dataclasses.replace(BOUNDED, reads=frozenset({"m-hat"}))
