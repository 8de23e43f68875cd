"""SQLite's file: whether it is one, is Optuna's, can be written, and lies where SQLite can be trusted."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import psutil
from sqlalchemy.engine import URL

from optevo.errors import UserError
from optevo.storage.errors import explain

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


def check_sqlite(url: URL, *, create: bool) -> None:
    """See that a file can hold studies, or holds them.

    Raises:
        UserError: It cannot, or it is missing and not to be created.
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
        if not create:
            raise UserError(f"there is no database {path}; give the one of your study with --storage")
        if not path.parent.is_dir():
            raise UserError(f"cannot create {path}: there is no folder {path.parent}")
    _check_file_system(path)
    if exists:
        _check_tables(url, path, create)


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


def _check_tables(url: URL, path: Path, create: bool) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            tables = {row[0] for row in rows}
            lacking = sorted(_OPTUNA_TABLES - tables)
            versions = ("version_info", "alembic_version")
            if tables & _OPTUNA_TABLES and not create:  # Optuna would fill in what is lost, and hide it
                if lacking:
                    raise UserError(
                        f"{path} lacks the table {lacking[0]}, so it is damaged: restore it from a backup"
                    )
                for table in versions:
                    if connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] != 1:
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
