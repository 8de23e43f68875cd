"""Exported optimizers with arguments that nobody should give: they work, or are refused in words."""

from __future__ import annotations

import decimal
import fractions
import importlib.util
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from optevo.optim.baselines.registry import BASELINES, SCHEDULES, TunedBaseline
from optevo.optim.candidate import Candidate
from tests.strategies import random_genome

from .outcomes import Fault

CALLS = 20  # a file
NUMBERS: list[Any] = [
    *(math.nan, math.inf, -math.inf, -1, -1e-30, 10**400, True, 0, 1, 0.5, 1e-30),
    *(np.float32(0.01), np.float64("nan"), np.int64(1), np.bool_(True), np.array(0.1), np.array([0.1, 0.2])),
    *(torch.tensor(0.01), torch.tensor([0.01]), torch.tensor([0.1, 0.2]), torch.tensor(math.nan)),
    *(torch.tensor([]), torch.tensor(1j), torch.tensor(1), 1j, None, "0.1", "", b"1", [], {}, object()),
    *(fractions.Fraction(1, 100), decimal.Decimal("0.01"), lambda: 0.1),
]
REFUSED = (ValueError, TypeError, RuntimeError)


def candidate_of(rng: random.Random) -> Candidate:
    """A random genome, or a baseline of which a class alone can be the optimizer."""
    if rng.random() < 0.5:
        return random_genome(rng.randrange(10**6))
    name = rng.choice([name for name, baseline in BASELINES.items() if baseline.wants({}) is None])
    baseline = BASELINES[name]
    return TunedBaseline(
        name, rng.choice(baseline.lr), rng.choice(baseline.weight_decay), rng.choice(SCHEDULES)
    )


def exports(rng: random.Random, folder: Path) -> str:
    """One file, called many times."""
    file = folder / "exported.py"
    file.write_text(candidate_of(rng).source("Evolved", {}), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported", file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    refused = sum(not called(module, rng) for _ in range(CALLS))
    return "refused" if refused > CALLS // 4 else "worked"


def called(module: Any, rng: random.Random) -> bool:
    """Whether a call with hostile arguments works, in that all weights stay numbers; else it is refused."""
    params = weights(rng)
    names = [*module.Evolved(weights(random.Random(0))).RANGES]
    bad = {rng.choice(names): value(rng) for _ in range(rng.choice((1, 1, 2)))}
    try:
        optimizer = made(module, params, bad, rng)
        schedule = module.scheduler(optimizer, rng.choice(NUMBERS) if rng.random() < 0.2 else 10)
        for step in range(3):
            for p in params:
                if p.requires_grad:
                    draw = torch.Generator().manual_seed(rng.randrange(2**31) + step)
                    p.grad = torch.randn(p.shape, generator=draw).to(p.dtype)
            optimizer.step()
            schedule.step()
    except REFUSED as error:
        if not str(error).strip():
            raise Fault(f"{bad} is refused without a word") from error
        return False
    if not all(torch.isfinite(p).all() for p in params):
        raise Fault(f"{bad} gives {[p.tolist() for p in params]}")
    return True


def made(module: Any, params: list[nn.Parameter], bad: dict[str, Any], rng: random.Random) -> Any:
    """An optimizer that met the arguments in one of the ways in which they come."""
    ways: list[Callable[[], Any]] = [
        lambda: module.Evolved(params, **bad),
        lambda: module.Evolved([{"params": params, **bad}]),
        lambda: later(module, params, bad),
        lambda: loaded(module, params, bad),
        lambda: module.Evolved(strange(params, rng)),
    ]
    return rng.choice(ways)()


def later(module: Any, params: list[nn.Parameter], bad: dict[str, Any]) -> Any:
    optimizer = module.Evolved(params[:1])
    optimizer.add_param_group({"params": params[1:], **bad})
    return optimizer


def loaded(module: Any, params: list[nn.Parameter], bad: dict[str, Any]) -> Any:
    optimizer = module.Evolved(params)
    state = optimizer.state_dict()
    state["param_groups"][0].update(bad)
    optimizer.load_state_dict(state)
    return optimizer


def value(rng: random.Random) -> Any:
    """A number that is none, or a pair or three of such."""
    several = rng.choice((0, 0, 2, 2, 3))
    return tuple(rng.choice(NUMBERS) for _ in range(several)) if several else rng.choice(NUMBERS)


def strange(params: list[nn.Parameter], rng: random.Random) -> Any:
    """Parameters in a form that is taken, or not."""

    def some() -> Iterator[nn.Parameter]:
        yield from params

    forms: list[Any] = [
        *([], None, "params", 3, params[0], set(params), dict.fromkeys("ab", params), [None], some()),
        *(
            [{"params": []}],
            [{}],
            [("a", params[0]), *params[1:]],
            [(str(i), p) for i, p in enumerate(params)],
        ),
        *([params], [p.detach().clone() for p in params], tuple(params), [{"params": some()}]),
    ]
    return rng.choice(forms)


def weights(rng: random.Random) -> list[nn.Parameter]:
    """Small parameters of one or several dtypes."""
    dtypes = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
    draw = torch.Generator().manual_seed(rng.randrange(2**31))
    return [
        nn.Parameter(torch.randn(shape, generator=draw).to(rng.choice(dtypes)))
        for shape in ((4, 3), (5,), (2, 3, 2, 2))
    ]
