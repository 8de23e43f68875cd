"""What a database's errors mean, and what is said of a full disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url

from optevo.errors import UserError
from optevo.storage import errors as storage_errors
from optevo.storage.errors import StorageUnreachable, explain, first_line
from optevo.storage.opening import open_storage


def _sqlite_error(code: int, message: str = "it hurts") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "free", "word"),
    [
        (sqlite3.SQLITE_BUSY, 10**9, "busy"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, 10**9, "busy"),
        (sqlite3.SQLITE_LOCKED, 10**9, "busy"),
        (sqlite3.SQLITE_FULL, 10**9, "full"),
        (sqlite3.SQLITE_IOERR_WRITE, 0, "full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, 0, "full"),
        (sqlite3.SQLITE_CANTOPEN, 0, "full"),
        (sqlite3.SQLITE_IOERR_WRITE, 10**9, None),
        (sqlite3.SQLITE_CORRUPT, 10**9, "damaged"),
        (sqlite3.SQLITE_NOTADB, 10**9, "damaged"),
        (sqlite3.SQLITE_READONLY, 10**9, "read-only"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, 10**9, "read-only"),
    ],
)
def test_sqlites_errors_are_told_apart_by_their_code(
    monkeypatch: pytest.MonkeyPatch, code: int, free: int, word: str | None
):
    monkeypatch.setattr(
        storage_errors.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free)
    )
    meaning = explain(_sqlite_error(code), make_url("sqlite:///a.db"), "sqlite:///a.db")
    assert (word in str(meaning)) if word else meaning is None


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("AdminShutdown", "does not answer"),
        ("CrashShutdown", "does not answer"),
        ("ConnectionFailure", "does not answer"),
        ("CannotConnectNow", "busy"),
        ("TooManyConnections", "busy"),
        ("DeadlockDetected", "busy"),
        ("LockNotAvailable", "busy"),
        ("DiskFull", "full"),
        ("UndefinedTable", "damaged"),
        ("UndefinedColumn", "damaged"),
        ("DataCorrupted", "damaged"),
        ("UniqueViolation", None),
        ("InvalidPassword", None),
        ("SyntaxError", None),
    ],
)
def test_postgresqls_errors_are_told_apart_by_their_code(name: str, word: str | None):
    psycopg = pytest.importorskip("psycopg")
    meaning = explain(getattr(psycopg.errors, name)("it hurts"), make_url("postgresql+psycopg://h/d"), "DB")
    assert (word in str(meaning)) if word else meaning is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('connection to server at "h" failed: Connection refused', "does not answer"),
        ("could not translate host name", "does not answer"),
        ("FATAL:  the database system is starting up", "busy"),
        ("FATAL:  sorry, too many clients already", "busy"),
        ('FATAL:  password authentication failed for user "u"', None),
        ('FATAL:  database "d" does not exist', None),
    ],
)
def test_a_connection_that_is_not_made_is_judged_by_its_words(text: str, word: str | None):
    psycopg = pytest.importorskip("psycopg")
    meaning = explain(psycopg.OperationalError(text), make_url("postgresql+psycopg://h/d"), "DB")
    assert (word in str(meaning)) if word else meaning is None


def test_an_errors_first_line_shows_no_password():
    url = make_url("postgresql+psycopg://u:topsecret@h/d?sslpassword=othersecret")
    assert first_line(OSError("topsecret and othersecret: \nmore"), url) == "*** and ***"


# A full disk


def test_a_database_that_cannot_grow_says_that_its_disk_is_full_and_goes_on_with_more_room(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    assert isinstance(storage, RDBStorage)
    study = optuna.create_study(storage=storage, study_name="one")
    pages = [0]

    @sqlalchemy.event.listens_for(storage.engine, "checkout")
    def _limit(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages[0] or used}")

    written: list[str] = []
    with pytest.raises(UserError, match=r"the disk of the storage .* is full") as caught:
        _write(study, written)
    assert not isinstance(caught.value, StorageUnreachable)
    assert "a.db" in str(caught.value)
    with pytest.raises(UserError, match="is full"):
        [study.ask() for _ in range(1000)]
    pages[0] = 10**6
    known = set(study.user_attrs)
    study.set_user_attr("more", "x" * 1500)
    assert known == set(written)
    assert set(study.user_attrs) == known | {"more"}
    study.tell(study.ask(), 1.0)


def _write(study: optuna.Study, written: list[str]) -> None:
    """Write until it fails."""
    for n in range(1000):
        study.set_user_attr(f"a{n}", "x" * 3000)
        written.append(f"a{n}")


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of 1 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mount = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        mount.rmdir()
        pytest.skip(f"this machine mounts nothing: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
        mount.rmdir()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    assert shutil.disk_usage(path).free == 0


def test_a_full_disk_is_called_so_and_nothing_stored_is_lost():
    with _small_disk() as disk:
        url = f"sqlite:///{disk / 'a.db'}"
        study = optuna.create_study(storage=open_storage(url, create=True), study_name="one")
        study.set_user_attr("before", 1)
        _fill(disk / "filler")
        written = ["before"]
        with pytest.raises(UserError, match=r"the disk of the storage .* is full"):
            _write(study, written)
        known = optuna.load_study(study_name="one", storage=open_storage(url)).user_attrs
        assert set(known) == set(written)
        (disk / "filler").unlink()
        study.set_user_attr("after", "x" * 3000)
        assert set(study.user_attrs) == {*known, "after"}


def test_a_database_cannot_be_made_on_a_full_disk():
    with _small_disk() as disk:
        _fill(disk / "filler")
        with pytest.raises(UserError, match="is full"):
            open_storage(f"sqlite:///{disk / 'a.db'}", create=True)


# What is damaged


def _garbled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:] = b"\xa5" * (len(content) - 5000)  # all but the first page
    path.write_bytes(content)


def _without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE trial_params")


def _not_json(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '{\"a\": '")


def _no_state(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trials SET state = 'DREAMING'")


@pytest.fixture(scope="module")
def of_thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with thirty trials, not to be changed."""
    path = tmp_path_factory.mktemp("thirty") / "a.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="one")
    for _ in range(30):
        trial = study.ask()
        trial.set_user_attr("note", "x" * 300)
        study.tell(trial, trial.suggest_float("x", 0, 1))
    study._storage._backend.engine.dispose()
    return path


@pytest.mark.parametrize("damage", [_garbled, _not_json, _no_state])
def test_a_damaged_database_is_called_so_with_what_to_do(tmp_path: Path, of_thirty: Path, damage):
    path = tmp_path / "a.db"
    path.write_bytes(of_thirty.read_bytes())
    damage(path)
    with pytest.raises(UserError, match="damaged") as caught:
        optuna.load_study(study_name="one", storage=open_storage(f"sqlite:///{path}")).get_trials()
    assert str(path) in str(caught.value)
    assert "backup" in str(caught.value)


def test_a_table_that_goes_missing_while_workers_run_is_damage(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    study = optuna.create_study(storage=storage)
    study.ask()
    _without_a_table(tmp_path / "a.db")
    with pytest.raises(UserError, match="damaged"):
        study.get_trials()
