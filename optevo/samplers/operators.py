"""Genetic operators as plain functions; all randomness comes in as a generator."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optevo import optuna_private
from optevo.spaces.base import Params, identity

_MOST = sys.float_info.max


class Variation(Protocol):
    """How parameters are drawn, combined and changed; `optevo.spaces.Space` is one."""

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every parameter by name."""

    def sample(self, rng: np.random.Generator) -> Params:
        """A draw from the prior."""

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """A child; `decay` in (0, 1] scales probabilities and widths."""

    def whole(self, params: Mapping[str, Any]) -> bool:
        """Whether nothing of an individual is missing."""

    def identity(self, params: Params) -> int:
        """A number that individuals share that are not worth two evaluations."""


def tournament(population: int, size: int, rng: np.random.Generator) -> int:
    """Index of the winner among `size` distinct members of a population sorted best first."""
    return int(rng.choice(population, size=min(size, population), replace=False).min())


def annealing(generation: int, n_generations: int | None) -> float:
    """How strongly children of parents of `generation` are mutated: from 1 to ½ over a search with an end."""
    if n_generations is None:
        return 1.0
    return 1 - 0.5 * min(generation, n_generations) / n_generations


def unique_child(
    variation: Variation,
    parents: Sequence[Params],
    seen: set[int],
    rng: np.random.Generator,
    *,
    decay: float,
    attempts: int = 20,
) -> Params:
    """A child of the parents that is not in `seen`, or the first attempt where the space is exhausted.

    Without parents the child is a draw from the prior.
    """
    first: Params = {}
    for attempt in range(attempts):
        if not parents or attempt > attempts // 2:  # bred out: look elsewhere
            child = variation.sample(rng)
        else:
            child = variation.vary(parents, rng, decay)
        first = first or child
        if variation.identity(child) not in seen:
            return child
    return first


class Generic:
    """Variation on any Optuna search space.

    Uniform crossover; numbers mutate with 0.35·decay by a Gaussian of σ = 0.1·decay of the width of their
    (log-)transformed range, reflected at its ends; categories are drawn anew with 0.2·decay.

    Args:
        distributions: Parameters by name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = distributions

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Those that it was made with."""
        return self._distributions

    def sample(self, rng: np.random.Generator) -> Params:
        """Every parameter uniform in its (log-)transformed range."""
        return {name: draw(d, rng) for name, d in self._distributions.items()}

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """Each parameter from any parent, drawn anew where none has a valid value; then mutated alone."""
        child = {name: inherit(name, d, parents, rng) for name, d in self._distributions.items()}
        return {name: mutate_value(child[name], d, rng, decay) for name, d in self._distributions.items()}

    def whole(self, params: Mapping[str, Any]) -> bool:
        """Whether all of them are there."""
        return self._distributions.keys() <= params.keys()

    def identity(self, params: Params) -> int:
        """Equal parameters are one individual."""
        return identity(params)


def inherit(name: str, d: BaseDistribution, parents: Sequence[Params], rng: np.random.Generator) -> Any:
    """One parameter from a random parent that has a value valid under `d`, else a draw."""
    options = [p[name] for p in parents if name in p and contains(d, p[name])]
    return options[rng.integers(len(options))] if options else draw(d, rng)


def mutate_value(value: Any, d: BaseDistribution, rng: np.random.Generator, decay: float) -> Any:
    """Maybe a Gaussian step in the transformed range, or another category."""
    if isinstance(d, CategoricalDistribution):
        return draw(d, rng) if rng.random() < 0.2 * decay else value
    if d.single() or rng.random() >= 0.35 * decay:
        return value
    scale = _Scale(d)
    x = scale.place(value) + rng.normal(0, 0.1 * decay)
    x = 1 - abs(1 - abs(x) % 2)  # reflect into [0, 1]
    return scale.value(x)


def draw(d: BaseDistribution, rng: np.random.Generator) -> Any:
    """A value uniform over the choices, or over the (log-)transformed range."""
    if isinstance(d, CategoricalDistribution):
        return d.choices[rng.integers(len(d.choices))]
    return _Scale(d).value(rng.random())


def contains(d: BaseDistribution, value: Any) -> bool:
    """Whether `value` is one that `d` could give."""
    if isinstance(d, CategoricalDistribution):
        same = (c for c in d.choices if type(c) is type(value))
        return any(value == c or (c != c and value != value) for c in same)  # noqa: PLR0124  NaN
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and optuna_private.contains(d, float(value))


def given(name: str, value: Any, d: BaseDistribution) -> Any:
    """A preset's value under `d`.

    Raises:
        ValueError: It lies outside.
    """
    if not contains(d, value):
        raise ValueError(f"Invalid preset: {name} = {value!r} is outside {d}")
    return int(value) if isinstance(d, IntDistribution) else value


class _Scale:
    """A range of numbers as the unit interval, logarithmic where the distribution is.

    Widened by half a step, so that rounding favours no value.
    """

    def __init__(self, d: BaseDistribution) -> None:
        assert isinstance(d, (FloatDistribution, IntDistribution))
        self.d = d
        half = (d.step or 0) / 2
        low, high = max(d.low - half, -_MOST), min(d.high + half, _MOST)
        self.log = d.log and math.log(low) < math.log(high)  # a range of a few floats may have one logarithm
        self.low, self.high = (math.log(low), math.log(high)) if self.log else (float(low), float(high))
        # All that a float can hold is twice as wide as the widest float: then everything is halved.
        self.half = 1.0 if math.isfinite(self.high - self.low) else 0.5
        self.width = self.half * self.high - self.half * self.low

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        x = math.log(value) if self.log else float(value)
        return (self.half * x - self.half * self.low) / self.width if self.width else 0.5

    def value(self, place: float) -> Any:
        """The value at a place from 0 to 1."""
        d, x = self.d, (self.half * self.low + place * self.width) / self.half
        value = math.exp(x) if self.log else x
        if d.step is not None and math.isfinite(steps := (value - d.low) / d.step):
            value = d.low + round(steps) * d.step
        value = min(max(value, d.low), d.high)
        return int(value) if isinstance(d, IntDistribution) else float(value)


def check_presets(
    presets: Sequence[Mapping[str, Any]],
    space: Mapping[str, BaseDistribution],
    dormant: Collection[str] = (),
) -> None:
    """Whether presets are points of a space, as far as they go.

    Args:
        presets: Parameters by name.
        space: What a trial may suggest.
        dormant: Names of parameters that it does not. Default: none.

    Raises:
        ValueError: One has a parameter that the space doesn't have, or a value outside it.
    """
    for preset in presets:
        for name, value in preset.items():
            if name in space:
                given(name, value, space[name])
            elif name not in dormant:
                raise ValueError(f"Invalid preset: the space has no parameter {name!r}")
