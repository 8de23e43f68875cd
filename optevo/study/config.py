"""`StudyConfig`: what a study file may say. Errors name the file, the key, the value and what is expected."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator

from optevo.errors import UserError
from optevo.files import read_text
from optevo.lazy import Extensible
from optevo.naming import hint, nearest
from optevo.samplers import SAMPLERS, SamplerSection
from optevo.samplers.operators import check_presets
from optevo.samplers.sections import RandomSection
from optevo.spaces import SPACES, Space, SpaceSection
from optevo.spaces.base import Params
from optevo.spaces.kinds import DEFAULT, make_space
from optevo.spaces.sections import WHOLE, Section, WarmStart
from optevo.study.bundled import explain_missing, find_study
from optevo.study.evaluation import EvaluationConfig, RatesConfig, ScreeningConfig, Seed, TaskConfig, as_tuple
from optevo.study.stages import Pipeline, Promote, StageConfig, Stages
from optevo.tasks import GIVEN

_MOST_ERRORS = 20  # of one file that a message lists
AFTERWARDS = ("rerun", "promote", "stages")  # keys that are no part of the search


class RerunConfig(Section):
    """How the finished study's best are measured again, on seeds that the search never saw."""

    candidates: int = Field(default=3, ge=0)  # so many of the best go in for it; 0: nothing is measured again
    seeds: int = Field(default=5, ge=2, le=1000)  # runs a task, of every candidate and every preset


class StudyConfig(Section):
    """One study: a file of these keys and nothing else; made by `parse_config`, which knows all kinds."""

    name: str = Field(min_length=1, max_length=200)
    seed: Seed = 0
    space: SerializeAsAny[SpaceSection] = SPACES[DEFAULT].section(kind=DEFAULT)
    sampler: SerializeAsAny[SamplerSection]
    evaluation: EvaluationConfig
    rerun: RerunConfig = RerunConfig()
    promote: Promote | None = Field(default=None, exclude_if=lambda promote: promote is None)
    stages: Stages = Field(default=(), exclude_if=lambda stages: not stages)

    _list = field_validator("stages", mode="before")(as_tuple)

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

    def screened(self) -> StudyConfig | None:
        """The study with the cheap evaluation; None where there is one evaluation only."""
        cheap = self.evaluation.screened()
        return None if cheap is None else self.model_copy(update={"evaluation": cheap})

    def without_screening(self) -> StudyConfig:
        """The study with the full evaluation alone, for whoever measures what a search has found."""
        return self.model_copy(update={"evaluation": self.evaluation.model_copy(update={"screening": None})})

    @property
    def in_process(self) -> bool:
        """Whether a task lives in the Python program that gave its model, so that no other can train it."""
        tasks = [*self.evaluation.tasks, *(task for stage in self.stages for task in stage.tasks or ())]
        return any(task.name == GIVEN for task in tasks)

    @property
    def pipeline(self) -> Pipeline | None:
        """The stages that follow the search, None for a search alone."""
        if self.promote is None or not self.stages:
            return None
        return Pipeline(promote=self.promote, stages=self.stages)

    def staged(self, stage: StageConfig) -> StudyConfig:
        """The study with a stage's evaluation, and without stages."""
        evaluation = stage.evaluation(self.evaluation)
        return self.model_copy(update={"evaluation": evaluation, "promote": None, "stages": ()})

    def make_space(self) -> Space:
        """The study's space, with its presets."""
        return make_space(self.space)

    @property
    def warm_starts(self) -> tuple[WarmStart, ...]:
        """Those presets that other studies have found, or that are awaited from them."""
        return tuple(one for one in getattr(self.space, "presets", ()) if isinstance(one, WarmStart))

    @property
    def awaited(self) -> tuple[WarmStart, ...]:
        """The warm starts that have not been looked up yet."""
        return tuple(start for start in self.warm_starts if start.params is None)

    def with_warm_starts(self, found: Mapping[str, WarmStart]) -> StudyConfig:
        """The same with what was found in the place of what is awaited, by the name of its study."""
        awaited = self.awaited
        presets = tuple(
            found.get(one.study, one) if one in awaited else one for one in getattr(self.space, "presets", ())
        )
        return self.model_copy(update={"space": self.space.model_copy(update={"presets": presets})})

    def fingerprint(self) -> str:
        """A digest of `search`."""
        return hashlib.sha256(json.dumps(self.search(), sort_keys=True).encode()).hexdigest()[:16]

    def search(self) -> dict[str, Any]:
        """What decides the study's genomes and fitness: all but what becomes of the best afterwards."""
        return {key: value for key, value in self.to_dict().items() if key not in AFTERWARDS}

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return self.model_dump(mode="json")


def load_config(path: Path) -> StudyConfig:
    """Read a study file, or the one that comes with optevo under a name such as ``quickstart``.

    Raises:
        UserError: There is no such file, it isn't TOML, or a key or value in it is wrong.
    """
    path = find_study(path)
    return parse_config(_read_toml(path, "study file"), str(path))


def load_stages(path: Path, config: StudyConfig) -> Pipeline:
    """Read a file of stages for a study's best.

    Args:
        path: Of the file, which has `promote` and `[[stages]]` as a study file may have them.
        config: The study, whose evaluation holds where a stage has nothing else.

    Raises:
        UserError: There is no such file, it isn't TOML, or a key or value in it is wrong.
    """
    return parse_stages(_read_toml(path, "file of stages"), str(path), config)


def _read_toml(path: Path, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        there = [str(path.with_name(other.name)) for other in path.parent.glob("*.toml")]
        said = hint(str(path), there, explain_missing(path))
        raise UserError(f"no {what} {path}; {said}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {what} {path}: {error}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}") from None


def parse_config(data: dict[str, Any], source: str) -> StudyConfig:
    """Check a study's keys and values; `source` is what messages call them by.

    Raises:
        UserError: A key or value is wrong.
    """
    values, problems = _with_known_keys(StudyConfig, data, "")
    sections: dict[str, Section] = {"space": SPACES[DEFAULT].section(kind=DEFAULT)}
    for key, kinds in (("space", SPACES), ("sampler", SAMPLERS)):
        if key in values:
            section, wrong = _section(key, values[key], kinds)
            problems += wrong
            if section is None or wrong:
                sections.pop(key, None)
                values[key] = (SPACES[DEFAULT].section if key == "space" else RandomSection).model_construct()
            else:
                sections[key] = values[key] = section
    if len(sections) == 2:
        problems += _misfits(sections["space"], sections["sampler"], values.get("evaluation"))
    try:
        config = StudyConfig.model_validate(values)
    except ValidationError as error:
        problems += _explain(error)
    else:
        problems = problems or _stage_misfits(config, config.promote, config.stages)
        if not problems:
            return config
    raise _told(problems, source)


def parse_stages(data: dict[str, Any], source: str, config: StudyConfig) -> Pipeline:
    """Check the keys and values of stages for a study; `source` is what messages call them by.

    Raises:
        UserError: A key or value is wrong.
    """
    values, problems = _with_known_keys(Pipeline, data, "")
    try:
        pipeline = Pipeline.model_validate(values)
    except ValidationError as error:
        problems += _explain(error)
    else:
        problems = problems or _stage_misfits(config, pipeline.promote, pipeline.stages)
        if not problems:
            return pipeline
    raise _told(problems, source)


def _told(problems: Sequence[str], source: str) -> UserError:
    lines = [f"{source}: {problem}" for problem in problems[:_MOST_ERRORS]]
    lines += [f"… and {len(problems) - _MOST_ERRORS} more"] if len(problems) > _MOST_ERRORS else []
    return UserError("\n".join(lines))


def _with_known_keys(
    model: type[BaseModel], data: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """A table without unknown keys, and what is wrong with those.

    One that was meant for a known key stands for it: what is in it is checked, and nothing is missing.
    """
    fields, values, problems = model.model_fields, dict(data), list[str]()
    for key in [key for key in data if key not in fields]:
        value, near = values.pop(key), nearest(key, fields)
        remedy = (
            f": options belong in '{where}options'" if model is TaskConfig else "; see docs/study_files.md"
        )
        said = remedy if near is None else f": did you mean {where + near!r}?"
        problems.append(f"unknown key {where + key!r}{said}")
        if near is not None:
            values.setdefault(near, value)
    inner: type[BaseModel]
    for key, inner in (("evaluation", EvaluationConfig), ("rerun", RerunConfig)):
        if model is StudyConfig and isinstance(values.get(key), dict):
            values[key], wrong = _with_known_keys(inner, values[key], f"{key}.")
            problems += wrong
    for key, inner in (("rates", RatesConfig), ("screening", ScreeningConfig)):
        evaluates = model in (EvaluationConfig, ScreeningConfig, StageConfig)
        if evaluates and isinstance(values.get(key), dict):
            values[key], wrong = _with_known_keys(inner, values[key], f"{where}{key}.")
            problems += wrong
    for key, inner in (("tasks", TaskConfig), ("stages", StageConfig)):
        if key in fields and isinstance(several := values.get(key), (list, tuple)):
            values[key] = list(several)
            for i, one in enumerate(several):
                if isinstance(one, dict):
                    values[key][i], wrong = _with_known_keys(inner, one, f"{where}{key}.{i}.")
                    problems += wrong
    return values, problems


def _section(key: str, data: Any, kinds: Extensible[Any]) -> tuple[Section | None, list[str]]:
    """A section of the kind that it names, and what is wrong with it."""
    *others, last = map(repr, kinds)
    expected = f"expected {', '.join(others)} or {last}"
    if not isinstance(data, dict):
        return None, [f"{key} = {json.dumps(data, default=str)}: expected a table"]
    values, problems = dict(data), list[str]()
    if "kind" not in values and (meant := nearest("kind", values)) is not None:
        problems.append(f"unknown key '{key}.{meant}': did you mean '{key}.kind'?")
        values["kind"] = values.pop(meant)
    if key == "space":
        values = {"kind": DEFAULT, **values}
    if "kind" not in values:
        return None, [*problems, f"key '{key}.kind' is missing: {expected}"]
    if not isinstance(values["kind"], str) or values["kind"] not in kinds:
        kind = values["kind"]
        meant = nearest(kind, kinds.names())
        said = f"; {kinds.installable}" if meant is None else f"; did you mean {meant!r}?"
        problems.append(f"{key}.kind = {str(kind)!r}: {expected}{said}")
        if meant is None:
            return None, problems
        values["kind"] = meant
    try:
        model = kinds[values["kind"]].section
    except UserError as error:  # another's, which cannot be loaded
        return None, [*problems, f"{key}.kind: {error}"]
    values, unknown = _with_known_keys(model, values, f"{key}.")
    problems += unknown
    try:
        return model.model_validate(values), problems
    except ValidationError as error:
        return None, problems + _explain(error, key)


def _misfits(space_section: Any, sampler: Any, evaluation: Any) -> list[str]:
    """What does not go together, of two sections that are right in themselves."""
    space = make_space(space_section)
    evaluation = evaluation if isinstance(evaluation, dict) else {}
    group_size = evaluation.get("batch_candidates", 1)
    problems = []
    try:
        sampler.check(space, group_size if type(group_size) is int else 1)
    except ValueError as error:
        problems = str(error).split("\n")
    presets, places = len(space.starts()), sampler.places(space)
    # Of a sampler that is none for this space the places are not known.
    if presets > places and not any(problem.startswith("sampler.kind") for problem in problems):
        problems.append(f"space.presets names {presets}, the sampler has {places} places")
    for name, params in space.warm_starts.items():
        if params and (fault := _start_fault(space, params)) is not None:
            problems.append(f"space.presets: {name}: {fault}")
    screening = evaluation.get("screening")
    if screening is not None and not sampler.screens:
        problems.append(
            f"evaluation.screening: the sampler {sampler.kind!r} screens no generation; leave it out"
        )
    inner = screening if isinstance(screening, dict) else {}
    if space.own_rate and not evaluation.get("rates") is inner.get("rates") is None:
        problems.append(f"evaluation.rates: of the space {space.name!r}, {space.own_rate}")
    if space.only_viable and evaluation.get("gate_audit"):
        problems.append(
            "evaluation.gate_audit: individuals of this space are drawn until one passes the gate, so that "
            "none is refused; set space.viable = false, or leave it out"
        )
    if space.needs_rates and evaluation.get("rates") is None:
        problems.append(
            f"key 'evaluation.rates' is missing: of the space {space.name!r}, candidates have no learning "
            "rate of their own; the table says how each run looks for one, and {} has the published numbers"
        )
    return problems


def _stage_misfits(config: StudyConfig, promote: int | None, stages: Sequence[StageConfig]) -> list[str]:
    """What of stages, right in themselves, does not go together, or not with the study."""
    if promote is None:
        missing = "key 'promote' is missing: it says how many of the search's best enter the first stage"
        return [missing] if stages else []
    if not stages:
        return [f"promote = {promote}: there are no [[stages]] that they could enter"]
    problems, space, entering = list[str](), config.make_space(), promote
    for i, stage in enumerate(stages):
        if stage.keep > entering:
            problems.append(f"stages.{i}.keep = {stage.keep}: no more than {entering} enter this stage")
        entering = stage.keep
        if stage.rates is not None and space.own_rate:
            problems.append(f"stages.{i}.rates: of the space {space.name!r}, {space.own_rate}")
        try:
            stage.evaluation(config.evaluation)
        except ValidationError as error:
            problems += _explain(error, "stages", str(i))
    return problems


def _start_fault(space: Space, params: Params) -> str | None:
    """Why the parameters of a warm start are no point of a space; None where they are."""
    known = space.distributions()
    dormant = {name: value for name, value in params.items() if name not in known}
    try:
        check_presets([params], known, dormant)
        space.candidate(params)
    except ValueError as error:
        return str(error)
    return space.dormant_fault(dormant)


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


def _explain(error: ValidationError, *outer: str) -> list[str]:
    """Each fault that pydantic found as ``key = value: what is wrong``."""
    problems, found = [], error.errors(include_url=False)
    for item in found:
        if item["type"] == "too_short" and any(
            other is not item and other["loc"][: len(item["loc"])] == item["loc"] for other in found
        ):
            continue  # of what pydantic left when it had taken out what is wrong
        where = ".".join(map(str, (*outer, *item["loc"])))
        message = item["msg"].removeprefix("Value error, ")
        message = message.replace("valid tuple", "valid list").replace("Tuple should", "List should")
        message = "expected a table" if item["type"] in ("model_type", "dict_type") else message
        if item["type"] == "missing":
            problems.append(f"key {where!r} is missing")
        elif not where or item["type"] == WHOLE or isinstance(item["input"], (dict, BaseModel)):
            problems.append(f"{where + ': ' if where else ''}{message}")
        else:
            problems.append(f"{where} = {json.dumps(item['input'], default=str)}: {message}")
    return problems
