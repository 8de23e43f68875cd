"""What a search space is: Optuna distributions, a prior, presets, and how candidates vary.

Nothing here or in a space's module imports torch; a candidate does when it is built or asked for its gate, as
it is by a space of viable individuals with every draw.
"""

from __future__ import annotations

import abc
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optevo.optim.candidate import Candidate, Stacked, Variants

if TYPE_CHECKING:
    from optuna.trial import Trial
    from torch import Tensor

Params = dict[str, Any]

ATTEMPTS = 200  # draws for one viable individual


class Space(abc.ABC):
    """A search space.

    `sample` and `vary` take and return flat parameters, always all of them, and draw from the generator that
    they are given and from nothing else.

    A space may be define-by-run: `suggest` then asks for those parameters alone that a candidate expresses.
    What else an individual has, to be expressed by its descendants, are *dormant* parameters: JSON-ready
    values under names that are not in `distributions`. Samplers that breed keep them with the trial.

    Attributes:
        name: Its kind, as a study file names it.
        title: What is searched, for people.
        evolves: Whether `vary` breeds children. Default: False.
        n_parents: How many parents a child has. Default: 2.
        only_viable: Whether `sample` and `vary` draw until a candidate passes its gate. Default: False.
        package: The package, besides torch, whose version a study's numbers depend on. Default: None.
        part_names: What `parts` counts, in order. Default: nothing.
        own_rate: Why a study's learning-rate trials are not for its candidates; None for candidates that take
            a rate, see `Candidate.at_rate`. Default: they have rates of their own.
        needs_rates: Whether its candidates train at no other rate than one of such trials. Default: False.
        warm_starts: What other studies have found, by name, as points of this space. Default: nothing.

    Example:
        >>> import numpy as np
        >>> from optevo.spaces import TermSpace  # one of them
        >>> space, rng = TermSpace(), np.random.default_rng(0)
        >>> parents = [space.sample(rng), space.presets()["adamw"]]
        >>> child = space.candidate(space.vary(parents, rng, decay=1.0))
    """

    name: str
    title: str
    evolves = False
    n_parents = 2
    only_viable = False
    package: str | None = None
    part_names: tuple[str, ...] = ()
    own_rate: str | None = "candidates have a learning rate of their own; leave the trials out"
    needs_rates = False
    warm_starts: Mapping[str, Params] = MappingProxyType({})

    @abc.abstractmethod
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter that a trial may suggest, by name, in a fixed order."""

    @abc.abstractmethod
    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """The candidate that `params` stand for; ValueError where a stored one is missing or out of range."""

    def gates(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """`Candidate.gate` of each; a space that can ask many at once does. Default: one after another."""
        return [candidate.gate() for candidate in candidates]

    def whole(self, params: Mapping[str, Any]) -> bool:
        """Whether parameters make a candidate. Default: all of `distributions` are there."""
        return self._names <= params.keys()

    def dormant_fault(self, dormant: Params) -> str | None:
        """What is wrong with stored dormant parameters; None where nothing is. Default: None."""
        return None

    def identity(self, params: Params) -> int:
        """A number that individuals share, within one process, that are not worth two evaluations.

        Args:
            params: Whole ones. Default: individuals are as different as their parameters, see `identity`.
        """
        return identity(params)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.distributions())

    def presets(self) -> dict[str, Params]:
        """Known candidates by name; none by default."""
        return {}

    def starts(self) -> dict[str, Params]:
        """What a search begins with, by name: the presets, then the warm starts."""
        return {**self.presets(), **self.warm_starts}

    def express(self, candidate: Candidate, steps: int) -> Params:
        """The parameters of a candidate that may be another space's.

        Args:
            candidate: Of any space.
            steps: Training steps of a run, where a schedule's length is a number of them.

        Raises:
            ValueError: The space cannot express it, and why. Default: it can express none.
        """
        raise ValueError(f"the space {self.name!r} takes no {type(candidate).__name__} of another space")

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> Params:
        """A draw from the prior."""

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """A child of `n_parents` parents, or a mutant of one; TypeError where the space does not evolve.

        Args:
            parents: Their parameters.
            rng: All randomness.
            decay: In (0, 1]: scales every probability and width, and anneals over a search.
        """
        raise TypeError(f"the space {self.name!r} does not evolve")

    def viable(self, params: Params) -> Params | None:
        """The parameters of a candidate that passes its gate, repaired where the space knows how; else None.

        Default: as they are, or None. The gate may import torch.
        """
        return params if self.candidate(params).gate() is None else None

    def drawn(self, draw: Callable[[], Params]) -> Params:
        """A draw; where the space asks for viable individuals only, the first of up to 200 that is one.

        For `sample` and `vary`. Where none of them is viable, it is the last.

        Args:
            draw: Makes another with every call.
        """
        if not self.only_viable:
            return draw()
        for _ in range(ATTEMPTS):
            params = draw()
            if (viable := self.viable(params)) is not None:
                return viable
        return params

    def suggest(self, trial: Trial) -> Params:
        """Ask `trial` for every parameter of the space."""
        return {name: suggest(trial, name, d) for name, d in self.distributions().items()}

    def grid(self) -> dict[str, list[float]] | None:
        """The values that a sweep tries, all ≥ 0, by parameter; None, the default, for no sweep."""
        return None

    def rehearse(self) -> None:
        """Find what is wrong with the space before a study begins. Default: nothing is.

        Raises:
            UserError: No candidate of it can train.
        """
        return

    def not_exportable(self) -> str | None:
        """Why no candidate of it can be written as a class; None where all can, the default."""
        return None

    def caveats(self) -> list[str]:
        """What to know of it before believing a comparison, as ends of sentences. Default: nothing."""
        return []

    def parts(self, params: Mapping[Any, Any]) -> Counter[str]:
        """How often each building block is in use in a trial's parameters, complete or not. Default: none."""
        return Counter()

    def expressed(self, params: Params) -> Params:
        """Those of a trial's parameters that its candidate uses. Default: all."""
        return params

    def stack(self, candidates: Sequence[Candidate], steps: int) -> Callable[[Tensor], Stacked] | None:
        """What makes the rules of several candidates as one, so that they can train together.

        Args:
            candidates: K of this space's.
            steps: Training steps of the run.

        Returns:
            A function of the weights, shape (K, P). None, the default: they train one by one.
        """
        return None

    def variants(self, winner: Candidate, tuned: Candidate | None) -> Variants | None:
        """The winner without each of its parts; None where there is nothing to take apart, the default.

        Args:
            winner: Of this space.
            tuned: AdamW as a sweep tuned it, where there is one.
        """
        return None


def identity(params: Params) -> int:
    """A number that equal parameters share, within one process."""
    return hash(repr(sorted(params.items())))  # of the text, since hash(-1) == hash(-2)


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
