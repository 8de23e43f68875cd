"""What a search space is: Optuna distributions, a prior, presets, and how candidates vary.

Nothing here or in a space's module imports torch; a candidate does when it is built.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

if TYPE_CHECKING:
    from optuna.trial import Trial
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Params = dict[str, Any]


class Candidate(Protocol):
    """One point of a space: something that trains."""

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LRScheduler]:
        """Optimizer and scheduler for a run of `total_steps` steps."""

    def formula(self) -> str:
        """The update rule as one line."""

    def describe(self) -> str:
        """The hyperparameters as one line."""

    def step_size(self) -> float:
        """What a step is multiplied by at the peak of the schedule: the learning rate, or more."""

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The factor on the learning rate at each step of a run."""

    def canonical(self) -> str:
        """A string that two candidates share only when they are the same optimizer."""

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """A self-contained Python file that holds the optimizer; ValueError for a useless class name."""


class Space(abc.ABC):
    """A search space; one that evolution can vary has `crossover` and `mutate`.

    `sample`, `crossover` and `mutate` take and return flat parameters, always all of them, and draw from
    the generator that they are given and from nothing else.
    """

    name: str
    title: str  # what is searched, for people
    part_names: tuple[str, ...] = ()  # the building blocks of its candidates, where it has any

    @abc.abstractmethod
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter by name, in the order in which a trial suggests them."""

    @abc.abstractmethod
    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """The candidate that `params` stand for; ValueError where a stored one is missing or out of range."""

    def presets(self) -> dict[str, Params]:
        """Known candidates by name; none by default."""
        return {}

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> Params:
        """A draw from the prior."""

    def crossover(self, first: Params, second: Params, rng: np.random.Generator) -> Params:
        """A child of two parents; TypeError where the space does not evolve."""
        raise TypeError(f"the space {self.name!r} does not evolve")

    def mutate(self, params: Params, rng: np.random.Generator, decay: float) -> Params:
        """A mutant; `decay` in (0, 1] scales every probability and width, and anneals over a search."""
        raise TypeError(f"the space {self.name!r} does not evolve")

    def grid(self) -> dict[str, list[float]] | None:
        """The values of a sweep by parameter; None for a space that is no sweep."""
        return None

    def parts(self, params: Mapping[str, Any]) -> Counter[str]:
        """How often each of `part_names` is in use in a trial's parameters, which may be incomplete."""
        return Counter()

    def suggest(self, trial: Trial) -> Params:
        """Ask `trial` for every parameter of the space."""
        return {name: suggest(trial, name, d) for name, d in self.distributions().items()}


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """`trial.suggest_*` for one distribution."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"parameter {name!r} has a distribution of an unknown kind: {distribution!r}")
