"""The gate of equations: the shifted sphere, at six learning rates and with both signs.

Source: arXiv 2404.06679. f(x) = Σ (x − b)² in five dimensions from f = 7.15, passed at f < 3.5 after 34
updates under the base schedule, with decays over 35 steps. Dropout is the identity here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch

from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.program import program
from optevo.optim.schedules import OneCycleMomentum, WarmupHoldCosine

START = (1.1, 0.9, 1.1, 0.9, 1.0)
CENTRE = (0.5, 1.5, -0.3, -1.2, 0.75)
RATES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
STEPS, WARMUP = 35, 6
PASSED = 3.5  # f at the start is 7.1525


def sphere(equation: Equation) -> tuple[list[float], list[float]]:
    """f at each of `RATES` before the last of 35 updates: with U, and with −U; NaN or ∞ as it comes.

    Args:
        equation: Whether it is negated makes no difference.
    """
    return _sphere(replace(equation.normal(), negated=False).text())


def sign(equation: Equation) -> bool | None:
    """Whether the update must be negated to descend: False where U passes, True where −U does, else None."""
    plain, flipped = sphere(equation)
    if any(value < PASSED for value in plain):  # NaN compares false
        return False
    return True if any(value < PASSED for value in flipped) else None


def gate(equation: Equation) -> str | None:
    """Why `equation`, with the sign it has, cannot descend; None where it can. Takes milliseconds."""
    values = sphere(equation)[equation.negated]
    if any(value < PASSED for value in values):
        return None
    best = min((value for value in values if math.isfinite(value)), default=math.inf)
    return f"gate: cannot descend; at best the shifted sphere goes from 7.15 to {best:.4g}"


@functools.lru_cache(maxsize=4096)
def _sphere(text: str) -> tuple[list[float], list[float]]:
    rule = program(text, draws=False)
    rate = torch.tensor([*RATES, *(-rate for rate in RATES)], dtype=torch.float64, device="cpu").unsqueeze(1)
    centre = torch.tensor(CENTRE, dtype=torch.float64, device="cpu")
    x = torch.tensor(START, dtype=torch.float64, device="cpu").repeat(len(rate), 1)
    states = [torch.zeros_like(x) for _ in rule.states]
    factor, momentum = (
        WarmupHoldCosine(STEPS, warmup_steps=WARMUP),
        OneCycleMomentum(STEPS, warmup_steps=WARMUP),
    )
    tables = rule.tables(STEPS)
    for t in range(STEPS - 1):
        numbers = (momentum(t), t + 1, *(table[t] for table in tables))
        rule.update(x, 2 * (x - centre), *states, rate * factor(t), *numbers, None)
    values = (x - centre).square().sum(dim=1).tolist()
    return values[: len(RATES)], values[len(RATES) :]
