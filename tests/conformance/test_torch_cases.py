"""torch's table of optimizer cases, run as its class TestOptimRenewed (test/test_optim.py) runs it.

That class is not in the wheel, so the cases are told again here, under its names. Those that are not here:
multigpu, fused, capturable, graph, peak_memory and cuda cases need a device; sparse ones go to optimizers for
sparse gradients; foreach_matches_forloop is in `test_contract_gradients`, against the library's own loop;
differentiable goes to torch's classes, whose own it is.
"""

from __future__ import annotations

import copy
import inspect
import sys
import types
import unittest
import warnings
from typing import Any

import pytest
import torch
from contract import LIBRARYS, Contract, Subject, exported_baselines, exported_genomes, through_a_file
from graph_optimizers import GRAPH_LIBRARYS, exported_graphs
from modern_optimizers import MODERN_LIBRARYS, exported_moderns
from torch import Tensor, nn

from optevo.optim.terms.presets import PRESETS

# Whose rows of the table an optimizer takes; what its constructor lacks is left out of a row.
ROWS = {
    "sgd": "SGD",
    "qhm": "SGD",
    "powersign": "SGD",
    "addsign": "SGD",
    "adam": "Adam",
    "rmsprop": "RMSprop",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adafactor": "Adafactor",
    "muon": "Muon",
    "muon_conv": "Muon",
}


@pytest.fixture(scope="module")
def table() -> Any:
    """`torch.testing._internal.common_optimizers`, which is private."""
    if "expecttest" not in sys.modules and not _has_expecttest():
        # torch's tests take their base class from there; none of its expectations is used here.
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    try:
        from torch.testing._internal import common_optimizers  # noqa: PLC0415
    except ImportError as error:
        pytest.skip(f"this torch has no table of optimizer cases: {error}")
    return common_optimizers


def _has_expecttest() -> bool:
    try:
        import expecttest  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def info(table: Any, name: str) -> Any:
    (row,) = (one for one in table.optim_db if one.optim_cls.__name__ == ROWS.get(name, "AdamW"))
    return row


def takes(make: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a constructor has these arguments."""
    target = make.func if hasattr(make, "func") else make
    known = inspect.signature(target).parameters
    if "options" in known:  # of an exported baseline; torch's class behind it says which
        for base in target.__mro__[1:4]:
            known = {**known, **inspect.signature(base.__init__).parameters}
    return kwargs.keys() <= known.keys()


def configurations(table: Any, request: pytest.FixtureRequest, subject: Subject) -> list[dict[str, Any]]:
    name = request.node.callspec.id.split("-")[-1]
    inputs = info(table, name).optim_inputs_func(device="cpu")
    rows = [row.kwargs for row in inputs if takes(subject.make, row.kwargs)]
    if (
        name == "sgd" and subject.takes_sparse
    ):  # torch's, tuned with Nesterov's momentum, which rows are without
        rows = [{"nesterov": False, **row} if row else row for row in rows]
    rows = [row for row in rows if subject.maximize or not row.get("maximize")]
    assert {} in rows
    assert len(rows) > 2
    return rows


def toy(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in ((10, 5), (10,))
    ]


def closure_of(optimizer: torch.optim.Optimizer, weight: Tensor, bias: Tensor) -> Any:
    x = torch.linspace(-1, 1, 5, dtype=weight.dtype)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    return closure


class TorchCases(Contract):
    """One method a case of torch's; each goes through all rows of the table."""

    @pytest.fixture
    def rows(self, table: Any, request: pytest.FixtureRequest, subject: Subject) -> list[dict[str, Any]]:
        return configurations(table, request, subject)

    def test_errors(self, table: Any, request: pytest.FixtureRequest, subject: Subject) -> None:
        own = info(table, request.node.callspec.id)
        tried = 0
        for error in own.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            params, kwargs = error.optimizer_error_input.params, error.optimizer_error_input.kwargs
            if not takes(subject.make, kwargs) or "Muon" in error.error_regex:  # AdamW takes vectors
                continue
            if "Adafactor" in error.error_regex and own.optim_cls.__name__ != "Adafactor":
                continue
            if "foreach" in kwargs and own.optim_cls not in getattr(subject.make, "__mro__", ()):
                continue  # what goes with foreach is torch's own matter
            tried += 1
            if error.error_on == table.OptimizerErrorEnum.STEP_ERROR:
                optimizer = subject.make(params, **kwargs)
                with pytest.raises(error.error_type, match=error.error_regex):
                    optimizer.step()
            elif issubclass(error.error_type, Warning):
                with pytest.warns(error.error_type, match=error.error_regex):
                    subject.make(params, **kwargs)
            else:
                with pytest.raises(error.error_type, match=error.error_regex):
                    subject.make(params, **kwargs)
        assert tried >= 6

    def test_forloop_goes_right_direction(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            weight, bias = toy()
            optimizer = subject.make([weight, bias], **copy.deepcopy(kwargs))
            closure = closure_of(optimizer, weight, bias)
            before = closure().item()
            for _ in range(20):
                optimizer.step(closure)
            assert (closure().item() > before) == bool(kwargs.get("maximize")), kwargs

    def test_param_group_with_lrscheduler_goes_right_direction(
        self, table: Any, request: pytest.FixtureRequest, subject: Subject
    ) -> None:
        for makers in info(table, request.node.callspec.id).scheduler_inputs:
            weight, bias = toy()
            optimizer = subject.make([{"params": [weight]}, {"params": [bias], "lr": 0.01}])
            chained = [make(optimizer) for make in makers]
            closure = closure_of(optimizer, weight, bias)
            before = closure().item()
            for _ in range(20):
                loss = optimizer.step(closure)
                for one in chained:
                    plateau = isinstance(one, torch.optim.lr_scheduler.ReduceLROnPlateau)
                    one.step(loss.detach()) if plateau else one.step()
            assert closure().item() < before

    def test_tensor_lr(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            if kwargs.get("foreach"):
                continue
            ends = []
            for lr in (0.0078125, torch.tensor(0.0078125)):
                weight, bias = toy()
                optimizer = subject.make([weight, bias], **{**copy.deepcopy(kwargs), "lr": lr})
                for _ in range(5):
                    optimizer.step(closure_of(optimizer, weight, bias))
                ends.append(weight.detach())
            torch.testing.assert_close(ends[0], ends[1])

    def test_step_is_noop_when_params_have_no_grad(
        self, rows: list[dict[str, Any]], subject: Subject
    ) -> None:
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            for _ in range(3):
                optimizer.step()
            assert all(torch.equal(p, q) for p, q in zip(params, toy(), strict=True))

    def test_step_is_noop_for_zero_grads(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **{**copy.deepcopy(kwargs), "weight_decay": 0.0})
            for p in params:
                p.grad = torch.zeros_like(p)
            optimizer.step()
            assert all(torch.equal(p, q) for p, q in zip(params, toy(), strict=True))

    def test_optimizer_can_be_printed(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            assert "lr" in repr(subject.make(toy(), **copy.deepcopy(kwargs)))

    def test_state_dict_deterministic(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            params = toy(torch.float32)
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            twins = toy(torch.float32)
            for _ in range(5):
                optimizer.step(closure_of(optimizer, *params))
            with torch.no_grad():
                for twin, p in zip(twins, params, strict=True):
                    twin.copy_(p)
            twin_optimizer = subject.make(twins, **copy.deepcopy(kwargs))
            twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for _ in range(5):
                optimizer.step(closure_of(optimizer, *params))
                twin_optimizer.step(closure_of(twin_optimizer, *twins))
            assert all(torch.equal(p, twin) for p, twin in zip(params, twins, strict=True))
            assert str(optimizer.state_dict()) == str(twin_optimizer.state_dict())

    def test_can_load_older_state_dict(
        self, table: Any, request: pytest.FixtureRequest, rows: list[dict[str, Any]], subject: Subject
    ) -> None:
        flags = info(table, request.node.callspec.id).not_og_supported_flags
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            optimizer.step(closure_of(optimizer, *params))
            state = copy.deepcopy(optimizer.state_dict())
            for group in state["param_groups"]:
                for flag in flags:
                    group.pop(flag, None)
            optimizer.load_state_dict(state)
            optimizer.step(closure_of(optimizer, *params))

    def test_save_load_equality_with_weights_only(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            for _ in range(3):
                optimizer.step(closure_of(optimizer, *params))
            loaded = through_a_file(optimizer.state_dict())
            assert str(loaded) == str(optimizer.state_dict())

    def test_load_nontensor_step(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            for _ in range(3):
                optimizer.step(closure_of(optimizer, *params))
            state = copy.deepcopy(optimizer.state_dict())
            for held in state["state"].values():
                if "step" in held:
                    held["step"] = held["step"].item()
            optimizer.load_state_dict(state)
            optimizer.step(closure_of(optimizer, *params))

    def test_deepcopy_copies_all_public_attrs(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            optimizer.step(closure_of(optimizer, *params))
            twin = copy.deepcopy(optimizer)
            public = {name for name in vars(optimizer) if not name.startswith("_")}
            assert public == {name for name in vars(twin) if not name.startswith("_")}

    def test_param_groups_weight_decay(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        for kwargs in rows:
            weight, bias = toy()
            plain = {name: value for name, value in kwargs.items() if name != "weight_decay"}
            optimizer = subject.make(
                [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}],
                **copy.deepcopy(plain),
            )
            closure = closure_of(optimizer, weight, bias)
            before = closure().item()
            for _ in range(20):
                optimizer.step(closure)
            assert (closure().item() > before) == bool(kwargs.get("maximize")), kwargs

    def test_cpu_load_state_dict(self, rows: list[dict[str, Any]], subject: Subject) -> None:
        """A state dict made on the CPU loads, and shares no list or dict with the one that it is from."""
        for kwargs in rows:
            params = toy()
            optimizer = subject.make(params, **copy.deepcopy(kwargs))
            optimizer.step(closure_of(optimizer, *params))
            state = copy.deepcopy(optimizer.state_dict())
            other = subject.make(toy(), **copy.deepcopy(kwargs))
            other.load_state_dict(state)
            assert other.param_groups[0] is not state["param_groups"][0]
            for held in other.state.values():
                for name, value in held.items():
                    if isinstance(value, Tensor):
                        assert value.device.type == "cpu", name

    def test_no_deprecation_is_used(self, subject: Subject) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            params = toy()
            optimizer = subject.make(params)
            optimizer.step(closure_of(optimizer, *params))


class TestGenomes(TorchCases):
    """`GenomeOptimizer`."""

    subjects = {name: LIBRARYS[name] for name in PRESETS}  # noqa: RUF012


class TestGraphs(TorchCases):
    """`GraphOptimizer`."""

    subjects = {name: GRAPH_LIBRARYS[name] for name in ("moments", "remembers")}  # noqa: RUF012


class TestExportedGenomes(TorchCases):
    """The exported file of each preset."""

    subjects = exported_genomes(*PRESETS)


class TestExportedGraphs(TorchCases):
    """The exported file of an equation."""

    subjects = exported_graphs("a5")


class TestModern(TorchCases):
    """`ModernOptimizer`."""

    subjects = {name: MODERN_LIBRARYS[name] for name in ("fused", "all")}  # noqa: RUF012


class TestExportedModern(TorchCases):
    """The exported file of a genome of the modern catalogue."""

    subjects = exported_moderns("all")


class TestExportedBaselines(TorchCases):
    """The exported file of each baseline."""

    subjects = exported_baselines()
