"""The JSON shapes of what optevo writes to a storage, attribute by attribute."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optevo import keys

Fits = Callable[[Any], bool]


class Shape(NamedTuple):
    """What a stored value must be.

    Attributes:
        fits: Whether a value is so.
        words: The same for people, after "expected".
    """

    fits: Fits
    words: str


# `type(…) is int`, because True is an int to `isinstance`.


def is_count(value: Any) -> bool:
    """A whole number from 0 on that fits a database's integer."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """A finite number."""
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**63


def _is(kind: type) -> Fits:
    return lambda value: type(value) is kind


def _list(of: Fits) -> Fits:
    return lambda value: type(value) is list and all(map(of, value))


def _or_none(of: Fits) -> Fits:
    return lambda value: value is None or of(value)


def _is_slot(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(is_count, value))


def _is_beat(value: Any) -> bool:
    if type(value) is not list or len(value) != 2 or not is_count(value[0]) or type(value[1]) is not str:
        return False
    try:
        return datetime.datetime.fromisoformat(value[1]).tzinfo is not None
    except ValueError:
        return False


def _is_worker(value: Any) -> bool:
    return (
        type(value) is dict
        and type(value.get("host")) is str
        and is_count(value.get("pid"))
        and value["pid"] < 2**31  # the largest that a system call takes
        and is_number(value.get("started"))
        and type(value.get("device", "")) is str
    )


def _is_losses(value: Any) -> bool:
    return type(value) is list and all(loss is None or is_number(loss) for loss in value)


RUN: dict[str, Fits] = {  # the fields of `optevo.training.run.Run`
    "task": _is(str),
    "seed": is_count,
    "fitness": is_number,
    "metric": _or_none(is_number),
    "loss": _or_none(is_number),
    "losses": _is_losses,
    "steps": is_count,
    "seconds": is_number,
    "diverged_at": _or_none(is_count),
}


def _is_run(value: Any) -> bool:
    if type(value) is not dict or value.keys() != RUN.keys():
        return False
    if not all(check(value[name]) for name, check in RUN.items()):
        return False
    return value["diverged_at"] is not None or value["metric"] is not None


RUNS = Shape(_list(_is_run), "a list of runs")
MEASURED = Shape(_is_run, "a run")


def _is_result(value: Any) -> bool:
    return (
        type(value) is dict
        and is_count(value.get("winner"))
        and type(value.get("settings")) is dict
        and type(value.get("rows")) is list
        and bool(value["rows"])
        and all(map(_is_row, value["rows"]))
    )


def _is_row(row: Any) -> bool:
    """A candidate on fresh seeds: every task with the same two or more of them."""
    if type(row) is not dict or type(row.get("name")) is not str or not RUNS.fits(row.get("runs")):
        return False
    if not _or_none(is_number)(row.get("search", "absent")):
        return False
    seeds: dict[str, list[int]] = {}
    for run in row["runs"]:
        seeds.setdefault(run["task"], []).append(run["seed"])
    kinds = {tuple(each) for each in seeds.values()}
    return len(kinds) == 1 and all(len(set(kind)) == len(kind) >= 2 for kind in kinds)


_TABLE = Shape(_is(dict), "a table")
_TEXT = Shape(_is(str), "a text")
_FLAG = Shape(_is(bool), "true or false")
_COUNT = Shape(is_count, "a whole number from 0 on")
_COUNTS = Shape(_list(is_count), "a list of trial numbers")
_NUMBER = Shape(is_number, "a finite number")

STUDY = {
    keys.CONFIG: _TABLE,
    keys.ENVIRONMENT: _TABLE,
    keys.FINGERPRINT: _TEXT,
    keys.COPY_OF: _TEXT,
    keys.COSTS: Shape(lambda v: type(v) is dict and all(map(is_number, v.values())), "a table of numbers"),
    keys.RERUN: Shape(_is_result, "settings, winner and rows of runs"),
}
ACCEPTED = Shape(
    lambda v: type(v) is dict and type(v.get("fingerprint")) is str, "an environment with its fingerprint"
)
FINAL = Shape(
    lambda v: (
        type(v) is dict
        and is_count(v.get("trial"))
        and is_count(v.get("steps"))
        and bool(v.get("seeds"))
        and _list(is_count)(v["seeds"])
        and type(v.get("environment")) is dict
        and type(v.get("form", "")) is str
        and (v.get("worker") is None or _is_worker(v["worker"]))
    ),
    "a table of trial, steps, seeds, environment and, of later versions, form and worker",
)
SYSTEM = {
    keys.CLAIM: Shape(_or_none(_is_slot), "[generation, slot] or null"),
    keys.LATE: _FLAG,
    keys.BEAT: Shape(_is_beat, "[count, time with its zone]"),
    keys.LOST: _TEXT,
}
TRIAL = {
    keys.GENERATION: _COUNT,
    keys.SLOT: _COUNT,
    keys.PARENTS: _COUNTS,
    keys.ORIGIN: _TEXT,
    keys.FORMULA: _TEXT,
    keys.HYPERPARAMETERS: _TEXT,
    keys.CANONICAL: _TEXT,
    keys.RUNS: RUNS,
    keys.FITNESS_PREFIX: _NUMBER,
    keys.SECONDS: _NUMBER,
    keys.TRAINED_STEPS: _COUNT,
    keys.COPIED_FROM: _COUNT,
    keys.COPIED_RUNS: _COUNT,
    keys.DIVERGED_AT: _COUNT,
    keys.PRUNED_BY: _TEXT,
    keys.ERROR: _TEXT,
    keys.ATTEMPTS: _COUNTS,
    keys.INTERRUPTED: _FLAG,
    keys.SURPLUS: _FLAG,
    keys.WORKER: Shape(_is_worker, "a table of host, pid and started"),
}


def domains_of(config: Mapping[str, Any]) -> dict[str, Shape]:
    """What each parameter of a configuration's space may be; nothing for a space that isn't known here."""
    from optevo.spaces import SPACES  # noqa: PLC0415  heavier than the rest of this module

    section = config.get("space")
    known = SPACES.get(str(section.get("kind"))) if isinstance(section, dict) else None
    if known is None:
        return {}
    try:
        checked = known.section.model_validate(section)
    except ValueError:
        return {}  # the configuration is wrong, which others say better
    space = known.make(**checked.model_dump(exclude={"kind"}))
    return {name: _domain(d) for name, d in space.distributions().items()}


def _domain(distribution: Any) -> Shape:
    if hasattr(distribution, "choices"):
        choices = {(type(choice), choice) for choice in distribution.choices}
        words = f"one of {', '.join(map(repr, distribution.choices))}"
        return Shape(lambda v: isinstance(v, (str, int, float)) and (type(v), v) in choices, words)
    kind, low, high = type(distribution.low), distribution.low, distribution.high
    return Shape(lambda v: type(v) is kind and low <= v <= high, f"{kind.__name__} in [{low:g}, {high:g}]")
