"""What a study file may say of its search space: a section a kind, checked by pydantic."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from optevo.optim.baselines.registry import BASELINES
from optevo.optim.terms.presets import PRESETS


class Section(BaseModel):
    """A table of a study file: these keys and no others, never changed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SpaceSection(Section):
    """A study file's ``[space]``; the keys besides `kind` are the arguments of the kind's space."""

    kind: str


class TermsSection(SpaceSection):
    """The term genome may vary."""

    kind: Literal["terms"] = "terms"
    presets: tuple[str, ...] = ("sgd", "adam", "adamw", "rmsprop")  # members of generation 0

    @field_validator("presets", mode="before")
    @classmethod
    def _known(cls, names: Any) -> Any:
        if not isinstance(names, (list, tuple)):
            raise ValueError("expected a list of preset names")
        unknown = [name for name in names if not isinstance(name, str) or name not in PRESETS]
        if unknown:
            raise ValueError(f"unknown preset {unknown[0]!r}, expected some of {', '.join(PRESETS)}")
        if len(set(names)) < len(names):
            raise ValueError("a preset is named twice")
        return tuple(names)


class BaselineSection(SpaceSection):
    """One of the usual optimizers, over learning rate × weight decay."""

    kind: str  # one of `BASELINES`, by which this section was chosen
    schedule: Literal["none", "warmup_cosine"] = "none"
    lr: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1)
    weight_decay: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(min_length=1)
    options: dict[str, Any] = {}  # its other hyperparameters, each like the baseline's own

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, data: Any) -> Any:
        # Stored with the study, so that it stays the same when a baseline's own values change.
        values, baseline = dict(data), BASELINES[data["kind"]]
        for name in ("lr", "weight_decay"):
            if name not in values:
                values[name] = getattr(baseline, name)
            elif isinstance(values[name], list):
                values[name] = tuple(values[name])
        return values

    @field_validator("lr", "weight_decay")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a value is named twice")
        return values

    @model_validator(mode="after")
    def _options_fit(self) -> BaselineSection:
        known = BASELINES[self.kind].options
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(f"options: unknown {name!r}, {self.kind} has {', '.join(known)}")
            if not _is_like(value, known[name]):
                raise ValueError(
                    f"options.{name} = {json.dumps(value, default=str)}: expected a value like {known[name]}"
                )
        return self


_HUGE = 1e300


def _is_like(value: Any, example: Any) -> bool:
    """Whether an option is what its example is: a list of as many finite numbers, a finite number, a flag."""
    if isinstance(example, list):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(example)
            and all(map(_is_like, value, example))
        )
    if isinstance(example, float):
        return type(value) in (int, float) and abs(value) < _HUGE  # no NaN, and no integer beyond floats
    return type(value) is type(example)
