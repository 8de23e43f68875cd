"""What an error of a database means for its user: wait, make room, mend, or none of these."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL

from optevo.errors import UserError

# SQLite's primary result codes: https://www.sqlite.org/rescode.html
_BUSY, _LOCKED, _READ_ONLY, _IO, _CORRUPT, _FULL, _CANNOT_OPEN, _NO_DATABASE = 5, 6, 8, 10, 11, 13, 14, 26
# PostgreSQL's: https://www.postgresql.org/docs/current/errcodes-appendix.html
_GONE = ("08", "57P01", "57P02", "57P05", "25P03")  # lost connections, shutdown, idle in a transaction
# Starting up, too many connections, locks, out of memory, cancelled, read-only as while it fails over.
_NOT_NOW = ("57P03", "53300", "40001", "40P01", "55P03", "53200", "57014", "25006")
_DISK_FULL = "53100"
_DAMAGED = ("XX001", "XX002", "42P01", "42703")  # pages, indexes, a missing table or column
_DAMAGED_WORDS = ("no such table", "no such column", "has no column", "could not decode")
# libpq gives no code for a connection that was not made, but these are no outage.
_REFUSED_WORDS = (
    "authentication",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
    "invalid",
    "password",
)
_GETTING_READY_WORDS = ("starting up", "shutting down", "recovery", "too many clients", "connection slots")
_NO_ROOM = 2**20  # bytes: less is left on a disk that I/O errors are due to


class StorageUnreachable(UserError):
    """The storage does not answer, or not yet; trying again may help."""


class StorageBusy(StorageUnreachable):
    """The storage says itself that it will answer soon: locked, starting up, or too many at once."""


def explain(error: BaseException, url: URL, name: str, *, disconnected: bool = False) -> UserError | None:
    """What an error of the database driver means; None for one that means nothing of the kind.

    Args:
        error: As the driver raised it.
        url: Of the database, whose password is kept out of what is said.
        name: What to call the database.
        disconnected: Whether SQLAlchemy takes the connection for lost. Default: False.
    """
    text = first_line(error, url)
    code = getattr(error, "sqlite_errorcode", None)
    if "Could not decode to UTF-8" in text:  # raised without a code, as rows are read
        code = _CORRUPT
    if code is not None:
        return _explain_sqlite(code & 0xFF, text, url, name)
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return _explain_connection(error, text, name, disconnected)
    if state == _DISK_FULL:
        return full(name)
    if state in _DAMAGED:
        return damaged(name, text, url)
    if state in _NOT_NOW:
        return busy(name, text)
    return unreachable(name, text) if disconnected or state.startswith(_GONE) else None


def _explain_sqlite(code: int, text: str, url: URL, name: str) -> UserError | None:
    if code in (_BUSY, _LOCKED):
        return busy(name, text)
    if code == _READ_ONLY:
        return read_only(name)
    if code == _FULL:
        return full(name)
    if code in (_IO, _CANNOT_OPEN):
        return full(name) if _has_no_room(url) else None
    if code in (_CORRUPT, _NO_DATABASE) or any(word in text.lower() for word in _DAMAGED_WORDS):
        return damaged(name, text, url)
    return None


def _explain_connection(error: BaseException, text: str, name: str, disconnected: bool) -> UserError | None:
    kind, words = type(error), text.lower()
    libpq = kind.__module__.startswith("psycopg") and kind.__name__ in (
        "OperationalError",
        "ConnectionTimeout",
    )
    if libpq and any(word in words for word in _GETTING_READY_WORDS):
        return busy(name, text)
    refused = any(word in words for word in _REFUSED_WORDS)
    return unreachable(name, text) if disconnected or (libpq and not refused) else None


def _has_no_room(url: URL) -> bool:
    try:
        return shutil.disk_usage(Path(url.database or "").absolute().parent).free < _NO_ROOM
    except OSError:
        return False


def unreachable(name: str, text: str) -> StorageUnreachable:
    """An outage, in words."""
    return StorageUnreachable(
        f"the storage {name} does not answer ({text}); nothing stored is lost: "
        "see that it runs and that this is its address, then run the same command again"
    )


def busy(name: str, text: str) -> StorageBusy:
    """A storage that is there but has no time, in words."""
    return StorageBusy(f"the storage {name} is busy ({text}); nothing stored is lost: run the command again")


def full(name: str) -> UserError:
    """A full disk, in words."""
    return UserError(
        f"the disk of the storage {name} is full; nothing stored is lost: "
        "make room, then run the same command again"
    )


def read_only(name: str) -> UserError:
    """A database that can't be written, in words."""
    return UserError(
        f"{name} is read-only here, or its folder is: it can be looked at; for more, copy it to a folder of "
        "your own, and give the copy with --storage"
    )


def damaged(name: str, text: str, url: URL | None = None) -> UserError:
    """A damaged database, in words."""
    remedy = "restore it from a backup"
    if url is not None and url.get_backend_name() == "sqlite":
        remedy += f", or save what can be read: sqlite3 {url.database} .recover | sqlite3 NEW.db"
    return UserError(f"the storage {name} is damaged ({text}); {remedy}")


def first_line(error: BaseException, url: URL | None = None) -> str:
    """An error's first line without the URL's secrets."""
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(" :") if lines else type(error).__name__
    for secret in secrets(url) if url is not None else []:
        text = text.replace(secret, "***")
    return text


def secrets(url: URL) -> list[str]:
    """What no message may show of a URL, as it stands there and as it is meant: password and parameters."""
    query: dict[str, Any] = dict(url.query)
    found = [str(url.password or "")]
    for value in query.values():
        # A short number is no secret, and part of many a message.
        values = [value] if isinstance(value, str) else list(value)
        found += [one for one in values if not (one.isdecimal() and len(one) < 4)]
    written = {form for secret in found for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    return sorted(written - {""}, key=len, reverse=True)
