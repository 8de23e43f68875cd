"""What a study file may say of its sampler: a section a kind, and whether it suits the study's space."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from optevo.spaces.sections import Section

if TYPE_CHECKING:
    from optevo.spaces.base import Space


class SamplerSection(Section):
    """A study file's ``[sampler]``.

    Attributes:
        title: What a search by it is called, for people. Default: "search".
        screens: Whether some generations are only screened, see `SlotSampler.screens`. Default: False.
        extent: The key that says how far a search goes, and with a greater value of which one goes on.
            Default: None, none of the kind goes on.

    Example:
        >>> from optevo.samplers import SamplerSection
        >>> class BestFew(SamplerSection):
        ...     size: int = 20
        ...     def trials(self, space):
        ...         return self.size
        >>> BestFew(kind="best_few", size=8).size
        8
    """

    title: ClassVar[str] = "search"
    screens: ClassVar[bool] = False
    extent: ClassVar[str | None] = None
    kind: str

    @abc.abstractmethod
    def trials(self, space: Space) -> int:
        """Evaluations of the whole study."""

    def places(self, space: Space) -> int:
        """Trials of the first generation. Default: all of them, where there are no generations."""
        return self.trials(space)

    def extended(self, extent: int) -> Self:
        """The search that begins with this one and goes further. Default: `extent` alone is greater."""
        return self.model_copy(update={str(self.extent): extent})

    def resuming(self, stored: Self) -> Self:
        """The same with what a stored search keeps, where this one doesn't say it. Default: nothing."""
        return self

    def check(self, space: Space, group_size: int) -> None:
        """Whether it suits a space, and candidates that train `group_size` at a time.

        Raises:
            ValueError: It doesn't; the message names the key, a line a fault. Default: groups are refused.
        """
        _refuse(self._against_groups(group_size))

    def _against_groups(self, group_size: int) -> list[str]:
        one = f"evaluation.batch_candidates: {self.kind} proposes one trial at a time; set it to 1"
        return [one] if group_size > 1 else []


class GeneticSection(SamplerSection):
    """The genetic algorithm of *Evolving Deep Learning Optimizers*, with its constants as defaults."""

    title = "genetic search"
    extent = "n_generations"
    kind: Literal["genetic"]
    population_size: int = Field(default=50, ge=2, le=100_000)
    n_generations: int = Field(default=50, ge=1, le=100_000)
    n_elites: int = Field(default=3, ge=0, validate_default=True)
    tournament_size: int = Field(default=4, ge=1)
    asynchronous: bool = False  # breed from whoever has finished: no waiting, and no repeating
    # Generations over which mutation weakens. Not stored where it is `n_generations`, the default.
    anneal_over: int | None = Field(default=None, ge=1, le=100_000, exclude_if=lambda span: span is None)

    @field_validator("n_elites")
    @classmethod
    def _fits(cls, n_elites: int, info: ValidationInfo) -> int:
        size = info.data.get("population_size")  # absent where it is wrong itself
        if size is not None and n_elites >= size:
            raise ValueError(f"must be below population_size, which is {size}")
        return n_elites

    def extended(self, extent: int) -> Self:
        """Mutation has weakened over what the search was begun with, and stays as weak as it is then."""
        kept = {"anneal_over": self.anneal_over or self.n_generations}
        return super().extended(extent).model_copy(update=kept)

    def resuming(self, stored: Self) -> Self:
        """The span over which mutation weakens is kept."""
        kept = {"anneal_over": self.anneal_over or stored.anneal_over}
        return self.model_copy(update=kept)

    def trials(self, space: Space) -> int:
        """Elites are not evaluated again."""
        return self.population_size + (self.n_generations - 1) * (self.population_size - self.n_elites)

    def places(self, space: Space) -> int:
        """The population."""
        return self.population_size

    def check(self, space: Space, group_size: int) -> None:
        """The space has to evolve, and an asynchronous search has no groups."""
        faults = _against_still(space)
        if group_size > 1 and self.asynchronous:
            faults.append(
                "sampler.asynchronous: groups train together, so set evaluation.batch_candidates = 1"
            )
        _refuse(faults)


class ParticleSection(SamplerSection):
    """The particles of arXiv 2404.06679, with the constants of its published run as defaults."""

    title = "particle search"
    extent = "n_steps"
    screens = True
    kind: Literal["particle"]
    initial_size: int = Field(default=500, ge=1, le=100_000)
    n_particles: int = Field(default=50, ge=1, le=100_000, validate_default=True)
    n_steps: int = Field(default=5, ge=1, le=100_000)
    n_mutations: int = Field(default=7, ge=1, le=100_000)
    n_attempts: int = Field(default=4, ge=1, le=1000)

    @field_validator("n_particles")
    @classmethod
    def _fits(cls, n_particles: int, info: ValidationInfo) -> int:
        size = info.data.get("initial_size")  # absent where it is wrong itself
        if size is not None and n_particles > size:
            raise ValueError(f"must be at most initial_size, which is {size}")
        return n_particles

    def trials(self, space: Space) -> int:
        """Places: where an individual ends without a value, further attempts at its place come on top."""
        return self.initial_size + self.n_particles * (1 + self.n_steps * self.n_mutations)

    def places(self, space: Space) -> int:
        """The initial population."""
        return self.initial_size

    def check(self, space: Space, group_size: int) -> None:
        """The space has to evolve, and groups are refused."""
        _refuse([*_against_still(space), *self._against_groups(group_size)])


class _TrialsSection(SamplerSection):
    """A sampler that goes on until it is told to stop."""

    extent = "n_trials"
    n_trials: int = Field(ge=1, le=100_000)

    def trials(self, space: Space) -> int:
        """As many as it says."""
        return self.n_trials


class RandomSection(_TrialsSection):
    """Draws from the space's prior."""

    title = "random search"
    kind: Literal["random"]

    def check(self, space: Space, group_size: int) -> None:
        """It suits any."""


class TPESection(_TrialsSection):
    """Optuna's `TPESampler`."""

    title = "TPE search"
    kind: Literal["tpe"]

    def check(self, space: Space, group_size: int) -> None:
        """It draws by itself, from distributions: it knows no gate."""
        viable = "space.viable: tpe draws by itself and knows no gate; set it to false"
        _refuse([*([viable] if space.only_viable else []), *self._against_groups(group_size)])


class GridSection(SamplerSection):
    """Every combination of a sweep's values, by Optuna's `GridSampler`."""

    title = "grid"
    kind: Literal["grid"]

    def trials(self, space: Space) -> int:
        """The points of the grid."""
        return math.prod(map(len, (space.grid() or {}).values()))

    def check(self, space: Space, group_size: int) -> None:
        """The space has to be a sweep."""
        sweep = "sampler.kind: a grid is for a baseline's space, such as space.kind = 'adamw'"
        _refuse([*([sweep] if space.grid() is None else []), *self._against_groups(group_size)])


def _against_still(space: Space) -> list[str]:
    others = "grid, tpe or random" if space.grid() is not None else "tpe or random"
    return [] if space.evolves else [f"sampler.kind: the space {space.name!r} does not evolve; take {others}"]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ValueError("\n".join(faults))
