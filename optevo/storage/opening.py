"""Opening a storage: what bears several workers, and errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.engine import URL, make_url

from optevo.errors import UserError
from optevo.optuna_private import database_of, study_id
from optevo.storage.errors import StorageBusy, explain, first_line
from optevo.storage.retrying import KEEPALIVE, RetryingRDBStorage, insist
from optevo.storage.sqlite import BUSY_SECONDS, check_sqlite

_RACES = ("already exists", "unique", "locked", "no such table")
PROXY_PORT = 13000
_PROXY_SECONDS = 5.0  # a proxy that is there answers within
_STARTING_SECONDS = 30.0  # a server that says it is starting up
_KNOWN = "sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE and grpc://HOST:PORT"


def open_storage(
    url: str, *, create: bool = False, should_stop: Callable[[], bool] | None = None
) -> BaseStorage:
    """Open the storage at a URL: a database by SQLAlchemy's, or `optevo storage serve` by ``grpc://host:port``.

    Calls of what is returned bear a database that goes away for minutes, see `optevo.storage.retrying`.
    SQLite gets write-ahead logging and a long busy timeout: with the defaults, 32 workers lost two to
    "database is locked".

    Args:
        url: For instance ``sqlite:///optevo.db``, ``postgresql+psycopg://user@host/db`` or ``grpc://host``.
        create: Whether to make a database that isn't there. Default: False.
        should_stop: Asked while a call waits for a storage that doesn't answer; True ends the waiting.
            Default: None, which waits for `optevo.storage.retrying.OUTAGE_SECONDS`.

    Raises:
        UserError: The URL is malformed, the database is missing, unreachable, unwritable, damaged, on a
            network file system or a full disk, not Optuna's, or of another schema version. The message never
            shows a password, nor any parameter.
    """
    parsed, name = _parse(url), shown(url)
    if parsed.drivername == "grpc":
        return _open_proxy(parsed, name, should_stop)
    return _open_database(url, create=create, should_stop=should_stop)


def upgrade_tables(url: str) -> tuple[str, str]:
    """Bring Optuna's tables to the version of the Optuna that is installed.

    Returns:
        Their version before, and now.

    Raises:
        UserError: See `open_storage`; or the tables are of a newer Optuna.
    """
    parsed, name = _parse(url), shown(url)
    if parsed.drivername == "grpc":
        raise UserError(f"{name} is a proxy: upgrade the database that it serves, by the database's own URL")
    storage = _open_database(url, any_version=True)
    before, now = storage.get_current_version(), storage.get_head_version()
    if before not in storage.get_all_versions():
        raise UserError(
            f"the tables of {name} have version {before}, which is newer than Optuna {optuna.__version__} "
            "knows: install a newer Optuna"
        )
    if before != now:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # we say it in one line
        storage.upgrade()
    return before, now


def count_states(study: optuna.Study) -> dict[str, int] | None:
    """How many trials are in each state, None where the storage tells that only by reading them all."""
    database = database_of(study)
    return database.count_states(study_id(study)) if isinstance(database, RetryingRDBStorage) else None


def shown(url: str) -> str:
    """A storage URL as it may be printed: kind, user, host, port and database, which of a proxy has none."""
    parsed = _parse(url)
    if parsed.drivername == "grpc":
        return URL.create("grpc", host=parsed.host, port=parsed.port).render_as_string()
    more = "?***" if parsed.query else ""
    return parsed.set(query={}).render_as_string(hide_password=True) + more


def _open_database(
    url: str,
    *,
    create: bool = False,
    should_stop: Callable[[], bool] | None = None,
    any_version: bool = False,
) -> RetryingRDBStorage:
    parsed, name = _parse(url), shown(url)
    reader = check_sqlite(parsed, create=create) if parsed.get_backend_name() == "sqlite" else None
    options: dict[str, Any] = {
        "name": name,
        "should_stop": should_stop,
        "engine_kwargs": {"creator": reader} if reader is not None else _engine_options(parsed),
        "skip_compatibility_check": any_version,
        "skip_table_creation": any_version,
    }

    def attempt() -> RetryingRDBStorage:
        try:
            storage = RetryingRDBStorage(url, **options)
            if create and storage.engine.name == "sqlite":
                with storage.engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # kept in the file
        except (sqlalchemy.exc.DBAPIError, StorageInternalError) as e:
            cause = _driver_error(e)
            unusable = (
                f"cannot use the storage {name}: {first_line(cause, parsed)}\n"
                "Is it there, writable, and Optuna's?"
            )
            # Several processes that create one fresh database together trip over each other's tables.
            if create and any(word in str(cause).lower() for word in _RACES):
                raise StorageBusy(unusable) from None
            raise explain(cause, parsed, name) or UserError(unusable) from None
        return storage

    try:
        # One that is starting up is waited for; one that doesn't answer may have a mistyped name.
        return insist(attempt, StorageBusy, seconds=_STARTING_SECONDS)
    except ImportError as e:
        raise UserError(f"the driver for {name} is missing: {_install(parsed)}: {e}") from None
    except RuntimeError:
        raise UserError(
            f"{name} has another schema version than Optuna {optuna.__version__}\n"
            f"Back the database up, then run: optevo storage upgrade --storage {name}"
        ) from None


def _engine_options(url: URL) -> dict[str, Any]:
    """For SQLAlchemy's engine."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_driver_name().startswith("psycopg"):
        options["connect_args"] = {key: value for key, value in KEEPALIVE.items() if key not in url.query}
    return options


def _driver_error(error: Exception) -> BaseException:
    """What the database's driver raised, from what SQLAlchemy and Optuna made of it."""
    found: BaseException = error
    while isinstance(found, StorageInternalError) and found.__cause__ is not None:
        found = found.__cause__
    return found.orig or found if isinstance(found, sqlalchemy.exc.DBAPIError) else found


def _open_proxy(url: URL, name: str, should_stop: Callable[[], bool] | None) -> BaseStorage:
    host, port = url.host or "localhost", url.port or PROXY_PORT
    if url.username or url.password or url.database or url.query:
        raise UserError(
            f"{name}: a proxy's URL is grpc://HOST:PORT and nothing more: no user, path or parameter"
        )
    try:
        from optevo.storage.proxy import RetryingGrpcStorageProxy  # noqa: PLC0415  gRPC is an extra
    except (ImportError, RuntimeError) as e:  # missing, or too old for Optuna
        raise UserError(f"the driver for {name} is missing: try pip install 'optevo[grpc]': {e}") from None
    storage = RetryingGrpcStorageProxy(
        host=f"[{host}]" if ":" in host else host, port=port, name=name, should_stop=should_stop
    )
    try:
        storage.wait_server_ready(_PROXY_SECONDS)
    except ConnectionError as e:
        storage.close()
        raise UserError(
            f"no storage answers at {name} ({e}); on the machine of the database start: "
            f"optevo storage serve --storage URL --host ADDRESS --port {port}"
        ) from None
    return storage


def _parse(url: str) -> URL:
    # What cannot be parsed is not shown: there may be a password in it.
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UserError("this is not a storage URL; one looks like sqlite:///optevo.db") from None
    if parsed.drivername.startswith("sqlite") and "?" in url:  # the rest would be dropped in silence
        raise UserError(
            "a SQLite URL has no parameters, it looks like sqlite:///optevo.db; a file's name has no ? here"
        )
    if "@" in (parsed.host or ""):  # a password was taken to end at the first one, and would show
        raise UserError("write an @ in the storage's user name or password as %40")
    if parsed.drivername == "grpc":
        return parsed
    try:
        parsed.get_dialect()
    except sqlalchemy.exc.NoSuchModuleError:
        raise UserError(f"unknown kind of storage; known are {_KNOWN}") from None
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
