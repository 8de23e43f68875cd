"""Opening a storage: SQLite that bears several workers, and errors that say what to do."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from optevo.errors import UserError

# A busy machine delays heartbeats; ten missed ones in a row mean a dead worker.
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 300
_RACES = ("already exists", "unique", "locked", "no such table")
BUSY_SECONDS = 60  # how long an SQLite writer waits for its turn
_OPTUNA_TABLES = {"studies", "trials", "version_info", "alembic_version"}


def open_storage(url: str, *, create: bool = False) -> RDBStorage:
    """Open Optuna's storage at an SQLAlchemy URL.

    SQLite gets write-ahead logging and a long busy timeout: with the defaults, 32 workers lost two to
    "database is locked".

    Args:
        url: For instance ``sqlite:///optevo.db`` or ``postgresql+psycopg://user@host/db``.
        create: Whether to make a database that isn't there. Default: False.

    Raises:
        UserError: The URL is malformed, the database is missing, unreachable, unwritable, not Optuna's, or
            of another schema version. The message never shows a password.
    """
    parsed = _parse(url)
    name = shown(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite:
        _check_sqlite(parsed, create)
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {"pool_pre_ping": True}
    )
    try:
        storage = _open(url, options, attempts=50 if create else 1)
        if sqlite and create:
            with storage.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # kept in the file
    except sqlalchemy.exc.DBAPIError as e:
        raise UserError(
            f"cannot use the storage {name}: {e.orig}\nIs it there, writable, and Optuna's?"
        ) from None
    except ImportError as e:
        raise UserError(f"the driver for {name} is missing: {_install(parsed)}: {e}") from None
    except RuntimeError as e:
        raise UserError(
            f"{name} has another schema version than Optuna {optuna.__version__}: {e}\n"
            f"Back the database up, then run: optuna storage upgrade --storage {name}"
        ) from None
    if sqlite:
        sqlalchemy.event.listen(storage.engine, "connect", _prepare_sqlite)
        storage.engine.dispose()  # connections made before the listener was there
    return storage


def shown(url: str) -> str:
    """A storage URL as it may be printed: without its password."""
    parsed = _parse(url)
    secret = {key: "***" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def _open(url: str, options: dict[str, Any], attempts: int) -> RDBStorage:
    """Several processes that create one fresh database together trip over each other's tables: try again."""
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
        except sqlalchemy.exc.DBAPIError as e:
            attempts -= 1
            text = str(e).lower()
            if attempts <= 0 or not any(word in text for word in _RACES):
                raise
            time.sleep(0.1)


def _parse(url: str) -> URL:
    # What cannot be parsed is not shown: there may be a password in it.
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UserError("this is not a storage URL; one looks like sqlite:///optevo.db") from None
    try:
        parsed.get_dialect()
    except sqlalchemy.exc.NoSuchModuleError:
        raise UserError("unknown kind of storage; known are sqlite:/// and postgresql+psycopg://") from None
    except ImportError as e:
        raise UserError(f"the driver for this storage is missing: {_install(parsed)}: {e}") from None
    return parsed


def _install(url: URL) -> str:
    driver = url.drivername.partition("+")[2]
    packages = {"psycopg": "psycopg[binary]"}
    return (
        f"try pip install {packages.get(driver, driver)}"
        if driver
        else "name one, as in postgresql+psycopg://"
    )


def _check_sqlite(url: URL, create: bool) -> None:
    if not url.database or url.database == ":memory:":
        raise UserError(
            "an in-memory storage dies with its process; give a file, such as sqlite:///optevo.db"
        )
    if "\0" in url.database:
        raise UserError("the storage's path has a null byte; one looks like sqlite:///optevo.db")
    path = Path(url.database)
    try:
        exists = path.exists()
    except OSError as e:
        raise UserError(f"cannot use the database {path}: {e}") from None
    if not exists:
        if not create:
            raise UserError(f"there is no database {path}; give the one of your study with --storage")
        if not path.parent.is_dir():
            raise UserError(f"cannot create {path}: there is no folder {path.parent}")
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            tables = {row[0] for row in rows}
            if tables and not tables & _OPTUNA_TABLES:
                raise UserError(f"{path} is a database, but not Optuna's; give another file with --storage")
            if not tables and not create:
                raise UserError(f"{path} is an empty database; give the one of your study with --storage")
            if create:
                connection.execute("BEGIN IMMEDIATE")  # an unwritable file is found out here
                connection.rollback()
    except sqlite3.DatabaseError as e:
        raise UserError(f"cannot use the database {path}: {e}; give another file with --storage") from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Safe with write-ahead logging: a power cut may lose the last commit, never the database.
    connection.execute("PRAGMA synchronous=NORMAL")
