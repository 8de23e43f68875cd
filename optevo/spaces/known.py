"""Known optimizers side by side in one study, trained by one rule: published equations and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from pydantic import Field, field_validator

from optevo.naming import hint
from optevo.optim.baselines.registry import BASELINES, SCHEDULES, WARMUP_SHARE, TunedBaseline
from optevo.optim.candidate import Candidate
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.presets import PRESETS
from optevo.spaces.base import Params, Space
from optevo.spaces.baselines import BaselineSpace
from optevo.spaces.sections import SpaceSection, refuse, twice

_OPTIMIZER = "optimizer"
_ANY_RATE = 1.0  # which the trials replace


class KnownSpace(Space):
    """Optimizers by name, each of them a preset; their learning rates are what the runs find.

    All have a warmup over the first tenth of the run, then half a cosine, unless their name says another
    schedule.

    Args:
        names: Published equations ("opt1"), others as text ("none g"), baselines ("adam"), or a baseline with
            a schedule of `optevo.optim.baselines.registry.SCHEDULES` ("adam:lr1").
        weight_decay: Of the baselines whose decay is decoupled, ≥ 0; no other has any. Default: 0.

    Raises:
        ValueError: A name is unknown.
    """

    name = "known"
    title = "known optimizers"
    own_rate: str | None = None
    needs_rates = True

    def __init__(self, names: Sequence[str], weight_decay: float = 0.0) -> None:
        for one in names:
            if (fault := name_fault(one)) is not None:
                raise ValueError(fault)
        self.names, self.weight_decay = tuple(names), weight_decay
        spaces = [
            BaselineSpace(one.partition(":")[0], lr=(_ANY_RATE,)) for one in self.names if _is_baseline(one)
        ]
        self._baselines = spaces
        self.package = next((space.package for space in spaces if space.package), None)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Which."""
        return {_OPTIMIZER: CategoricalDistribution(self.names)}

    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """The optimizer of this name.

        Raises:
            ValueError: There is none, or none is named.
        """
        name = params.get(_OPTIMIZER)
        if name not in self.names:
            raise ValueError(f"Invalid {_OPTIMIZER}: {name!r}, expected one of {', '.join(self.names)}")
        if not _is_baseline(name):
            equation = PRESETS[name].equation if name in PRESETS else Equation.parse(name)
            return GraphGenome(equation, warmup=WARMUP_SHARE)
        baseline, _, schedule = name.partition(":")
        decay = self.weight_decay if BASELINES[baseline].decay == "decoupled" else 0.0
        return TunedBaseline(baseline, _ANY_RATE, decay, schedule or "warmup_cosine")

    def presets(self) -> dict[str, Params]:
        """All of them."""
        return {name: {_OPTIMIZER: name} for name in self.names}

    def sample(self, rng: np.random.Generator) -> Params:
        """Any of them."""
        return {_OPTIMIZER: self.names[rng.integers(len(self.names))]}

    def rehearse(self) -> None:
        """Take one step with each baseline."""
        for space in self._baselines:
            space.rehearse()

    def caveats(self) -> list[str]:
        """On what published equations were selected."""
        if not PRESETS.keys() & set(self.names):
            return []
        return ["names published optimizers, which their authors selected on CIFAR-10"]


class KnownSection(SpaceSection):
    """Optimizers by name."""

    kind: Literal["known"]
    names: tuple[str, ...] = Field(min_length=1)
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # where it is decoupled

    @field_validator("names", mode="before")
    @classmethod
    def _known(cls, names: Any) -> Any:
        if not isinstance(names, (list, tuple)):
            raise ValueError('expected a list of names, such as "opt10" or "adam:lr1"')
        faults = [(i, name, fault) for i, name in enumerate(names) if (fault := name_fault(name)) is not None]
        refuse([*((None, names, message) for message in twice(names)), *faults])
        return tuple(names)


def name_fault(name: Any) -> str | None:
    """Why nothing is known by a name; None where something is."""
    baseline, colon, schedule = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon and baseline in PRESETS:
        return None
    if " " in baseline.strip():
        try:
            Equation.parse(name)
        except ValueError as error:
            return str(error)
        return None
    if baseline not in BASELINES:
        known = [*PRESETS, *BASELINES]
        return f"unknown optimizer {name!r}: {hint(str(name), known, 'expected one of ' + ', '.join(known))}"
    if colon and schedule not in SCHEDULES:
        return f"unknown schedule {schedule!r} of {name!r}: {hint(schedule, SCHEDULES)}"
    return None


def _is_baseline(name: str) -> bool:
    return name.partition(":")[0] in BASELINES
