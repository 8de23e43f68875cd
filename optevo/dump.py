"""A study as one text file, to be kept in git or sent to somebody, and read back without a loss.

The file is JSON (with Python's NaN and Infinity where a value is not finite): what tells the format, then the
study with an attribute a line, then a trial a line, so that a diff shows what came to it. The distributions
of the parameters are written once. A trial that has all of these parameters lists their values in that order;
any other names what it has, and the distributions in which it differs. What is empty is left out. Floats are
the shortest decimals that give the same float. Times are naive and local to whoever searched, as Optuna's.

All of a study is in it but one attribute, `keys.COPY_OF`: which storage this copy of it was made from.
Trials that were running are in it as such; who loads the file gets them as failed ones, see
`optevo.transfer`. Saving the same study gives the same bytes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from optevo import keys
from optevo.errors import UserError
from optevo.storage import open_storage, shown
from optevo.stored import check_study, plain, readable
from optevo.transfer import content, copy_into, is_cut_off
from optevo.workers import holder

logger = logging.getLogger(__name__)

FORMAT, VERSION = "optevo study", 1
# Of lists and tables in one another. Our own attributes take five; Python copies a thousand no more.
DEEPEST = 100
# What making a study of a file's values may raise.
_WRONG = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)


class _Damaged(Exception):
    """What is wrong with a file's text."""


def save_study(url: str, name: str, path: Path, *, force: bool = False) -> str:
    """Write a study to a file, which is whole or, where anything fails, as it was before.

    Args:
        url: Where the study lies.
        name: Of the study, one of optevo's.
        path: Of the file. One that is there is written over.
        force: Save although workers are at it; what they finish later is missing from the file.

    Returns:
        What was done, a line for the user.

    Raises:
        UserError: There is no such study, it isn't optevo's, it is damaged, workers are at it, or the file
            can't be written. Or see `open_storage`.
    """
    source = open_storage(url)
    found = {study.study_name: study for study in readable("the list of studies", source.get_all_studies)}
    if name not in found:
        there = ", ".join(map(str, found)) or "none at all"
        raise UserError(f"there is no study {name!r} in {shown(url)}; there is {there}")
    study = found[name]
    if keys.FINGERPRINT not in study.user_attrs:
        raise UserError(f"study {name!r} was not made by optevo, or its creation was cut off")
    trials = readable(
        f"the trials of study {name!r}", lambda: source.get_all_trials(study._study_id, deepcopy=False)
    )
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    working = [trial.number for trial in running if holder(trial).state in ("live", "frozen")]
    if working and not force:
        raise UserError(
            f"study {name!r} is being worked on (trials {', '.join(map(str, working))}): "
            "stop its workers, or give --force to save what is there"
        )
    text = _text(study, trials)
    _check_lossless(text, study, trials)
    _write(path, text)
    size = f"{len(text.encode()) / 1000:.0f} kB"
    return f"wrote {path}: study {name!r}, {len(trials)} trials, {size}" + _told(running, "are failed ones")


def load_file(path: Path, url: str) -> str:
    """Bring the study of a file into a storage.

    The study is whole once it has its fingerprint, which is written last; one that was cut off is no study to
    any command, and is replaced when the file is loaded again. What was running counts as failed.

    Args:
        path: Of the file, as `save_study` wrote it.
        url: Where to; a missing database is made.

    Returns:
        What was done, a line for the user.

    Raises:
        UserError: The file can't be read, see `read_study`, or the storage has a study of its name; nothing
            has been written then. Or the storage refuses the study, or see `open_storage`.
    """
    memory = read_study(path)
    (study,) = memory.get_all_studies()
    trials, name = memory.get_all_trials(study._study_id, deepcopy=False), study.study_name
    target = open_storage(url, create=True)
    there = {one.study_name: one for one in readable("the list of studies", target.get_all_studies)}
    if name in there:
        if not is_cut_off(target, there[name]):
            raise UserError(
                f"{shown(url)} has a study {name!r} already; "
                "load into another database, or delete that one first"
            )
        logger.warning("replacing a copy of study %r that was cut off", name)
        target.delete_study(there[name]._study_id)
    try:
        copy_into(memory, study, trials, target, str(path))
    except (StorageInternalError, SQLAlchemyError, ValueError, OverflowError) as error:
        said = plain(f"{type(error).__name__}: {error}"[:200])
        raise UserError(
            f"{shown(url)} can't hold study {name!r} ({said}); what it has of it is no study to any command, "
            "and is replaced when a file is loaded"
        ) from None
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return f"study {name!r}: {len(trials)} trials loaded into {shown(url)}" + _told(
        running, "have failed now"
    )


def read_study(path: Path) -> InMemoryStorage:
    """The study of a file, alone in a storage in memory, for `optuna.load_study` and our own.

    Raises:
        UserError: The file is missing, unreadable, truncated, of another format or a newer version, or what
            it holds is no study of optevo's.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text ({error}); give a file of `optevo storage save`") from None
    try:
        return _storage(_parsed(text, path))
    except _Damaged as error:
        raise UserError(
            f"{path}: {plain(str(error))}; the file is damaged or was changed: "
            "save the study again, or use the file's last good version"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _text(study: FrozenStudy, trials: Sequence[FrozenTrial]) -> str:
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
        "user_attrs": _sorted(user_attrs),
        "system_attrs": _sorted(study.system_attrs),
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
        "user_attrs": _sorted(trial.user_attrs),
        "system_attrs": _sorted(trial.system_attrs),
        "intermediate": sorted(trial.intermediate_values.items()),
    }
    written = {key: value for key, value in row.items() if value}
    return {"number": trial.number, "state": trial.state.name, **written}


def _parsed(text: str, path: Path) -> dict[str, Any]:
    """A file's JSON, of a format and version that is known.

    Raises:
        _Damaged: It is no JSON, though it begins like our files.
        UserError: It is another file.
    """
    another = UserError("this is no file of `optevo storage save`")
    try:
        data = json.loads(text)
    except RecursionError:
        raise _Damaged("it nests lists and tables too deeply") from None
    except ValueError as error:
        if not text.startswith("{"):
            raise another from None
        raise _Damaged(f"it is no JSON, perhaps cut off ({error})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise another
    version = data.get("version")
    if type(version) is int and version > VERSION:
        raise UserError(
            f"it has version {version} of the format, this optevo reads up to {VERSION}: install a newer one"
        )
    if type(version) is not int or version < 1:
        raise _Damaged(f"its version is {version!r}")
    return data


def _storage(data: Mapping[str, Any]) -> InMemoryStorage:
    """The study that a file's JSON holds.

    Raises:
        _Damaged: Something isn't as `_text` writes it.
        UserError: It is no study as optevo makes them, see `check_study`.
    """
    if _depth(data) > DEEPEST:
        raise _Damaged(f"it nests lists and tables more than {DEEPEST} deep")
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
        raise _Damaged(f"{what} can't be read ({type(error).__name__}: {str(error)[:200]})") from None
    attrs = storage.get_study_user_attrs(study_id)
    for key in (keys.SCHEMA, keys.CONFIG, keys.FINGERPRINT):
        if key not in attrs:
            raise _Damaged(f"the study lacks {key!r}")
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


def _check_lossless(text: str, study: FrozenStudy, trials: Sequence[FrozenTrial]) -> None:
    """See that the text gives back what it was made from, before anyone deletes the database.

    Raises:
        UserError: It doesn't; the message says where.
    """
    lost = ""
    try:
        memory = _storage(json.loads(text))
    except _Damaged as error:
        lost = plain(str(error))
    else:
        (again,) = memory.get_all_studies()
        kept = {key: value for key, value in study.user_attrs.items() if key != keys.COPY_OF}
        if repr(_sorted(again.user_attrs)) != repr(_sorted(kept)):
            lost = "the study's attributes would change"
        if repr(_sorted(again.system_attrs)) != repr(_sorted(study.system_attrs)):
            lost = "the study's system attributes would change"
        stored = memory.get_all_trials(again._study_id, deepcopy=False)
        for mine, theirs in zip(stored, trials, strict=True):
            if content(mine) != content(theirs):
                lost = f"trial {theirs.number} would change"
    if lost:
        raise UserError(
            f"study {study.study_name!r} can't be saved without a loss: {lost}; "
            "keep its database, or a copy by `optevo storage copy`"
        )


def _write(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file; give one to write")
    target = Path(os.path.realpath(path))  # a link stays one
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


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


def _sorted(attrs: Mapping[str, Any]) -> dict[str, Any]:
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


def _told(running: Sequence[FrozenTrial], what: str) -> str:
    return f", {len(running)} of them were running and {what}" if running else ""
