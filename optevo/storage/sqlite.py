"""SQLite's file: whether it is one, is Optuna's, can be written, and lies where SQLite can be trusted."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psutil
from sqlalchemy.engine import URL

from optevo.errors import UserError
from optevo.storage.errors import explain, read_only

BUSY_SECONDS = 60  # how long an SQLite writer waits for its turn
_OPTUNA_TABLES = {
    *("studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials"),
    *("trial_user_attributes", "trial_system_attributes", "trial_params", "trial_values"),
    *("trial_intermediate_values", "trial_heartbeats", "version_info", "alembic_version"),
}
# Write-ahead logging needs memory that all processes share, and locks that hold: no network gives both.
NETWORK_FILE_SYSTEMS = {
    *("9p", "afpfs", "afs", "auristorfs", "beegfs", "ceph", "ceph-fuse", "cephfs", "cifs", "davfs", "drvfs"),
    *("fhgfs", "gcsfuse", "glusterfs", "gpfs", "juicefs", "lustre", "mfs", "moosefs", "ncpfs", "nfs", "nfs3"),
    *("nfs4", "openafs", "orangefs", "panfs", "pvfs2", "rclone", "s3fs", "smb", "smb2", "smb3", "smbfs"),
    *("sshfs", "webdav"),
}


Connect = Callable[[], sqlite3.Connection]


def check_sqlite(url: URL, *, create: bool) -> Connect | None:
    """See that a file can hold studies, or holds them.

    Returns:
        How to connect to a file that may be read and no more; None where SQLite does so by itself.

    Raises:
        UserError: It cannot, it is missing and not to be created, or it can't be read without writing.
    """
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
        # A shell leaves a ~ in the middle of a word as it is.
        home = f"; write sqlite:///{os.path.expanduser(path)}" if url.database.startswith("~") else ""
        if not create:
            raise UserError(
                f"there is no database {path}"
                + (home or "; `optevo run FILE` makes one, --storage names another")
            )
        if not path.parent.is_dir():
            raise UserError(f"cannot create {path}: there is no folder {path.parent}{home}")
    if create and not (_may(path.parent, os.W_OK) and (not exists or _may(path, os.W_OK))):
        raise read_only(str(path))
    _check_file_system(path)
    if not exists:
        return None
    if path.is_file() and not _may(path, os.R_OK):
        raise UserError(f"cannot read {path}: permission denied; ask its owner for a copy")
    connect = None if create else _connect_to_read(path)
    _check_tables(url, path, create, connect or functools.partial(sqlite3.connect, path, BUSY_SECONDS))
    return connect


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _connect_to_read(path: Path) -> Connect | None:
    """How to read a file where none can be made beside it, as write-ahead logging does even to read.

    Raises:
        UserError: What is beside it would have to be written to the file first.
    """
    if _may(path.parent, os.W_OK) and _may(path, os.W_OK):
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            return None
    except sqlite3.Error:
        return None
    else:
        return None
    for beside in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-journal")):
        if beside.exists() and beside.stat().st_size:
            raise UserError(
                f"{path} is read-only here, and {beside.name} holds changes that are not in it yet: copy "
                "both to a folder of your own, and give the copy with --storage"
            )
    uri = f"{path.absolute().as_uri()}?immutable=1"
    return functools.partial(sqlite3.connect, uri, BUSY_SECONDS, uri=True, check_same_thread=False)


def _check_file_system(path: Path) -> None:
    """SQLite loses data on network file systems.

    Raises:
        UserError: The file is on one, as far as this system tells.
    """
    try:
        resolved, mounts = path.resolve(), psutil.disk_partitions(all=True)
    except (OSError, psutil.Error, NotImplementedError):
        return
    holding = [mount for mount in mounts if resolved.is_relative_to(mount.mountpoint)]
    if not holding:
        return
    # Of two at one place the later one covers the earlier.
    mount = max(reversed(holding), key=lambda mount: len(Path(mount.mountpoint).parts))
    if mount.fstype.lower().removeprefix("fuse.") in NETWORK_FILE_SYSTEMS:
        raise UserError(
            f"{path} lies on {mount.mountpoint}, a network file system ({mount.fstype}), where SQLite loses "
            "data: put it on a local disk, or use PostgreSQL (postgresql+psycopg://USER@HOST/DATABASE) "
            "or one machine's `optevo storage serve` (grpc://HOST:PORT)"
        )


def _check_tables(url: URL, path: Path, create: bool, connect: Connect) -> None:
    try:
        with contextlib.closing(connect()) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            tables = {row[0] for row in rows}
            lacking = sorted(_OPTUNA_TABLES - tables)
            versions = ("version_info", "alembic_version")
            if tables & _OPTUNA_TABLES and lacking and not create:  # Optuna would fill in what is lost
                raise UserError(
                    f"{path} lacks the table {lacking[0]}, so it is damaged: restore it from a backup"
                )
            for table in versions if tables & _OPTUNA_TABLES else ():
                n = len(connection.execute(f"SELECT * FROM {table}").fetchall()) if table in tables else 0
                if n > 1 or (n == 0 and not create):  # another process may be about to write it
                    raise UserError(f"{path} has no single row in {table}; restore it from a backup")
            if tables and not tables & _OPTUNA_TABLES:
                raise UserError(f"{path} is a database, but not Optuna's; give another file with --storage")
            if not tables and not create:
                raise UserError(f"{path} is an empty database; give the one of your study with --storage")
            if create:
                connection.execute("BEGIN IMMEDIATE")  # an unwritable file is found out here
                connection.rollback()
    except UnicodeDecodeError as e:
        raise UserError(f"the database {path} is damaged ({e}); restore it from a backup") from None
    except sqlite3.DatabaseError as e:
        if "not a database" not in str(e):  # which may never have been one
            problem = explain(e, url, f"sqlite:///{path}")
            if problem is not None:
                raise problem from None
        raise UserError(
            f"cannot use the database {path}: {e}; restore it from a backup if it was one, "
            "or give another file with --storage"
        ) from None
