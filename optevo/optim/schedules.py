"""Learning rates and momentum over a run, as plain functions of the step. Pure Python."""

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
        ValueError: `total_steps` is below 1 or no count of steps, or `warmup_steps` below 0.

    Example:
        >>> factor = WarmupCosine(1000, warmup_steps=100, cosine=True)
        >>> factor(0), factor(500), factor(1000)
        (0.01, 0.5, 0.0)
    """

    def __init__(self, total_steps: int, *, warmup_steps: int = 0, cosine: bool = False) -> None:
        if not 1 <= total_steps < 1e15:
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


class WarmupHoldCosine:
    """The factor on the learning rate at step t = 0, 1, …: warmup, hold, half a cosine.

    Source: arXiv 2404.06679. It is t/warmup_steps while t < warmup_steps, so 0 at step 0; then 1 for
    hold_steps; then ½(1 + cos(π·s)), s going from 0 to 1 over the rest of the run. From t = total_steps on
    the factor is 0. Exported files hold the class as it stands here, with `math` alone.

    Args:
        total_steps: Length of the run in optimizer steps, ≥ 1.
        warmup_steps: Steps of linear warmup. Default: 0, none.
        hold_steps: Steps at the peak after it. Default: 0.

    Raises:
        ValueError: `total_steps` is below 1, or the others are below 0 or together more than it.
    """

    def __init__(self, total_steps: int, *, warmup_steps: int = 0, hold_steps: int = 0) -> None:
        if not 1 <= total_steps < 1e15:
            raise ValueError(f"Invalid total_steps: {total_steps}, expected at least 1")
        for name, steps in (("warmup_steps", warmup_steps), ("hold_steps", hold_steps)):
            if not 0 <= steps <= total_steps:
                raise ValueError(f"Invalid {name}: {steps}, expected 0 to {total_steps}, the whole run")
        if warmup_steps + hold_steps > total_steps:
            raise ValueError(
                f"Invalid hold_steps: {hold_steps}, expected at most {total_steps - warmup_steps}, what "
                f"{warmup_steps} steps of warmup leave of {total_steps}"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.hold_steps = hold_steps

    def __call__(self, step: int) -> float:
        held_to = self.warmup_steps + self.hold_steps
        if step >= self.total_steps:
            return 0.0
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if step <= held_to:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - held_to) / (self.total_steps - held_to)))

    def __repr__(self) -> str:
        steps = f"warmup_steps={self.warmup_steps}, hold_steps={self.hold_steps}"
        return f"{type(self).__name__}({self.total_steps}, {steps})"


class OneCycleMomentum(WarmupHoldCosine):
    """The momentum coefficient at step t = 0, 1, …: down from 0.95 to 0.85 in the warmup, held, and up again.

    Source: arXiv 2404.06679. Both ways are straight lines that have their end points, one value a
    step; a line of one step is its first point. From t = total_steps on it stays at its last value.
    Exported files hold the class as it stands here.

    Arguments and errors are those of `WarmupHoldCosine`.
    """

    def __call__(self, step: int) -> float:
        step, high, low = min(step, self.total_steps - 1), 0.95, 0.85
        held_to = self.warmup_steps + self.hold_steps
        if step < self.warmup_steps:
            return high + (low - high) * step / max(1, self.warmup_steps - 1)
        if step < held_to:
            return low
        return low + (high - low) * (step - held_to) / max(1, self.total_steps - held_to - 1)


#: Names of what a `ShareSchedule` may do after its hold.
DECAYS = ("none", "cosine", "linear", "sqrt")


class ShareSchedule:
    """The factor on the learning rate at step t = 0, 1, …: warmup, hold, decay, as shares of the run.

    Warmup gives (t + 1)/warmup_steps; then it is 1 over the hold; then it falls to `final`, s going from 0
    to 1 over the rest of the run: along ½(1 + cos(π·s)), 1 − s or 1 − √s. From t = total_steps on it stays at
    its last value. Exported files hold the class as it stands here, with `math` alone.

    Args:
        total_steps: Length of the run in optimizer steps, ≥ 1.
        warmup: Share of the run, rounded to steps. Default: 0.
        hold: Share of the run after that, likewise. Default: 0.
        decay: "none", which holds to the end, "cosine", "linear" or "sqrt". Default: "cosine".
        final: What it falls to, 0 to 1. Default: 0.

    Raises:
        ValueError: An argument is out of range, or the shares are together above 1.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        warmup: float = 0.0,
        hold: float = 0.0,
        decay: str = "cosine",
        final: float = 0.0,
    ) -> None:
        if not 1 <= total_steps < 1e15:
            raise ValueError(f"Invalid total_steps: {total_steps}, expected at least 1")
        for name, share in (("warmup", warmup), ("hold", hold), ("final", final)):
            if not 0 <= share <= 1:
                raise ValueError(f"Invalid {name}: {share}, expected 0 to 1")
        if warmup + hold > 1:
            raise ValueError(f"Invalid hold: {hold}, expected at most {1 - warmup:g}, what warmup leaves")
        if decay not in ("none", "cosine", "linear", "sqrt"):
            raise ValueError(f"Invalid decay: {decay!r}, expected 'none', 'cosine', 'linear' or 'sqrt'")
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps)
        self.held_to = max(self.warmup_steps, round((warmup + hold) * total_steps))
        self.decay = decay
        self.final = final

    def __call__(self, step: int) -> float:
        step = min(step, self.total_steps)
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if step <= self.held_to or self.decay == "none":
            return 1.0
        s = (step - self.held_to) / (self.total_steps - self.held_to)
        left = 1 - s
        if self.decay == "cosine":
            left = 0.5 * (1 + math.cos(math.pi * s))
        elif self.decay == "sqrt":
            left = 1 - math.sqrt(s)
        return self.final + (1 - self.final) * left

    def __repr__(self) -> str:
        parts = f"warmup_steps={self.warmup_steps}, held_to={self.held_to}, decay={self.decay!r}"
        return f"{type(self).__name__}({self.total_steps}, {parts}, final={self.final:g})"
