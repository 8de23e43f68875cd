"""What a study file may say of its search space: a section a kind, checked by pydantic."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from optevo.errors import UserError
from optevo.naming import hint
from optevo.optim.baselines.registry import BASELINES, Schedule
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.table import use_term

Catalogue = Literal["published", "modern"]


class Section(BaseModel):
    """A table of a study file: these keys and no others, never changed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# Types of errors: about a list or table, naming what is wrong in it; about something in one.
WHOLE, PART = "whole", "part"


def refuse(faults: Iterable[tuple[str | int | None, Any, str]], *others: InitErrorDetails) -> None:
    """Raise pydantic's error about several parts of a value at once, where a ValueError tells of the first.

    Args:
        faults: The key or index of what is wrong (None for the whole), what is there, and what to say of it.
        *others: What is wrong with it besides.

    Raises:
        ValidationError: There is a fault.
    """
    found = list(others)
    for key, value, message in faults:
        kind = PydanticCustomError(WHOLE if key is None else PART, "{message}", {"message": message})
        found.append({"type": kind, "loc": () if key is None else (key,), "input": value})
    if found:
        raise ValidationError.from_exception_data("faults", found)


def distinct(key: Callable[[Any], Any] = lambda one: one) -> WrapValidator:
    """Annotates a list without repeats; those are told of besides what is wrong with its items.

    Args:
        key: What of an item must not repeat. Default: the item.
    """

    def check(values: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        others: list[Any] = []
        try:
            checked = validate(values)
        except ValidationError as error:
            checked, others = None, list(error.errors(include_url=False))
        repeats = twice(map(key, values)) if isinstance(values, (list, tuple)) else []
        refuse(((None, values, message) for message in repeats), *others)
        return checked

    return WrapValidator(check)


def twice(values: Iterable[Any]) -> list[str]:
    """What is wrong with a list in which something stands twice, once for each such thing."""
    counts = Counter(one if isinstance(one, (str, int, float)) else repr(one) for one in values)
    return [f"{one!r} is named twice" for one, count in counts.items() if count > 1]


class SpaceSection(Section):
    """A study file's ``[space]``; the keys besides `kind` are the arguments of the kind's space.

    Example:
        >>> from optevo.spaces import SpaceSection
        >>> class HeavyBall(SpaceSection):
        ...     fastest: float = 1.0
        >>> HeavyBall(kind="heavy_ball", fastest=0.3).fastest
        0.3
    """

    kind: str


def _preset_fault(name: Any, catalogue: Catalogue | None) -> str | None:
    """Why it is no preset of a catalogue, of any where the catalogue is unknown; None where it is."""
    known: Collection[str] = PRESETS if catalogue == "published" else MODERN_PRESETS
    if isinstance(name, str) and name in known:
        return None
    if isinstance(name, str) and name in MODERN_PRESETS:
        return f'{name!r} is of catalogue = "modern", expected one of {", ".join(known)}'
    return f"unknown preset {name!r}: {hint(name, known)}"


class WarmStart(Section):
    """A preset that another study of the same storage has found.

    A study file names the study. What it has found is filled in when the new study is created, and stored.
    """

    study: str = Field(min_length=1, max_length=200)
    trial: int | None = Field(default=None, exclude_if=lambda trial: trial is None)  # of that study
    params: dict[str, Any] | None = Field(default=None, exclude_if=lambda params: params is None)


def checked_presets(values: Any, fault: Callable[[Any], str | None], expected: str) -> tuple[Any, ...]:
    """A list of presets without repeats, its tables as `WarmStart`.

    Args:
        values: What a study file has.
        fault: What is wrong with a preset that is no table; None where nothing is.
        expected: What messages call the list.

    Raises:
        ValueError: It is no list.
        ValidationError: Something in it is wrong.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"expected a list of {expected}")
    checked, faults = list[Any](), list[tuple[int | None, Any, str]]()
    for i, value in enumerate(values):
        checked.append(value)
        if not isinstance(value, dict):
            message = None if isinstance(value, WarmStart) else fault(value)
            faults += [] if message is None else [(i, value, message)]
            continue
        try:
            checked[i] = WarmStart.model_validate(value)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            where = ".".join(map(str, wrong["loc"]))
            faults.append(
                (i, value, f'expected {{ study = "…" }}; {where} = {wrong["input"]!r}: {wrong["msg"]}')
            )
    studies = [f"study {one.study}" if isinstance(one, WarmStart) else one for one in checked]
    refuse([*((None, values, message) for message in twice(studies)), *faults])
    return tuple(checked)


class TermsSection(SpaceSection):
    """The term genome may vary."""

    kind: Literal["terms"] = "terms"
    # Not stored while published: older studies keep their fingerprint.
    catalogue: Catalogue = Field(default="published", exclude_if=lambda name: name == "published")
    presets: tuple[str | WarmStart, ...] = ("sgd", "adam", "adamw", "rmsprop")  # members of generation 0
    # Draw until one passes the gate. Not stored while false: older studies keep their fingerprint.
    viable: bool = Field(default=False, exclude_if=operator.not_)
    # Of other packages or modules, besides the published catalogue's. Not stored while there are none.
    terms: Annotated[tuple[str, ...], distinct()] = Field(default=(), exclude_if=operator.not_)

    @field_validator("terms", mode="before")
    @classmethod
    def _usable(cls, names: Any, info: ValidationInfo) -> Any:
        if not isinstance(names, (list, tuple)):
            raise ValueError("expected a list of terms")
        if names and info.data.get("catalogue") == "modern":
            raise ValueError('terms join the published catalogue: leave out catalogue = "modern"')
        faults = list[tuple[int | None, Any, str]]()
        for i, name in enumerate(names):
            try:
                use_term(str(name))
            except (UserError, ValueError) as error:
                faults.append((i, name, str(error)))
        refuse(faults)
        return tuple(names)

    @field_validator("presets", mode="before")
    @classmethod
    def _known(cls, names: Any, info: ValidationInfo) -> Any:
        catalogue = info.data.get("catalogue")
        return checked_presets(names, lambda name: _preset_fault(name, catalogue), "preset names")


class BaselineSection(SpaceSection):
    """One of the usual optimizers, over learning rate × weight decay."""

    kind: str  # one of `BASELINES`, by which this section was chosen
    schedule: Schedule = "none"
    lr: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], distinct()] = Field(
        min_length=1
    )
    weight_decay: Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], distinct()] = (
        Field(min_length=1)
    )
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

    @field_validator("options")
    @classmethod
    def _options_fit(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known, faults = BASELINES[info.data["kind"]].options, list[tuple[str | None, Any, str]]()
        for name, value in options.items():
            if name not in known:
                faults.append((None, options, f"unknown {name!r}: {hint(name, known)}"))
            elif not _is_like(value, known[name]):
                faults.append((name, value, f"expected a value like {known[name]}"))
        refuse(faults)
        return options


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
