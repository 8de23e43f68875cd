"""A second search space: one file and one registration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from optevo.optim.candidate import WINNER, Candidate, Variants
from optevo.spaces import SPACES, Params, Space, SpaceKind, SpaceSection


@dataclass(frozen=True)
class Toy(Candidate):
    """`torch.optim.SGD` with a rate, and momentum or none."""

    lr: float
    momentum: bool

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Any, Any]:
        import torch  # noqa: PLC0415

        optimizer = torch.optim.SGD(params, lr=self.lr, momentum=0.9 * self.momentum)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule(total_steps))

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        return lambda step: 1.0

    def formula(self) -> str:
        return "Δ = m" if self.momentum else "Δ = g"

    def describe(self) -> str:
        return f"lr {self.lr:.3g}"

    def canonical(self) -> str:
        return f"toy {self.lr!r} {self.momentum}"

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        return f"RATE = {self.lr!r}\n\n\nclass {class_name}:\n    pass\n\n\ndef scheduler():\n    pass\n"

    def gate(self) -> str | None:
        return "gate: far too fast" if self.lr > 5 else None

    def step_size(self) -> float:
        return self.lr


class ToySection(SpaceSection):
    kind: Literal["toy"]
    fastest: float = 10.0


class ToySpace(Space):
    name, title = "toy", "toys"
    evolves, n_parents = True, 1
    part_names = ("momentum", "gradient")

    def __init__(self, fastest: float = 10.0) -> None:
        self.fastest = fastest

    def distributions(self) -> dict[str, BaseDistribution]:
        rate = FloatDistribution(1e-3, self.fastest, log=True)
        return {"lr": rate, "momentum": CategoricalDistribution([False, True])}

    def candidate(self, params: Mapping[str, Any]) -> Toy:
        return Toy(params["lr"], params["momentum"])

    def presets(self) -> dict[str, Params]:
        return {"slow": {"lr": 0.01, "momentum": False}}

    def sample(self, rng: np.random.Generator) -> Params:
        return {"lr": float(np.exp(rng.uniform(np.log(1e-3), np.log(self.fastest)))), "momentum": True}

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        (parent,) = parents
        return {**parent, "lr": float(np.clip(parent["lr"] * np.exp(rng.normal()), 1e-3, self.fastest))}

    def parts(self, params: Mapping[Any, Any]) -> Counter[str]:
        return Counter(["momentum" if params.get("momentum") else "gradient"])

    def variants(self, winner: Candidate, tuned: Candidate | None) -> Variants:
        assert isinstance(winner, Toy)
        return Variants({WINNER: winner, "ten times slower": replace(winner, lr=winner.lr / 10)})


SPACES["toy"] = SpaceKind(ToySection, ToySpace)
