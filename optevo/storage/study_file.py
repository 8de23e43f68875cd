"""A study as one text file, to be kept in git or sent to somebody, and read back without a loss.

How it is written: see `optevo.storage.study_format`. Trials that were running are in the file as such; who
loads it gets them as failed ones, see `optevo.storage.copying`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.storage.copying import content, copy_into, make_room, running, study_of
from optevo.storage.opening import open_storage, shown
from optevo.storage.study_format import Damaged, by_name, parsed, study_storage, study_text


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
    study, trials = study_of(open_storage(url), url, name, "save", force=force)
    text = study_text(study, trials)
    _check_lossless(text, study, trials)
    _write(path, text)
    size = f"{len(text.encode()) / 1000:.0f} kB"
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
    trials, name = memory.get_all_trials(study._study_id, deepcopy=False), study.study_name
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
        return study_storage(parsed(text))
    except Damaged as error:
        raise UserError(
            f"{path}: {printable(str(error))}; the file is damaged or was changed: "
            "save the study again, or use the file's last good version"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _check_lossless(text: str, study: FrozenStudy, trials: Sequence[FrozenTrial]) -> None:
    """See that the text gives back what it was made from, before anyone deletes the database.

    Raises:
        UserError: It doesn't; the message says where.
    """
    lost = ""
    try:
        memory = study_storage(json.loads(text))
    except Damaged as error:
        lost = printable(str(error))
    else:
        (again,) = memory.get_all_studies()
        kept = {key: value for key, value in study.user_attrs.items() if key != keys.COPY_OF}
        if repr(by_name(again.user_attrs)) != repr(by_name(kept)):
            lost = "the study's attributes would change"
        if repr(by_name(again.system_attrs)) != repr(by_name(study.system_attrs)):
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


def _told(trials: Sequence[FrozenTrial], what: str) -> str:
    n = len(running(trials))
    return f", {n} of them were running and {what}" if n else ""
