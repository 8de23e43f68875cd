"""`StudyConfig`: what a study file may say. Errors name the file, the key, the value and what is expected."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from optevo.errors import UserError
from optevo.files import read_text
from optevo.samplers import SAMPLERS, SamplerSection
from optevo.samplers.sections import RandomSection
from optevo.spaces import SPACES, Space, SpaceSection, TermSpace
from optevo.spaces.sections import Section, TermsSection
from optevo.tasks import TASKS

_MOST_ERRORS = 20  # of one file that a message lists
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class TaskConfig(Section):
    """A task's name, or `module:function` for one's own, with options for it."""

    name: str
    options: dict[str, bool | int | Annotated[float, Field(allow_inf_nan=False)] | str] = Field(default={})

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS and not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            known = ", ".join(TASKS)
            raise ValueError(f"unknown task {name!r}, expected one of {known} or module:function")
        return name


class EvaluationConfig(Section):
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


class RerunConfig(Section):
    """How the finished study's best are measured again, on seeds that the search never saw."""

    candidates: int = Field(default=3, ge=0)  # so many of the best go in for it; 0: nothing is measured again
    seeds: int = Field(default=5, ge=2, le=1000)  # runs a task, of every candidate and every preset


class StudyConfig(Section):
    """One study: a file of these keys and nothing else; made by `parse_config`, which knows all kinds."""

    name: str = Field(min_length=1, max_length=200)
    seed: Seed = 0
    space: SerializeAsAny[SpaceSection] = TermsSection()
    sampler: SerializeAsAny[SamplerSection]
    evaluation: EvaluationConfig
    rerun: RerunConfig = RerunConfig()

    @field_validator("name")
    @classmethod
    def _no_null_byte(cls, name: str) -> str:
        if "\0" in name:
            raise ValueError("a name has no null byte")
        return name

    @property
    def n_trials(self) -> int:
        """Evaluations of the whole study."""
        return self.sampler.trials(self.make_space())

    def make_space(self) -> Space:
        """The study's space, with its presets."""
        return SPACES[self.space.kind].make(**self.space.model_dump(exclude={"kind"}))

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
        data = tomllib.loads(read_text(path))
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
    values, problems = dict(data), list[str]()
    for key, kinds in (("space", SPACES), ("sampler", SAMPLERS)):
        if key in values:
            values[key], wrong = _section(key, values[key], kinds)
            problems += wrong
    try:
        config = StudyConfig.model_validate(values)
    except ValidationError as error:
        problems += map(_explain, error.errors(include_url=False))
    else:
        problems += [] if problems else _misfits(config)
        if not problems:
            return config
    lines = [f"{source}: {problem}" for problem in problems[:_MOST_ERRORS]]
    lines += [f"… and {len(problems) - _MOST_ERRORS} more"] if len(problems) > _MOST_ERRORS else []
    raise UserError("\n".join(lines)) from None


def _section(key: str, data: Any, kinds: Mapping[str, Any]) -> tuple[Section, list[str]]:
    """A section of the kind that it names, and what is wrong with it; one that is wrong is empty."""
    empty = (TermsSection if key == "space" else RandomSection).model_construct()
    *others, last = map(repr, kinds)
    expected = f"expected {', '.join(others)} or {last}"
    if not isinstance(data, dict):
        return empty, [f"{key} = {json.dumps(data, default=str)}: expected a table"]
    if key == "space":
        data = {"kind": TermSpace.name, **data}
    if "kind" not in data:
        return empty, [f"key '{key}.kind' is missing: {expected}"]
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        return empty, [f"{key}.kind = {str(kind)!r}: {expected}"]
    try:
        return kinds[kind].section.model_validate(data), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return empty, [_explain({**item, "loc": (key, *item["loc"])}) for item in found]


def _misfits(config: StudyConfig) -> list[str]:
    """What does not go together, in a configuration whose parts are right."""
    space = config.make_space()
    try:
        config.sampler.check(space, config.evaluation.batch_candidates)
    except ValueError as error:
        return [str(error)]
    presets, places = len(space.presets()), config.sampler.places(space)
    if presets > places:
        return [f"space.presets names {presets}, the sampler has {places} places"]
    return []


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
    where = ".".join(map(str, item["loc"]))
    message = (
        item["msg"]
        .removeprefix("Value error, ")
        .replace("valid tuple", "valid list")
        .replace("Tuple should", "List should")
    )
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}; see docs/study_files.md"
    if item["type"] == "missing":
        return f"key {where!r} is missing"
    if not where or isinstance(item["input"], (dict, BaseModel)):
        return f"{where + ': ' if where else ''}{message}"
    return f"{where} = {json.dumps(item['input'], default=str)}: {message}"
