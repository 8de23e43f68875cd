"""A study's configuration out of a file, a table or keyword arguments. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optevo.errors import UserError
from optevo.study.config import StudyConfig, load_config, parse_config

#: A study: a file's path, what such a file holds, or a configuration.
Source = str | Path | Mapping[str, Any] | StudyConfig
#: A section of one: its table, or the kind alone.
Section = str | Mapping[str, Any]
_HERE = "optevo.search()"  # what messages about keyword arguments begin with


def configuration(
    study: Source | None,
    *,
    name: str | None = None,
    seed: int | None = None,
    tasks: str | Sequence[str | Mapping[str, Any]] | None = None,
    generations: int | None = None,
    population: int | None = None,
    trials: int | None = None,
    steps: int | None = None,
    seeds: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    space: Section | None = None,
    sampler: Section | None = None,
    evaluation: Mapping[str, Any] | None = None,
    rerun: Mapping[str, Any] | None = None,
) -> StudyConfig:
    """The configuration that keyword arguments describe, or change; see `optevo.search` for each.

    Raises:
        UserError: A value is wrong, or there are no tasks.
    """
    begun = load_config(Path(study)) if isinstance(study, str | Path) else study
    data = begun.to_dict() if isinstance(begun, StudyConfig) else dict(begun or {})
    given = {"population_size": population, "n_generations": generations, "n_trials": trials}
    listed = [tasks] if isinstance(tasks, str) else None if tasks is None else list(tasks)
    measured = {"tasks": listed, "steps": steps, "seeds": _seeds(seeds), "batch_size": batch_size}
    changes = {
        "space": _table(space),
        "sampler": {**_table(sampler), **_said(given)},
        "evaluation": {**dict(evaluation or {}), **_said(measured)},
        "rerun": dict(rerun or {}),
    }
    for key, change in changes.items():
        if change:
            data[key] = _merged(data.get(key, {}), change)
    data |= _said({"name": name, "seed": seed})
    if isinstance(begun, StudyConfig) and data == begun.to_dict():
        return begun
    if isinstance(data.setdefault("sampler", {}), dict):
        data["sampler"].setdefault("kind", "random" if "n_trials" in data["sampler"] else "genetic")
    if not isinstance(data.get("evaluation"), dict) or "tasks" not in data["evaluation"]:
        raise UserError(
            f"{_HERE}: what shall they train? Give tasks, such as tasks='digits', a study file, or model and "
            "train for a network and data of your own"
        )
    data.setdefault("name", _name(data["evaluation"]["tasks"]))
    return parse_config(data, _HERE)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _table(section: Section | None) -> dict[str, Any]:
    return {"kind": section} if isinstance(section, str) else dict(section or {})


def _merged(section: Any, change: Mapping[str, Any]) -> dict[str, Any]:
    """A section with changes; another kind has other keys, so nothing remains of it."""
    kept = section if isinstance(section, Mapping) else {}
    if "kind" in change and change["kind"] != kept.get("kind", change["kind"]):
        kept = {}
    return {**kept, **change}


def _seeds(seeds: int | Sequence[int] | None) -> list[int] | None:
    if seeds is None:
        return None
    return list(range(seeds)) if isinstance(seeds, int) else list(seeds)


def _name(tasks: Any) -> str:
    """A study's name where nobody gave one: its tasks'."""
    named = [one.get("name", "") if isinstance(one, Mapping) else one for one in tasks]
    return "-".join(str(one).rpartition(":")[2] for one in named)[:200] or "search"
