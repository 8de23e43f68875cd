"""The warmup and cosine genes as a plain function of the step. Pure Python."""

from __future__ import annotations

import math


class WarmupCosine:
    """The factor on the learning rate at step t = 0, 1, …

    Warmup gives (t + 1)/warmup_steps while t < warmup_steps; cosine decay gives ½(1 + cos(πt/total_steps));
    with both, their product. From t = total_steps on the factor stays where it is (0 with cosine decay).
    An object rather than a closure, so that a scheduler holding it can be pickled.

    Args:
        total_steps: Length of the run in optimizer steps, ≥ 1.
        warmup_steps: Steps of linear warmup, 0 for none.
        cosine: Whether to decay along half a cosine.

    Raises:
        ValueError: `total_steps` is below 1 or not finite, or `warmup_steps` below 0.
    """

    def __init__(self, total_steps: int, *, warmup_steps: int = 0, cosine: bool = False) -> None:
        if not 1 <= total_steps < math.inf:
            raise ValueError(f"Invalid total_steps: {total_steps}, expected at least 1")
        if warmup_steps < 0:
            raise ValueError(f"Invalid warmup_steps: {warmup_steps}, expected at least 0")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.cosine = cosine

    def __call__(self, step: int) -> float:
        factor = 1.0
        if step < self.warmup_steps:
            factor = (step + 1) / self.warmup_steps
        if self.cosine:
            position = min(step, self.total_steps) / self.total_steps
            factor *= 0.5 * (1 + math.cos(math.pi * position))
        return factor

    def __repr__(self) -> str:
        return f"WarmupCosine({self.total_steps}, warmup_steps={self.warmup_steps}, cosine={self.cosine})"
