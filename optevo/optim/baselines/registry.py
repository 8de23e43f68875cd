"""A baseline with its tuned numbers and its schedule, as a candidate.

Pure Python until one is built.
"""

from __future__ import annotations

import json
import math
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from optevo.naming import hint
from optevo.optim.baselines.table import BASELINES, STORED_NAMES, Baseline, Option
from optevo.optim.candidate import Candidate
from optevo.optim.learned import LEARNED, LearnedSchedule
from optevo.optim.schedules import ShareSchedule, WarmupCosine
from optevo.scalars import plain

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

__all__ = ["BASELINES", "SCHEDULES", "WARMUP_SHARE", "Baseline", "Option", "Schedule", "TunedBaseline"]

Schedule = Literal[
    "none", "warmup_cosine", "warmup_linear", "lr1", "lr2", "lr3", "lr4", "lr5", "lr6", "lr7", "lr8", "lr9"
]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
WARMUP_SHARE = 0.1  # of a run, before it decays: the published winner warms up over 100 of 1,000 steps


@dataclass(frozen=True)
class TunedBaseline(Candidate):
    """A baseline with its two tuned numbers: a point of a `BaselineSpace`.

    Attributes:
        name: A key of `BASELINES`.
        lr: Learning rate, > 0.
        weight_decay: ≥ 0, coupled or decoupled as the baseline's `decay` says.
        schedule_name: One of `SCHEDULES`: a constant rate; linear warmup over the first tenth of the run
            times half a cosine down to 0; as long a warmup, then a line down to 0; or a learned schedule
            after it, see `optevo.optim.learned`. Default: "none".
        options: Hyperparameters other than the baseline's. Default: none.

    Raises:
        ValueError: A name is unknown or a number out of range.
    """

    name: str
    lr: float
    weight_decay: float
    schedule_name: str = "none"
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if self.name not in BASELINES:
            raise ValueError(f"Invalid name: {self.name!r}, {hint(self.name, BASELINES)}")
        if self.schedule_name not in SCHEDULES:
            raise ValueError(
                f"Invalid schedule_name: {self.schedule_name!r}, {hint(self.schedule_name, SCHEDULES)}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"Invalid learning rate: {self.lr}, expected a finite number > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"Invalid weight_decay: {self.weight_decay}, expected a finite number ≥ 0")

    @property
    def baseline(self) -> Baseline:
        """What it is a point of."""
        return BASELINES[self.name]

    @property
    def by_kind(self) -> bool:  # type: ignore[override]  # a plain attribute of most candidates
        """Whether it takes groups with a `kind`."""
        return self.baseline.by_kind

    @property
    def wants(self) -> str | None:
        """What it must be told besides parameters and gradients; None where a class alone can be it."""
        return self.baseline.wants(self.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the optimizer, but for lr, weight decay and the run's length."""
        merged = {**self.baseline.options, **self.options}
        lists = {name: tuple(value) for name, value in merged.items() if isinstance(value, (list, tuple))}
        return {**merged, **lists, **self.baseline.fixed}

    def optimizer(self, params: Iterable[Any], total_steps: int) -> Optimizer:
        """The optimizer over `params`, for a run of `total_steps` steps."""
        arguments = self.arguments
        if self.baseline.horizon is not None:
            arguments[self.baseline.horizon] = total_steps
        make = pkgutil.resolve_name(self.baseline.factory)
        optimizer: Optimizer = make(params, lr=self.lr, weight_decay=self.weight_decay, **arguments)
        if self.baseline.graph_every:
            optimizer.graph_every = self.baseline.graph_every  # type: ignore[attr-defined]
        return optimizer

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        optimizer = self.optimizer(params, total_steps)
        return optimizer, LambdaLR(optimizer, self.schedule(total_steps))

    def at_rate(self, lr: float) -> TunedBaseline:
        """The same at another learning rate.

        Raises:
            ValueError: It is out of range.
        """
        return replace(self, lr=lr)

    def step_size(self) -> float:
        """The learning rate."""
        return self.lr

    def schedule(self, total_steps: int) -> WarmupCosine | ShareSchedule | LearnedSchedule:
        """The learning-rate factor over a run of `total_steps` steps."""
        if self.schedule_name == "none":
            return WarmupCosine(total_steps)
        warmup_steps = round(WARMUP_SHARE * total_steps)
        if self.schedule_name in LEARNED:
            return LearnedSchedule(self.schedule_name, total_steps, lr=self.lr, warmup_steps=warmup_steps)
        if self.schedule_name == "warmup_linear":
            return ShareSchedule(total_steps, warmup=WARMUP_SHARE, decay="linear")
        return WarmupCosine(total_steps, warmup_steps=warmup_steps, cosine=True)

    def formula(self) -> str:
        """The optimizer's name and update as a line to read."""
        return f"{self.name}: {self.baseline.formula}"

    def describe(self) -> str:
        """The hyperparameters as one line."""
        options = {**self.baseline.options, **self.options}
        parts = [f"lr {self.lr:.3g}", f"weight decay {self.weight_decay:.3g} ({self.baseline.decay})"]
        parts += [f"{name} {value}" for name, value in options.items()]
        words = "constant rate"
        if self.schedule_name != "none":
            shape = "linear" if self.schedule_name == "warmup_linear" else "cosine"
            words = f"warmup over {WARMUP_SHARE:.0%} of the run and {shape} decay"
            words += f", times {self.schedule_name}" if self.schedule_name in LEARNED else ""
        return ", ".join([*parts, words])

    def canonical(self) -> str:
        """A string that two of them share only when they are the same optimizer with the same schedule."""
        form = {
            "optimizer": STORED_NAMES.get(self.name, self.name),
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule_name,
            **self.baseline.fixed,
            **self.baseline.options,
            **self.options,
        }
        return json.dumps(form, sort_keys=True, separators=(",", ":"))

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """The tuned optimizer as one Python file, see `optevo.optim.baselines.export.export_baseline`."""
        from optevo.optim.baselines.export import export_baseline  # noqa: PLC0415  torch only where it is needed

        return export_baseline(self, class_name=class_name, provenance=provenance)
