"""Opening a storage: SQLite that bears several workers, and errors that say what to do."""

from __future__ import annotations

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
BUSY_SECONDS = 60  # how long an SQLite writer waits for its turn
_OPTUNA_TABLES = {"studies", "trials", "version_info"}


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
    for attempt in range(20):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
            break
        except (
            sqlalchemy.exc.OperationalError,
            sqlalchemy.exc.IntegrityError,
            sqlalchemy.exc.ProgrammingError,
        ) as e:
            # Several processes creating one fresh database together trip over each other's tables.
            if create and attempt < 19 and "already exists" in str(e).lower():
                time.sleep(0.1)
                continue
            raise UserError(f"cannot open the storage {name}: {e.orig}") from None
        except (sqlalchemy.exc.DatabaseError, sqlite3.DatabaseError) as e:
            raise UserError(f"{name} is not a database that optevo can read: {e}") from None
        except ImportError as e:
            raise UserError(
                f"the driver for {name} is missing: {e}; try pip install psycopg[binary]"
            ) from None
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
    return _parse(url).render_as_string(hide_password=True)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except sqlalchemy.exc.ArgumentError:
        raise UserError(f"{url!r} is not a storage URL; one looks like sqlite:///optevo.db") from None
    except sqlalchemy.exc.NoSuchModuleError as e:
        raise UserError(
            f"unknown kind of storage: {e}; known are sqlite:/// and postgresql+psycopg://"
        ) from None
    except ImportError as e:
        raise UserError(
            f"the driver for this storage is missing: {e}; try pip install psycopg[binary]"
        ) from None
    return parsed


def _check_sqlite(url: URL, create: bool) -> None:
    if not url.database or url.database == ":memory:":
        raise UserError(
            "an in-memory storage dies with its process; give a file, such as sqlite:///optevo.db"
        )
    path = Path(url.database)
    if not path.exists():
        if not create:
            raise UserError(f"there is no database {path}; give the one of your study with --storage")
        if not path.parent.is_dir():
            raise UserError(f"cannot create {path}: there is no folder {path.parent}")
    try:
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
            tables = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            if tables and not tables >= _OPTUNA_TABLES:
                raise UserError(
                    f"{path} is a database, but not Optuna's: it has no studies; give another file"
                )
            if not tables and not create:
                raise UserError(f"{path} is an empty database; give the one of your study with --storage")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA user_version=0")  # a write: an unwritable file is found out here
        connection.close()
    except sqlite3.DatabaseError as e:
        raise UserError(f"cannot use the database {path}: {e}") from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Safe with write-ahead logging: a power cut may lose the last commit, never the database.
    connection.execute("PRAGMA synchronous=NORMAL")
