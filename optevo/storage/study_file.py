"""A study as one text file, to be kept in git or sent to somebody, and read back without a loss.

The file is a journal of Optuna's: JSON, a trial or a study's attribute a line, which `optuna-dashboard FILE`
and Optuna's `JournalStorage` open as it is. Lines are in the order of `optevo.storage.copying.copy_into`: the
fingerprint is the last, so that a file that was cut off lacks it; before it stands a digest of the others.
All of a study is in it but one attribute,
`keys.COPY_OF`; trials that were running are failed ones. The same study gives the same bytes.

Files of earlier versions, one JSON object each, are read as well.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.files import read_text, write_text
from optevo.optuna_private import FrozenStudy, Memory, check_trial, study_id
from optevo.storage.copying import content, copy_into, make_room, running, study_of
from optevo.storage.instants import local
from optevo.storage.opening import open_storage, shown
from optevo.study.check import check_portable
from optevo.study.damage import readable

_CREATE_TRIAL = 4  # of a journal's operations

# What making a study of a file's values may raise.
_WRONG = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)


# A line that is no part of the study: it tells that none of those before it was changed, moved or lost.
_DIGEST_LINE = f'{{"op_code":3,"worker_id":"","study_id":0,"system_attr":{{"{keys.LINES}":'


def _digest_line(lines: Sequence[str]) -> str:
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f'{_DIGEST_LINE}"{digest}"}}}}'


def _parsed(text: str) -> Any:
    """JSON in which no name stands twice, of which one reader takes the first and another the last."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(
                f"{next(name for name in found if names.count(name) > 1)!r} stands twice in one table"
            )
        return found

    return json.loads(text, object_pairs_hook=table)


class _Damaged(Exception):
    """What is wrong with a file's text."""


class _Lines(BaseJournalBackend):
    """A journal in memory: its file is written at once, and no lock is left beside it."""

    def __init__(self, text: str = "") -> None:
        self._lines = text.split("\n")[:-1]  # what ends without a newline is cut off
        digests = [place for place, line in enumerate(self._lines) if line.startswith(_DIGEST_LINE)]
        self.intact = False  # whether the lines are those that were written
        if len(digests) == 1:
            found, before = self._lines.pop(digests[0]), self._lines[: digests[0]]
            self.intact = found == _digest_line(before)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        return map(_parsed, self._lines[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += map(json.dumps, logs)

    def text(self) -> str:
        """The same for the same study: without this process's name, and attributes by name."""
        lines = []
        for log in self.read_logs(0):
            attrs = {
                key: dict(sorted(log[key].items())) for key in ("user_attrs", "system_attrs") if key in log
            }
            lines.append(json.dumps({**log, **attrs, "worker_id": ""}, separators=(",", ":")))
        *others, fingerprint = lines
        return "\n".join([*others, _digest_line(others), fingerprint, ""])


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
    study, trials = study_of(source, url, name, "save", force=force)
    copy, journal = _in_memory(source, study, trials), _Lines()
    (copied,) = copy.get_all_studies()
    copies = copy.get_all_trials(study_id(copied), deepcopy=False)
    copy_into(copy, copied, copies, JournalStorage(journal), None)
    text = journal.text()
    try:
        if _content(_replayed(text)) != _content(copy):  # before anyone deletes the database
            raise _Damaged("it would change")
    except _Damaged as error:
        raise UserError(
            f"study {name!r} can't be saved without a loss: {printable(str(error))}; "
            "keep its database, or a copy by `optevo storage copy`"
        ) from None
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file; give one to write")
    write_text(path, text)
    size = f"{len(text) / 1000:.0f} kB"
    return f"wrote {path}: study {name!r}, {len(trials)} trials, {size}" + _told(trials, "are failed ones")


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
    trials, name = memory.get_all_trials(study_id(study), deepcopy=False), study.study_name
    target = open_storage(url, create=True)
    make_room(target, url, [name], "load")
    try:
        copy_into(memory, study, trials, target, str(path))
    except (StorageInternalError, SQLAlchemyError, ValueError, OverflowError) as error:
        said = printable(f"{type(error).__name__}: {error}"[:200])
        raise UserError(
            f"{shown(url)} can't hold study {name!r} ({said}); what it has of it is no study to any command, "
            "and is replaced when a file is loaded"
        ) from None
    return f"study {name!r}: {len(trials)} trials loaded into {shown(url)}" + _told(trials, "have failed now")


def read_study(path: Path) -> BaseStorage:
    """The study of a file, alone in a storage in memory, for `optuna.load_study` and our own.

    Raises:
        UserError: The file is missing, unreadable, truncated, of another format or a newer version, or what
            it holds is no study of optevo's.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text ({error}); give a file of `optevo storage save`") from None
    try:
        return _replayed(text)
    except _Damaged as error:
        raise UserError(
            f"{path}: {printable(str(error))}; the file is damaged or was changed: "
            "save the study again, or use the file's last good version"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _replayed(text: str) -> InMemoryStorage:
    """The study of a file's text.

    Raises:
        _Damaged: It is no journal, though it begins like one, or holds more or less than a study.
        UserError: It is another file, or no study as optevo makes them, see `check_portable`.
    """
    try:
        journal = _Lines(text) if text.startswith('{"op_code":') else None
        storage = JournalStorage(journal) if journal is not None else _earlier(text)
        (study,) = storage.get_all_studies()
        assert isinstance(study.study_name, str)
        trials = storage.get_all_trials(study_id(study))  # copies, so that it isn't nested too deeply
        for trial in trials:
            check_trial(trial)
            content(trial), sum(trial.intermediate_values.values())
        if journal is not None:
            _set_times(trials, journal)
    except _WRONG as error:
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise _Damaged(f"it can't be read, perhaps since it was cut off ({said})") from None
    for key in (keys.SCHEMA, keys.CONFIG, keys.FINGERPRINT):
        if key not in study.user_attrs:
            raise _Damaged(f"the study lacks {key!r}: it is not optevo's, or was cut off")
    check_portable(optuna.load_study(study_name=study.study_name, storage=storage))
    if journal is not None and not journal.intact:
        raise _Damaged("a line of it was changed, moved or lost")
    if isinstance(storage, InMemoryStorage):
        return storage
    return readable(f"study {study.study_name!r}", lambda: _in_memory(storage, study, trials))


def _in_memory(
    source: BaseStorage, study: optuna.Study | FrozenStudy, trials: Sequence[FrozenTrial]
) -> InMemoryStorage:
    memory = Memory()
    copy_into(source, study, trials, memory, None)
    return memory


def _set_times(trials: Sequence[FrozenTrial], journal: _Lines) -> None:
    """Times as they stand in the file: Optuna, which reads them too, doubles an hour that comes twice."""
    lines = [line for line in journal.read_logs(0) if line["op_code"] == _CREATE_TRIAL]
    for trial, line in zip(trials, lines, strict=True):
        trial.datetime_start, trial.datetime_complete = (
            local(datetime.datetime.fromisoformat(line[key])) if line.get(key) else None
            for key in ("datetime_start", "datetime_complete")
        )


def _earlier(text: str) -> InMemoryStorage:
    """The study of an earlier file: one JSON object, in which a trial's values come in the study's order."""
    data = _parsed(text) if text.startswith("{") else None
    if not isinstance(data, dict) or data.get("format") != "optevo study":
        raise UserError("this is no file of `optevo storage save`")
    if data["version"] != 1 or data["directions"] != ["MAXIMIZE"]:
        raise ValueError(f"its version is {data['version']!r}, its directions are {data['directions']!r}")
    storage = Memory()
    number = storage.create_new_study([StudyDirection.MAXIMIZE], data["name"])
    for key, value in data["user_attrs"].items():
        storage.set_study_user_attr(number, key, value)
    for key, value in data["system_attrs"].items():
        storage.set_study_system_attr(number, key, value)
    shared = _distributions(data["distributions"])
    for n, row in enumerate(data["trials"]):
        params = row.get("params", {})
        if isinstance(params, list):
            params = dict(zip(shared, params, strict=True))
        own = {**shared, **_distributions(row.get("distributions", {}))}
        start, complete = (
            local(datetime.datetime.fromisoformat(row[key])) if key in row else None
            for key in ("start", "complete")
        )
        trial = FrozenTrial(
            number=_counted(row["number"], n),
            trial_id=n,
            state=TrialState[row["state"]],
            value=None,
            values=row.get("values"),
            datetime_start=start,
            datetime_complete=complete,
            params=params,
            distributions={name: own[name] for name in params},
            user_attrs=row.get("user_attrs", {}),
            system_attrs=row.get("system_attrs", {}),
            intermediate_values=dict(row.get("intermediate", ())),
        )
        storage.create_new_trial(number, trial)
    return storage


def _counted(number: object, place: int) -> int:
    if number != place:
        raise ValueError(f"trial {place} is called number {number!r}")
    return place


def _distributions(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_to_distribution(json.dumps(one)) for name, one in table.items()}


def _content(storage: BaseStorage) -> str:
    (study,) = storage.get_all_studies()
    trials = storage.get_all_trials(study_id(study), deepcopy=False)
    return repr((study.user_attrs, study.system_attrs, study.directions, *map(content, trials)))


def _told(trials: Sequence[FrozenTrial], what: str) -> str:
    n = len(running(trials))
    return f", {n} of them were running and {what}" if n else ""
