"""`StudyConfig`: what a study file may say. Errors name the file, the key, the value and what is expected."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from optevo.errors import UserError
from optevo.optim.baselines.registry import BASELINES
from optevo.optim.terms.presets import PRESETS
from optevo.tasks import TASKS

_MOST_ERRORS = 20  # of one file that a message lists
_KINDS = "'genetic', 'random', 'tpe' or 'grid'"
_SPACES = f"'terms' or a baseline: {', '.join(BASELINES)}"
_TAGS = ("genetic", "random", "tpe", "grid", "terms", "baseline")  # of unions, as pydantic's paths name them
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TermsConfig(_Section):
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


class BaselineConfig(_Section):
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
        values, baseline = dict(data), BASELINES.get(data["kind"])
        if baseline is None:
            raise ValueError(f"space.kind = {data['kind']!r}: expected {_SPACES}")
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
    def _options_fit(self) -> BaselineConfig:
        known = BASELINES[self.kind].options
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(f"options: unknown {name!r}, {self.kind} has {', '.join(known)}")
            if not _is_like(value, known[name]):
                raise ValueError(f"options.{name} = {json.dumps(value)}: expected a value like {known[name]}")
        return self


def _is_like(value: Any, example: Any) -> bool:
    """Whether an option is what its example is: a list of as many finite numbers, a finite number, a flag."""
    if isinstance(example, list):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(example)
            and all(map(_is_like, value, example))
        )
    if isinstance(example, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(example)


def _kind_of_space(data: Any) -> str:
    kind = data.get("kind", "terms") if isinstance(data, dict) else getattr(data, "kind", "terms")
    return "baseline" if isinstance(kind, str) and kind in BASELINES else str(kind)


SpaceConfig = Annotated[
    Annotated[TermsConfig, Tag("terms")] | Annotated[BaselineConfig, Tag("baseline")],
    Discriminator(_kind_of_space),
]


class GeneticConfig(_Section):
    """The genetic algorithm of *Evolving Deep Learning Optimizers*, with its constants as defaults."""

    kind: Literal["genetic"]
    population_size: int = Field(default=50, ge=2, le=100_000)
    n_generations: int = Field(default=50, ge=1, le=100_000)
    n_elites: int = Field(default=3, ge=0)
    tournament_size: int = Field(default=4, ge=1)
    asynchronous: bool = False  # breed from whoever has finished: no waiting, and no repeating

    @model_validator(mode="after")
    def _fits(self) -> GeneticConfig:
        if self.n_elites >= self.population_size:
            raise ValueError(f"n_elites is {self.n_elites}, must be below population_size")
        return self

    @property
    def n_trials(self) -> int:
        """Evaluations of the whole search; elites are not evaluated again."""
        return self.population_size + (self.n_generations - 1) * (self.population_size - self.n_elites)


class TrialsConfig(_Section):
    """Samplers that know no generations: `random` from the space's prior, Optuna's `tpe`."""

    kind: Literal["random", "tpe"]
    n_trials: int = Field(ge=1, le=100_000)


class GridConfig(_Section):
    """Every combination of a baseline's values, by Optuna's `GridSampler`."""

    kind: Literal["grid"]


class TaskConfig(_Section):
    """A task's name, or `module:function` for one's own, with options for it."""

    name: str
    options: dict[str, bool | int | Annotated[float, Field(allow_inf_nan=False)] | str] = {}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS and not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            known = ", ".join(TASKS)
            raise ValueError(f"unknown task {name!r}, expected one of {known} or module:function")
        return name


class EvaluationConfig(_Section):
    """How one trial is scored: every task with every seed."""

    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    steps: int = Field(default=500, ge=1, le=10_000_000)
    seeds: tuple[Seed, ...] = Field(default=(0, 1), min_length=1)
    batch_size: int = Field(default=128, ge=1)
    split: Literal["validation", "test"] = "validation"
    precision: Literal["float32", "bfloat16"] = "float32"
    gate: bool = True  # turn away, untrained, rules that cannot descend
    pruner: Literal["racing", "wilcoxon", "median", "none"] = "racing"
    batch_candidates: int = Field(default=1, ge=1, le=1000)  # so many train as one stacked model

    @field_validator("tasks", mode="before")
    @classmethod
    def _by_name(cls, tasks: Any) -> Any:
        if not isinstance(tasks, (list, tuple)):
            raise ValueError("expected a list of task names or tables with name and options")
        return tuple({"name": task} if isinstance(task, str) else task for task in tasks)

    @field_validator("seeds", mode="before")
    @classmethod
    def _tuple(cls, seeds: Any) -> Any:
        return tuple(seeds) if isinstance(seeds, list) else seeds

    @model_validator(mode="after")
    def _distinct(self) -> EvaluationConfig:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("tasks: a task is named twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is named twice")
        if self.pruner == "wilcoxon" and len(self.tasks) * len(self.seeds) < 5:
            raise ValueError("pruner 'wilcoxon' needs at least 5 runs (tasks × seeds) to find anything")
        if self.batch_candidates > 1 and self.pruner not in ("racing", "none"):
            raise ValueError(f"pruner {self.pruner!r} judges one trial at a time: set batch_candidates = 1")
        return self


class RerunConfig(_Section):
    """How the finished study's best are measured again, on seeds that the search never saw."""

    candidates: int = Field(default=3, ge=0)  # so many of the best go in for it; 0: nothing is measured again
    seeds: int = Field(default=5, ge=2, le=1000)  # runs a task, of every candidate and every preset


class StudyConfig(_Section):
    """One study: a file of these keys and nothing else."""

    name: str = Field(min_length=1, max_length=200)
    seed: Seed = 0
    space: SpaceConfig = TermsConfig()
    sampler: Annotated[GeneticConfig | TrialsConfig | GridConfig, Field(discriminator="kind")]
    evaluation: EvaluationConfig
    rerun: RerunConfig = RerunConfig()

    @field_validator("name")
    @classmethod
    def _no_null_byte(cls, name: str) -> str:
        if "\0" in name:
            raise ValueError("a name has no null byte")
        return name

    @model_validator(mode="after")
    def _space_fits(self) -> StudyConfig:
        if isinstance(self.space, BaselineConfig):
            if self.sampler.kind == "genetic":
                raise ValueError(
                    f"sampler.kind: only the space 'terms' evolves; for {self.space.kind!r} take grid, tpe "
                    "or random"
                )
        elif self.sampler.kind == "grid":
            raise ValueError("sampler.kind: a grid is for a baseline's space, such as space.kind = 'adamw'")
        elif len(self.space.presets) > self.places:
            raise ValueError(
                f"space.presets names {len(self.space.presets)}, the sampler has {self.places} places"
            )
        if self.evaluation.batch_candidates > 1 and getattr(self.sampler, "asynchronous", False):
            raise ValueError(
                "sampler.asynchronous: groups train together, so set evaluation.batch_candidates = 1"
            )
        if self.evaluation.batch_candidates > 1 and self.sampler.kind in ("tpe", "grid"):
            raise ValueError(
                f"evaluation.batch_candidates: {self.sampler.kind} proposes one trial at a time; set it to 1"
            )
        return self

    @property
    def n_trials(self) -> int:
        """Evaluations of the whole study."""
        if isinstance(self.sampler, GridConfig):
            assert isinstance(self.space, BaselineConfig)
            return len(self.space.lr) * len(self.space.weight_decay)
        return self.sampler.n_trials

    @property
    def places(self) -> int:
        """Trials of the first generation; all of them where there are no generations."""
        return self.sampler.population_size if isinstance(self.sampler, GeneticConfig) else self.n_trials

    def fingerprint(self) -> str:
        """A digest of `search`."""
        return hashlib.sha256(json.dumps(self.search(), sort_keys=True).encode()).hexdigest()[:16]

    def search(self) -> dict[str, Any]:
        """What decides the study's genomes and fitness: all but how the best are measured again."""
        return {key: value for key, value in self.to_dict().items() if key != "rerun"}

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return self.model_dump(mode="json")


def load_config(path: Path) -> StudyConfig:
    """Read a study file.

    Raises:
        UserError: There is no such file, it isn't TOML, or a key or value in it is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no study file {path}; studies that come with optevo are in studies/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read study file {path}: {error}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}") from None
    return parse_config(data, str(path))


def parse_config(data: dict[str, Any], source: str) -> StudyConfig:
    """Check a study's keys and values; `source` is what messages call them by.

    Raises:
        UserError: A key or value is wrong.
    """
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        lines = [f"{source}: {_explain(item)}" for item in items[:_MOST_ERRORS]]
        lines += [f"… and {len(items) - _MOST_ERRORS} more"] if len(items) > _MOST_ERRORS else []
        raise UserError("\n".join(lines)) from None


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys in which two plain configurations differ, as ``key: old → new``."""
    before, after = _flatten(old), _flatten(new)
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
        return flat
    return {prefix: json.dumps(value)}


def _explain(item: Any) -> str:
    """One pydantic error as ``key = value: what is wrong``."""
    loc = list(item["loc"])
    if loc[:1] in (["sampler"], ["space"]) and len(loc) > 1 and loc[1] in _TAGS:
        del loc[1]  # the tag of a discriminated union is part of pydantic's path, not of the file's
    where = ".".join(map(str, loc))
    message = item["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}; see the README's section on study files"
    if item["type"] == "missing":
        return f"key {where!r} is missing"
    if item["type"] == "union_tag_invalid":
        kinds = _KINDS if where == "sampler" else _SPACES
        return f"{where}.kind = {item['ctx']['tag']!r}: expected {kinds}"
    if item["type"] == "union_tag_not_found":
        return f"key '{where}.kind' is missing: expected {_KINDS}"
    if not where or isinstance(item["input"], (dict, BaseModel)):
        return f"{where + ': ' if where else ''}{message}"
    return f"{where} = {json.dumps(item['input'], default=str)}: {message}"
