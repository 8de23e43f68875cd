"""A define-by-run space: one of two numbers is suggested, and the other one sleeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import Trial
from toy_space import Toy

from optevo.spaces import Params, Space
from optevo.spaces.base import suggest

OTHER = {"x": "y", "y": "x"}


class SwitchSpace(Space):
    """Descent at a rate `x`, or with momentum at a rate `y`; `asleep` is the number that is not in use."""

    name, title = "switch", "switches"
    evolves = True

    def distributions(self) -> dict[str, BaseDistribution]:
        number = FloatDistribution(0.0, 6.0)
        return {"kind": CategoricalDistribution(["x", "y"]), "x": number, "y": number}

    def suggest(self, trial: Trial) -> Params:
        distributions = self.distributions()
        kind = suggest(trial, "kind", distributions["kind"])
        return {"kind": kind, kind: suggest(trial, kind, distributions[kind])}

    def candidate(self, params: Mapping[str, Any]) -> Toy:
        return Toy(params[params["kind"]], params["kind"] == "y")

    def whole(self, params: Mapping[str, Any]) -> bool:
        return params.get("kind") in params

    def identity(self, params: Params) -> int:
        return hash((params["kind"], params[params["kind"]]))

    def presets(self) -> dict[str, Params]:
        return {"slow": {"kind": "x", "x": 0.25, "asleep": 0.75}}

    def sample(self, rng: np.random.Generator) -> Params:
        kind = ("x", "y")[rng.integers(2)]
        return {"kind": kind, kind: float(rng.uniform(0, 6)), "asleep": float(rng.uniform(0, 6))}

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """Another number, or the sleeping one instead of it."""
        parent = parents[rng.integers(len(parents))]
        kind = parent["kind"]
        if rng.random() < 0.5:
            return {**parent, kind: float(rng.uniform(0, 6))}
        return {"kind": OTHER[kind], OTHER[kind]: parent["asleep"], "asleep": parent[kind]}
