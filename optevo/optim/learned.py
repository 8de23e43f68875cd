"""The learned learning-rate schedules of arXiv 2404.06679 for any torch optimizer.

>>> import torch
>>> optimizer = torch.optim.AdamW(torch.nn.Linear(4, 2).parameters(), lr=1e-3)
>>> scheduler = learned_scheduler(optimizer, "lr2", total_steps=1000, warmup_steps=100)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from optevo.naming import Registry
from optevo.optim.graphs.decays import Decay, definitions
from optevo.optim.schedules import WarmupHoldCosine

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

#: The factors on the base schedule, by name.
LEARNED: Registry[Decay] = Registry("learned schedule")
LEARNED |= {
    name: Decay.parse(text)
    for name, text in {
        "lr1": "over(erfc(erfc(a4)), dtanh(a8))",
        "lr2": "over(erfc(erfc(a4)), mul(dtanh(a8), dtanh(a4)))",
        "lr3": "over(arctan(a2), mul(dtanh(a10), sqrtabs(dsoftsign(a14x))))",
        "lr4": "over(square(sigmoid(a2)), sigmoid(double(softsign(a1))))",
        "lr5": "over(1, sqrtabs(erf(a11)))",
        "lr6": "over(mul(arctan(a2), erfc(a6)), sqrtabs(dsoftsign(a6)))",
        "lr7": "over(1, sqrtabs(dsoftsign(a10)))",
        "lr8": "div(1, sqrtabs(softsign(arctan(a12))))",
        "lr9": "tanh(max(a10, a6))",
    }.items()
}


def learned(name: str, t: int, total_steps: int) -> float:
    """The learned factor of this name at step t, by itself.

    Raises:
        KeyError: There is none of this name.
    """
    return LEARNED[name].value(t, total_steps)


class LearnedSchedule(WarmupHoldCosine):
    """The factor on the learning rate at step t = 0, 1, …: warmup, hold and cosine times a learned factor.

    The rate is 1e-7 at step 0, and 1e-7 is added to all rates, as published; so the schedule needs to know
    the peak rate. From t = total_steps on the rate stays at those 1e-7.

    Args:
        name: A key of `LEARNED`.
        total_steps: See `WarmupHoldCosine`.
        lr: The learning rate that is multiplied, > 0.
        warmup_steps: See `WarmupHoldCosine`. Default: 0.
        hold_steps: Likewise. Default: 0.

    Raises:
        KeyError: There is no learned schedule of this name.
        ValueError: A number is out of range.

    Example:
        >>> factor = LearnedSchedule("lr1", total_steps=1000, lr=0.1, warmup_steps=100)
        >>> factor(0) < factor(50) < factor(100) < factor(500)
        True
    """

    def __init__(
        self, name: str, total_steps: int, *, lr: float, warmup_steps: int = 0, hold_steps: int = 0
    ) -> None:
        super().__init__(total_steps, warmup_steps=warmup_steps, hold_steps=hold_steps)
        if not 0 < lr < math.inf:
            raise ValueError(f"Invalid learning rate: {lr}, expected a finite number > 0")
        learned(name, 0, total_steps)  # an unknown name is told now
        self.name = name
        self.lr = lr

    def __call__(self, step: int) -> float:
        factor = super().__call__(step)
        if factor:  # else the learned factor may be undefined
            factor *= learned(self.name, step, self.total_steps)
        return (factor if step else 1e-7 / self.lr) + 1e-7 / self.lr


def learned_scheduler(
    optimizer: Optimizer, name: str, total_steps: int, *, warmup_steps: int = 0, hold_steps: int = 0
) -> LambdaLR:
    """A learned schedule for any torch optimizer; step it once a training step.

    Args:
        optimizer: Each of its groups has the schedule with its own learning rate as the peak.
        name: A key of `LEARNED`.
        total_steps: Length of the run in optimizer steps, ≥ 1.
        warmup_steps: Steps of linear warmup. Default: 0.
        hold_steps: Steps at the peak after it. Default: 0.

    Raises:
        KeyError: There is no learned schedule of this name.
        ValueError: A number of steps is out of range, or a group's learning rate is 0.

    Example:
        >>> import torch
        >>> from optevo.optim import learned_scheduler
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> schedule = learned_scheduler(optimizer, "lr5", total_steps=1000, warmup_steps=100)
    """
    from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

    schedules: list[Callable[[int], float]] = [
        LearnedSchedule(
            name,
            total_steps,
            lr=float(group.get("initial_lr", group["lr"])),
            warmup_steps=warmup_steps,
            hold_steps=hold_steps,
        )
        for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, schedules)


def learned_source(name: str) -> str:
    """`LearnedSchedule` as Python for a file that has `math` and no optevo; it knows this name alone."""
    decay = LEARNED[name]
    function = (
        "def learned(name: str, t: int, total_steps: int) -> float:\n"
        f'    """The learned factor {name} of arXiv 2404.06679 at step t."""\n'
        f"    return {decay.source()}"
    )
    classes = (inspect.getsource(one).rstrip() for one in (WarmupHoldCosine, LearnedSchedule))
    return "\n\n\n".join([definitions([decay]), function, *classes])
