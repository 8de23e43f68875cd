"""`GraphGenome`: an equation with its learning rate and schedule. Pure Python until an optimizer is built."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optevo.naming import explain_keywords
from optevo.optim.candidate import Candidate, Drawing
from optevo.optim.graphs.drawing import drawing
from optevo.optim.graphs.equation import Equation
from optevo.optim.schedules import WarmupHoldCosine
from optevo.scalars import plain

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from optevo.optim.graphs.optimizer import GraphOptimizer


@explain_keywords
@dataclass(frozen=True)
class GraphGenome(Candidate):
    """An update equation, trained under a base schedule: warmup, hold, cosine decay to 0.

    Attributes:
        equation: The update rule, or its text.
        lr: Learning rate at the peak, > 0. Default: None, to be found: `at_rate` sets it.
        warmup: Share of a run over which the rate rises from 0; above 1, a number of steps. Default: 0.1.
        hold: Share after that over which it stays, or likewise steps. Default: 0.
        fault: Why it cannot train, where whoever made it knows; what `gate` says then. Default: None.

    Raises:
        ValueError: A number is out of range, or the text is none of an equation.

    Example:
        >>> import torch
        >>> from optevo.optim import GraphGenome
        >>> genome = GraphGenome("momentum clip(two,v_hat)").at_rate(0.1)
        >>> optimizer, schedule = genome.build(torch.nn.Linear(4, 2).parameters(), total_steps=1000)
    """

    equation: Equation
    lr: float | None = None
    warmup: float = 0.1
    hold: float = 0.0
    fault: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.equation, Equation):
            object.__setattr__(self, "equation", Equation.parse(self.equation))
        for name in ("lr", "warmup", "hold"):
            value = plain(getattr(self, name))
            if (name, value) != ("lr", None) and type(value) not in (int, float):
                raise ValueError(f"Invalid {name}: {value!r}, expected a number")
            object.__setattr__(self, name, value)
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"Invalid lr: {self.lr}, expected a finite number > 0")
        check_shares(self.warmup, self.hold)

    def at_rate(self, lr: float) -> GraphGenome:
        """The same with this learning rate."""
        return replace(self, lr=lr)

    def optimizer(self, params: Iterable[Any], total_steps: int, **options: Any) -> GraphOptimizer:
        """A `GraphOptimizer` over `params` for a run of `total_steps` steps; options are its constructor's.

        Raises:
            ValueError: There is no learning rate.
        """
        from optevo.optim.graphs.optimizer import GraphOptimizer  # noqa: PLC0415  torch only where it is needed

        lr = options.pop("lr", self.lr)
        if lr is None:
            raise ValueError(
                "Invalid lr: None, the rule has no learning rate of its own; give it one by at_rate(0.1)"
            )
        return GraphOptimizer(
            params,
            self.equation,
            total_steps=total_steps,
            lr=lr,
            warmup=self.warmup,
            hold=self.hold,
            **options,
        )

    def scheduler(self, optimizer: Optimizer, total_steps: int) -> LambdaLR:
        """The base schedule on any optimizer; step it once a training step."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        return LambdaLR(optimizer, self.schedule(total_steps))

    def build(
        self, params: Iterable[Any], total_steps: int, **options: Any
    ) -> tuple[GraphOptimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        optimizer = self.optimizer(params, total_steps, **options)
        return optimizer, self.scheduler(optimizer, total_steps)

    def schedule(self, total_steps: int) -> WarmupHoldCosine:
        """The base schedule; what the equation's decays make of it is not in here."""
        return WarmupHoldCosine(total_steps, **shares(total_steps, self.warmup, self.hold))

    def step_size(self) -> float:
        """The learning rate, NaN where it is to be found."""
        return math.nan if self.lr is None else self.lr

    def formula(self) -> str:
        """The equation's."""
        return self.equation.formula()

    def text(self) -> str:
        """The equation's, which `Equation.parse` and this class read."""
        return self.equation.text()

    def latex(self) -> str:
        """The equation's."""
        return self.equation.latex()

    def drawing(self) -> Drawing:
        """See `optevo.optim.graphs.drawing`."""
        return drawing(self)

    def describe(self) -> str:
        """Rate and schedule on one line."""
        parts = ["lr to be found" if self.lr is None else f"lr {self.lr:.3g}"]
        parts += [f"warmup over {_told(self.warmup)}"] if self.warmup else []
        parts += [f"hold over {_told(self.hold)}"] if self.hold else []
        return ", ".join([*parts, "cosine decay"])

    def canonical(self) -> str:
        """The equation's normal form, with rate and schedule."""
        form = {
            "equation": self.equation.normal().text(),
            "lr": self.lr,
            "warmup": self.warmup,
            "hold": self.hold,
        }
        return json.dumps(form, sort_keys=True, separators=(",", ":"))

    def gate(self) -> str | None:
        """Its fault, else see `optevo.optim.graphs.gate`, which imports torch."""
        if self.fault is not None:
            return self.fault
        from optevo.optim.graphs.gate import gate  # noqa: PLC0415  torch only where it is needed

        return gate(self.equation)

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """The optimizer as one self-contained file, see `optevo.optim.graphs.export.export_graph`."""
        from optevo.optim.graphs.export import export_graph  # noqa: PLC0415  torch only where it is needed

        return export_graph(self, class_name=class_name, provenance=provenance)


def _told(share: float) -> str:
    return f"{share:g} steps" if share > 1 else f"{share:.3g} of the run"


def check_shares(warmup: float, hold: float) -> None:
    """Refuse, with a ValueError, what are no shares of a run or numbers of steps."""
    for name, value in (("warmup", warmup), ("hold", hold)):
        if not 0 <= value < 1e15 or (value > 1 and value != int(value)):
            raise ValueError(f"Invalid {name}: {value}, expected a share of the run or a number of steps")
    if warmup <= 1 and hold <= 1 and warmup + hold > 1:
        raise ValueError(f"Invalid hold: {hold}, expected a share of the run, 0 to {1 - warmup:g}")


def shares(total_steps: int, warmup: float, hold: float) -> dict[str, int]:
    """Steps of warmup and of hold, the arguments of a schedule.

    Args:
        total_steps: Of the run.
        warmup: A share of it, or above 1 a number of steps.
        hold: Likewise; no more than warmup leaves.

    Raises:
        ValueError: `total_steps` is below 1 or no count of steps.
    """
    if not 1 <= total_steps < 1e15:
        raise ValueError(f"Invalid total_steps: {total_steps}, expected at least 1")
    warmup_steps, held = (round(one if one > 1 else one * total_steps) for one in (warmup, hold))
    warmup_steps = min(warmup_steps, total_steps)
    return {"warmup_steps": warmup_steps, "hold_steps": min(held, total_steps - warmup_steps)}
