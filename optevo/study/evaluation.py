"""`EvaluationConfig`: what a study file may say of how a trial is scored."""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from optevo.naming import hint
from optevo.spaces.sections import Section, distinct
from optevo.tasks import OWN_DATA, TASKS, ScoredTask, get_task, own_data

if TYPE_CHECKING:
    from optevo.tasks import Task

Seed = Annotated[int, Field(ge=0, lt=2**31)]
REPEATABLE = ("racing", "racing_within_runs", "none")  # pruners that compare finished generations, or nobody


def _option(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_option(one) for one in value]
    if type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise ValueError("expected text, a finite number, true or false, or a list of such")


def _absent(value: Any) -> bool:
    return value is None


class TaskConfig(Section):
    """A task's name, or `module:function` for one's own, with options for it; or one's own data by a path."""

    # Not stored where they are absent, so that a study without them keeps its fingerprint.
    kind: str | None = Field(default=None, exclude_if=_absent)
    name: str
    path: str | None = Field(default=None, min_length=1, exclude_if=_absent, validate_default=True)
    options: dict[str, Annotated[Any, AfterValidator(_option)]] = Field(default={})

    @field_validator("kind")
    @classmethod
    def _kind(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in OWN_DATA:
            raise ValueError(f"unknown kind of data: {hint(kind, OWN_DATA)}")
        return kind

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("kind", "") is not None:  # or the kind is wrong
            if not re.fullmatch(r"\w[\w .+-]{0,99}", name) or name in [*TASKS]:
                expected = "expected letters, digits, spaces, '.', '+', '-' and '_'"
                raise ValueError(f"{expected}, and not the name of a built-in task")
            return name
        if name not in TASKS:
            known = TASKS.names()
            expected = f"expected one of {', '.join(known)} or module:function; one's own data have a kind"
            raise ValueError(
                f"unknown task {name!r}: {hint(name, known, f'{expected}; {TASKS.installable}')}"
            )
        return name

    @field_validator("path")
    @classmethod
    def _of_data(cls, path: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind", "")
        if kind and path is None:
            raise ValueError(f"data of the kind {kind!r} have a path")
        if kind is None and path is not None:
            raise ValueError(f"say with kind what lies there: {', '.join(OWN_DATA)}")
        return path

    def make(self) -> Task | ScoredTask:
        """The task, without its data.

        Raises:
            UserError: See `get_task` and `own_data`.
        """
        if self.kind is None:
            return get_task(self.name, **self.options)
        return own_data(self.kind, self.name, str(self.path), self.options)

    def __str__(self) -> str:
        """In a line."""
        given = {"kind": self.kind, "path": self.path}
        told = {key: value for key, value in given.items() if value is not None} | self.options
        return " ".join([self.name, *(f"{key}={value}" for key, value in told.items())])


def _name_of(task: Any) -> Any:
    return task.get("name", task) if isinstance(task, dict) else task


def _tasks_by_name(tasks: Any) -> Any:
    if not isinstance(tasks, (list, tuple)):
        raise ValueError("expected a list of task names or tables with name and options")
    return tuple({"name": task} if isinstance(task, str) else task for task in tasks)


def as_tuple(values: Any) -> Any:
    """A list, as TOML has it, for a field that is a tuple."""
    return tuple(values) if isinstance(values, list) else values


Tasks = Annotated[tuple[TaskConfig, ...], distinct(_name_of)]
Seeds = Annotated[tuple[Seed, ...], distinct()]
Rates = Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], distinct()]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RatesConfig(Section):
    """Every run first looks for its learning rate, see `optevo.training.rates`; defaults as published."""

    first: Rates = Field(default=(10.0, 1e-2, 1e-5), min_length=1)
    more: Rates = (1.0, 1e-1, 1e-3, 1e-4)  # tried where one of the first is no failure
    epochs: int = Field(default=4, ge=1, le=100_000)  # of a trial
    epoch_steps: int = Field(default=200, ge=1, le=10_000_000)
    first_threshold: Share = 0.25  # below it a trial stops, and a run whose first rates all are fails
    patience: int = Field(default=3, ge=1, le=100_000)  # the first epoch after which a trial may stop
    threshold: Share = 0.40  # below it the whole run stops, and one whose best trial is fails
    full_epochs: int = Field(default=40, ge=1, le=100_000)  # of the whole run
    full_patience: int = Field(default=5, ge=1, le=100_000)

    _lists = field_validator("first", "more", mode="before")(as_tuple)

    @field_validator("more")
    @classmethod
    def _others(cls, more: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        for rate in more:
            if rate in info.data.get("first", ()):
                raise ValueError(f"{rate:g} is one of the first")
        return more

    def trial_steps(self, steps: int) -> int:
        """Most steps that the trials of a run of `steps` steps take together; none is longer than the run."""
        return (len(self.first) + len(self.more)) * min(self.epochs * self.epoch_steps, steps)

    def misfit(self, steps: int) -> str | None:
        """Why a run of `steps` steps cannot have such trials."""
        one = self.epochs * self.epoch_steps
        if one > steps:
            return f"a trial of epochs × epoch_steps = {one} steps is longer than the run, which has {steps}"
        if self.full_epochs > steps:
            return f"full_epochs = {self.full_epochs} is more than the run's {steps} steps"
        return None


class _OptionalKeys(Section):
    """A table that is stored without the keys that it lacks.

    So a study without later keys keeps the fingerprint that it had before there were any.
    """

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> Any:
        return {key: value for key, value in handler(self).items() if value is not None}


class ScreeningConfig(_OptionalKeys):
    """What is other in the cheap evaluation of trials that are only screened."""

    tasks: Tasks | None = Field(default=None, min_length=1)
    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    seeds: Seeds | None = Field(default=None, min_length=1)
    batch_size: int | None = Field(default=None, ge=1)
    rates: RatesConfig | None = None

    _named = field_validator("tasks", mode="before")(_tasks_by_name)
    _lists = field_validator("seeds", mode="before")(as_tuple)


class EvaluationConfig(_OptionalKeys):
    """How one trial is scored: every task with every seed."""

    tasks: Tasks = Field(min_length=1)
    steps: int = Field(default=500, ge=1, le=10_000_000)
    seeds: Seeds = Field(default=(0, 1), min_length=1)
    batch_size: int = Field(default=128, ge=1)
    split: Literal["validation", "test"] = "validation"
    precision: Literal["float32", "bfloat16"] = "float32"
    gate: bool = True  # turn away, untrained, rules that cannot descend
    pruner: Literal["racing", "racing_within_runs", "wilcoxon", "median", "none"] = "racing"
    batch_candidates: int = Field(default=1, ge=1, le=1000)  # so many train as one stacked model
    rates: RatesConfig | None = None
    screening: ScreeningConfig | None = None
    # Of those that the gate refuses, the share that is trained all the same; they stay refused.
    gate_audit: float = Field(default=0.0, ge=0, le=1, exclude_if=operator.not_)
    # "flops": as many operations as `steps` steps with AdamW have. Not stored where it is "steps".
    budget: Literal["steps", "flops"] = Field(default="steps", exclude_if=lambda budget: budget == "steps")

    _named = field_validator("tasks", mode="before")(_tasks_by_name)
    _lists = field_validator("seeds", mode="before")(as_tuple)

    # Of each field and those before it, so that one that is wrong hides no other's fault.

    @field_validator("pruner")
    @classmethod
    def _has_runs_enough(cls, pruner: str, info: ValidationInfo) -> str:
        tasks, seeds = (info.data.get(name) for name in ("tasks", "seeds"))
        if pruner == "wilcoxon" and tasks and seeds and len(tasks) * len(seeds) < 5:
            raise ValueError("it needs at least 5 runs (tasks × seeds) to find anything")
        return pruner

    @field_validator("batch_candidates")
    @classmethod
    def _suits_the_pruner(cls, batch_candidates: int, info: ValidationInfo) -> int:
        pruner = info.data.get("pruner", "none")
        if batch_candidates > 1 and pruner not in REPEATABLE:
            raise ValueError(f"pruner {pruner!r} judges one trial at a time: set it to 1")
        return batch_candidates

    @field_validator("rates")
    @classmethod
    def _suit_the_run(cls, rates: RatesConfig | None, info: ValidationInfo) -> RatesConfig | None:
        if rates is not None:
            _refuse_rates(rates, info.data.get("steps"), info)
        return rates

    @field_validator("screening")
    @classmethod
    def _suits_the_rest(cls, screening: ScreeningConfig | None, info: ValidationInfo) -> Any:
        if screening is None:
            return None
        if (pruner := info.data.get("pruner", "none")) not in REPEATABLE:
            raise ValueError(
                f"pruner {pruner!r} would compare screened trials with others: take racing or none"
            )
        rates = screening.rates or info.data.get("rates")
        if rates is not None and (screening.steps or screening.rates):
            _refuse_rates(rates, screening.steps or info.data.get("steps"), info)
        return screening

    @field_validator("gate_audit")
    @classmethod
    def _has_a_gate(cls, share: float, info: ValidationInfo) -> float:
        if share and not info.data.get("gate", True):
            raise ValueError("nothing is refused where evaluation.gate = false: leave one of the two out")
        return share

    @field_validator("budget")
    @classmethod
    def _suits_the_runs(cls, budget: str, info: ValidationInfo) -> str:
        if budget == "flops" and info.data.get("batch_candidates", 1) > 1:
            raise ValueError(
                "candidates that train as one take equally many steps: set evaluation.batch_candidates = 1"
            )
        rates, screening = info.data.get("rates"), info.data.get("screening")
        if budget == "flops" and (rates or (screening and screening.rates)):
            raise ValueError("runs that look for their own rate have a budget of steps: leave the rates out")
        return budget

    @property
    def run_steps(self) -> int:
        """Most training steps of a run, its learning-rate trials included; with flops, of one with AdamW."""
        return self.steps + (self.rates.trial_steps(self.steps) if self.rates else 0)

    def screened(self) -> EvaluationConfig | None:
        """The cheap evaluation; None where there is one evaluation only."""
        if self.screening is None:
            return None
        given = {
            key: value for key in ScreeningConfig.model_fields if (value := getattr(self.screening, key))
        }
        return self.model_copy(update={**given, "screening": None})


def _refuse_rates(rates: RatesConfig, steps: int | None, info: ValidationInfo) -> None:
    """Raise a ValueError where a run cannot have such trials; `steps` is None where it is wrong itself."""
    if info.data.get("pruner") == "racing_within_runs":
        raise ValueError("runs that look for their own rate race as a whole: take the pruner racing")
    if info.data.get("batch_candidates", 1) > 1:
        raise ValueError("runs that look for their own rate train alone: set evaluation.batch_candidates = 1")
    if steps is not None and (problem := rates.misfit(steps)) is not None:
        raise ValueError(problem)
