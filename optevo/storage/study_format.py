"""How a study is written as text, and read again.

JSON (with Python's NaN and Infinity where a value is not finite): what tells the format, then the study with
an attribute a line, then a trial a line, so that a diff shows what came to it. The distributions of the
parameters are written once. A trial that has all of these parameters lists their values in that order; any
other names what it has, and the distributions in which it differs. What is empty is left out. Floats are the
shortest decimals that give the same float. Times are naive and local to whoever searched, as Optuna's.

All of a study is in it but one attribute, `keys.COPY_OF`: which storage this copy of it was made from. The
same study gives the same bytes.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.study.check import check_study

FORMAT, VERSION = "optevo study", 1
# Of lists and tables in one another. Our own attributes take five; Python copies a thousand no more.
DEEPEST = 100
# What making a study of a file's values may raise.
_WRONG = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)


class Damaged(Exception):
    """What is wrong with a file's text."""


def study_text(study: FrozenStudy, trials: Sequence[FrozenTrial]) -> str:
    shared: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            shared.setdefault(name, distribution)
    user_attrs = {key: value for key, value in study.user_attrs.items() if key != keys.COPY_OF}
    head = {
        "format": FORMAT,
        "version": VERSION,
        "name": study.study_name,
        "directions": [direction.name for direction in study.directions],
    }
    parts = [f"{_json(key)}:{_json(value)}" for key, value in head.items()]
    tables = {
        "user_attrs": by_name(user_attrs),
        "system_attrs": by_name(study.system_attrs),
        "distributions": {name: _plain(one) for name, one in shared.items()},
    }
    for key, table in tables.items():
        lines = (f"{_json(name)}:{_json(value)}" for name, value in table.items())
        parts.append(f"{_json(key)}:{{\n" + ",\n".join(lines) + "\n}")
    parts.append('"trials":[\n' + ",\n".join(_json(_row(trial, shared)) for trial in trials) + "\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _row(trial: FrozenTrial, shared: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A trial as it is written."""
    own = {name: one for name, one in trial.distributions.items() if one != shared[name]}
    whole = trial.params.keys() == shared.keys()
    row = {
        "values": trial.values,
        "params": [trial.params[name] for name in shared] if whole else trial.params,
        "distributions": {name: _plain(one) for name, one in own.items()},
        "start": trial.datetime_start and trial.datetime_start.isoformat(),
        "complete": trial.datetime_complete and trial.datetime_complete.isoformat(),
        "user_attrs": by_name(trial.user_attrs),
        "system_attrs": by_name(trial.system_attrs),
        "intermediate": sorted(trial.intermediate_values.items()),
    }
    written = {key: value for key, value in row.items() if value}
    return {"number": trial.number, "state": trial.state.name, **written}


def parsed(text: str) -> dict[str, Any]:
    """A file's JSON, of a format and version that is known.

    Raises:
        Damaged: It is no JSON, though it begins like our files.
        UserError: It is another file.
    """
    another = UserError("this is no file of `optevo storage save`")
    try:
        data = json.loads(text)
    except RecursionError:
        raise Damaged("it nests lists and tables too deeply") from None
    except ValueError as error:
        if not text.startswith("{"):
            raise another from None
        raise Damaged(f"it is no JSON, perhaps cut off ({error})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise another
    version = data.get("version")
    if type(version) is int and version > VERSION:
        raise UserError(
            f"it has version {version} of the format, this optevo reads up to {VERSION}: install a newer one"
        )
    if type(version) is not int or version < 1:
        raise Damaged(f"its version is {version!r}")
    return data


def study_storage(data: Mapping[str, Any]) -> InMemoryStorage:
    """The study that a file's JSON holds.

    Raises:
        Damaged: Something isn't as `study_text` writes it.
        UserError: It is no study as optevo makes them, see `check_study`.
    """
    if _depth(data) > DEEPEST:
        raise Damaged(f"it nests lists and tables more than {DEEPEST} deep")
    storage, what = InMemoryStorage(), "the study"
    try:
        if data["directions"] != ["MAXIMIZE"]:
            raise ValueError(f"directions is {data['directions']!r}")
        study_id = storage.create_new_study([StudyDirection.MAXIMIZE], _kind(data["name"], str))
        for key, value in _kind(data["user_attrs"], dict).items():
            storage.set_study_user_attr(study_id, key, value)
        for key, value in _kind(data["system_attrs"], dict).items():
            storage.set_study_system_attr(study_id, key, value)
        what = "the distributions"
        shared = {name: _distribution(one) for name, one in _kind(data["distributions"], dict).items()}
        what = "the trials"
        for number, row in enumerate(_kind(data["trials"], list)):
            what = f"trial {number}"
            storage.create_new_trial(study_id, _trial(_kind(row, dict), number, shared))
    except _WRONG as error:
        raise Damaged(f"{what} can't be read ({type(error).__name__}: {str(error)[:200]})") from None
    attrs = storage.get_study_user_attrs(study_id)
    for key in (keys.SCHEMA, keys.CONFIG, keys.FINGERPRINT):
        if key not in attrs:
            raise Damaged(f"the study lacks {key!r}")
    check_study(optuna.load_study(study_name=data["name"], storage=storage))
    return storage


def _trial(row: Mapping[str, Any], number: int, shared: Mapping[str, BaseDistribution]) -> FrozenTrial:
    if type(row["number"]) is not int or row["number"] != number:
        raise ValueError(f"it is called number {row['number']!r}")
    params = row.get("params", {})
    if isinstance(params, list):
        params = dict(zip(shared, params, strict=True))
    own = {name: _distribution(one) for name, one in row.get("distributions", {}).items()}
    times = []
    for key in ("start", "complete"):
        time = datetime.datetime.fromisoformat(row[key]) if key in row else None
        if time is not None and time.tzinfo is not None:
            raise ValueError(f"{key} has a time zone")
        times.append(time)
    steps: dict[int, float] = {}
    for step, value in row.get("intermediate", ()):
        if type(step) is not int or not abs(step) < 2**63:
            raise ValueError(f"an intermediate value is of step {step!r}")
        steps[step] = _kind(value, float)
    values = row.get("values")
    trial = FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState[row["state"]],
        value=None,
        values=None if values is None else [_kind(value, float) for value in values],
        datetime_start=times[0],
        datetime_complete=times[1],
        params=params,
        distributions={name: own.get(name) or shared[name] for name in params},
        user_attrs=_kind(row.get("user_attrs", {}), dict),
        system_attrs=_kind(row.get("system_attrs", {}), dict),
        intermediate_values=steps,
    )
    trial._validate()
    return trial


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, separators=(",", ":"))
    return text


def _plain(distribution: BaseDistribution) -> Any:
    return json.loads(distribution_to_json(distribution))


def _distribution(value: Any) -> BaseDistribution:
    return json_to_distribution(json.dumps(_kind(value, dict)))


def by_name(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """By name, since databases give them in any order."""
    return dict(sorted(attrs.items()))


def _kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected a {kind.__name__}, found {repr(value)[:80]}")
    return value


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))
        ]
        level = [one for values in inner for one in values]
    return deepest
