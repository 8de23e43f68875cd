"""Opening a storage: what is refused, what is said then, and what bears several workers."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages._heartbeat import is_heartbeat_enabled
from storages import made_at_once

from optevo.errors import UserError
from optevo.storage import opening, sqlite
from optevo.storage.opening import open_storage, shown
from optevo.storage.sqlite import BUSY_SECONDS, NETWORK_FILE_SYSTEMS


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def made_by_optuna(path: Path) -> Path:
    """An Optuna database in its default journal mode, with a study in it."""
    storage = optuna.storages.RDBStorage(url(path))
    optuna.create_study(storage=storage, study_name="theirs")
    storage.remove_session()
    storage.engine.dispose()
    return path


def made_by_another(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
        connection.execute("INSERT INTO songs VALUES ('Blue in Green')")
    return path


def refused(url: str, *, create: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        open_storage(url, create=create)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "optevo.db",
        "sqlite",
        "sqlite//x.db",
        "://",
        "postgresql+psycopg://u@host:port/db",
        "sqlite:////\x00",
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_malformed_url_is_refused(text: str, create: bool):
    message = refused(text, create=create)
    assert "sqlite:///optevo.db" in message or "://" in text


@pytest.mark.parametrize("text", ["foo:///x.db", "sqlite+nodriver:///x.db", "postgresql+nodriver://u@h/d"])
def test_an_unknown_kind_of_storage_is_refused_with_the_known_ones(text: str):
    assert "postgresql+psycopg://" in refused(text)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("postgresql+psycopg://u:topsecret@localhost/d", "psycopg"),
        ("mysql+pymysql://u:topsecret@localhost/d", "pymysql"),
    ],
)
def test_a_missing_driver_is_named_with_what_to_install(text: str, package: str):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    message = refused(text)
    assert f"pip install {package}" in message
    assert "topsecret" not in message


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg//u:topsecret@h/d",
        "postgresql+psycopg:/u:topsecret@h/d",
        "postgresql+psycopg://u:topsecret@h:port/d",
        "postgresql+psycopg://u:topsecret@127.0.0.1:1/d",
        "postgresql+nodriver://u:topsecret@h/d",
        "foo://u:topsecret@h/d",
        "mysql://u:topsecret@127.0.0.1:1/d",
        "mssql+pyodbc://u:topsecret@h/d",
        "postgresql+psycopg://h/d?user=u&password=topsecret",
    ],
)
def test_no_message_shows_a_password(text: str):
    assert "topsecret" not in refused(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql+psycopg://u:topsecret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgresql+psycopg://u@h:5/d?token=topsecret", "postgresql+psycopg://u@h:5/d?***"),
        ("postgresql+psycopg://h/d?api_key=a&api_key=topsecret&x=topsecret", "postgresql+psycopg://h/d?***"),
        ("postgresql+psycopg://u:p%40topsecret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("grpc://h:1/topsecret", "grpc://h:1"),
        ("grpc://topsecret@h:1", "grpc://h:1"),
        ("grpc://u:topsecret@h", "grpc://h"),
        ("grpc://h:1/a/topsecret?token=topsecret", "grpc://h:1"),
        ("grpc://[::1]:7", "grpc://[::1]:7"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_a_shown_url_has_kind_user_host_port_and_database(text: str, said: str):
    assert shown(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "grpc://127.0.0.1:1/topsecret",
        "grpc://topsecret@127.0.0.1:1",
        "grpc://127.0.0.1:1?token=topsecret",
        "sqlite:///no.db?token=topsecret",
        "postgresql+psycopg://127.0.0.1:1/d?api_key=topsecret",
        "postgresql+psycopg://127.0.0.1:1/d?sslmode=topsecret",
        "postgresql+psycopg://127.0.0.1:1/d?connect_timeout=topsecret",
        "postgresql+psycopg://127.0.0.1:1/d?service=topsecret",
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_no_message_shows_a_parameter_or_what_stands_behind_a_proxy(
    text: str, create: bool, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("DEBUG"):
        assert "topsecret" not in refused(text, create=create)
    assert "topsecret" not in caplog.text


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?mode=memory"])
def test_a_storage_in_memory_is_refused(text: str):
    assert "sqlite:///optevo.db" in refused(text)


def test_a_database_in_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    message = refused(url(tmp_path / "no" / "a.db"))
    assert "no folder" in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_database(tmp_path: Path):
    assert "cannot use the database" in refused(url(tmp_path))


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_database_is_made_only_when_asked_for(tmp_path: Path, create: bool):
    path = tmp_path / "a.db"
    if create:
        open_storage(url(path), create=True)
        assert path.exists()
    else:
        assert "--storage" in refused(url(path), create=False)
        assert list(tmp_path.iterdir()) == []


def _text(path: Path) -> Path:
    path.write_text("milk, bread, butter\n" * 50)
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _other_revision(path: Path) -> Path:
    made_by_optuna(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        connection.execute("UPDATE version_info SET schema_version = 99, library_version = '9.9.9'")
    return path


def _older_revision(path: Path) -> Path:
    made_by_optuna(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")
        connection.execute("UPDATE version_info SET schema_version = 12, library_version = '1.3.0'")
    return path


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (_text, "another"),
        (made_by_another, "another file"),
        (_other_revision, "schema version"),
        (_older_revision, "upgrade"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("create", [True, False])
def test_a_file_of_something_else_is_refused_and_left_as_it_was(
    tmp_path: Path, make, remedy: str, create: bool
):
    path = make(tmp_path / "a.db")
    before = path.read_bytes()
    message = refused(url(path), create=create)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]
    assert remedy in message


def test_a_database_of_something_else_in_wal_mode_is_left_as_it_was(tmp_path: Path):
    path = made_by_another(tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    before = path.read_bytes()
    assert "not Optuna's" in refused(url(path))
    assert path.read_bytes() == before


def test_an_empty_file_holds_no_study(tmp_path: Path):
    path = _empty(tmp_path / "a.db")
    assert "empty database" in refused(url(path), create=False)
    assert path.read_bytes() == b""


def test_an_empty_file_becomes_a_database_when_a_study_is_created(tmp_path: Path):
    assert open_storage(url(_empty(tmp_path / "a.db")), create=True).get_all_studies() == []


def test_a_tilde_is_nobodys_home_in_a_url(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for create in (True, False):
        assert "write sqlite:////home/somebody/no/a.db" in refused("sqlite:///~/no/a.db", create=create)
    monkeypatch.delenv("HOME")
    assert "no database ~" in refused("sqlite:///~nobody-of-that-name/a.db", create=False)


def test_a_question_mark_does_not_cut_a_files_name(tmp_path: Path):
    for create in (True, False):
        assert "no ? here" in refused(url(tmp_path / "a?b.db"), create=create)
    assert list(tmp_path.iterdir()) == []


# What several workers need


def test_sqlite_gets_write_ahead_logging_and_a_long_busy_timeout(tmp_path: Path):
    storage = open_storage(url(tmp_path / "a.db"), create=True)
    with storage.engine.connect() as connection:
        pragma = {
            name: connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "busy_timeout", "synchronous")
        }
    assert pragma == {"journal_mode": "wal", "busy_timeout": BUSY_SECONDS * 1000, "synchronous": 1}


def test_an_existing_database_gets_write_ahead_logging_too(tmp_path: Path):
    storage = open_storage(url(made_by_optuna(tmp_path / "a.db")), create=True)
    with storage.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
    assert [study.study_name for study in storage.get_all_studies()] == ["theirs"]


def test_optunas_heartbeats_are_off_since_a_clock_that_jumps_fails_live_trials(tmp_path: Path):
    storage = open_storage(url(tmp_path / "a.db"), create=True)
    assert not is_heartbeat_enabled(storage)


@pytest.mark.parametrize("name", ["ähnliche Größe % #.db", "a{b}.db"])  # braces are no template either
def test_a_path_with_letters_of_anybody_works(tmp_path: Path, name: str):
    open_storage(url(tmp_path / name), create=True)
    assert (tmp_path / name).exists()
    open_storage(url(tmp_path / name))


# Where SQLite cannot be trusted


def _mounted(monkeypatch: pytest.MonkeyPatch, *mounts: tuple[Path | str, str]) -> None:
    partitions = [SimpleNamespace(mountpoint=str(place), fstype=kind) for place, kind in mounts]
    monkeypatch.setattr(sqlite.psutil, "disk_partitions", lambda all: partitions)


def test_every_network_file_system_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for kind in (*NETWORK_FILE_SYSTEMS, "fuse.sshfs", "fuse.glusterfs", "CIFS"):
        _mounted(monkeypatch, ("/", "ext4"), (tmp_path, kind))
        with pytest.raises(UserError, match=re.escape(f"lies on {tmp_path}, a network file system ({kind})")):
            sqlite._check_file_system(tmp_path / "a.db")
    for kind in ("ext4", "xfs", "btrfs", "apfs", "tmpfs", "overlay", "fuse.ext4"):
        _mounted(monkeypatch, ("/", "nfs4"), (tmp_path, kind))
        sqlite._check_file_system(tmp_path / "a.db")


@pytest.mark.parametrize("create", [True, False])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool):
    if not create:
        made_by_optuna(tmp_path / "a.db")
    _mounted(monkeypatch, ("/", "ext4"), (tmp_path, "nfs4"))
    assert "postgresql" in refused(url(tmp_path / "a.db"), create=create)
    assert (tmp_path / "a.db").exists() is not create


def test_the_nearest_mount_decides_and_a_later_one_at_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "local").mkdir()
    (tmp_path / "loc").mkdir()
    _mounted(
        monkeypatch,
        ("/", "nfs4"),
        (tmp_path / "local", "nfs4"),
        (tmp_path / "local", "xfs"),
        (tmp_path / "loc", "ext4"),
    )
    open_storage(url(tmp_path / "local" / "a.db"), create=True)
    assert "nfs4" in refused(url(tmp_path / "a.db"))


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    _mounted(monkeypatch, ("/", "ext4"), (tmp_path / "share", "nfs4"))
    assert "nfs4" in refused(url(tmp_path / "link" / "a.db"))


def test_a_system_that_tells_no_mounts_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(all: bool) -> None:
        raise PermissionError("no /proc/mounts here")

    monkeypatch.setattr(sqlite.psutil, "disk_partitions", denied)
    open_storage(url(tmp_path / "a.db"), create=True)


# Many at once


@pytest.mark.parametrize(("databases", "processes"), [(1, 4), pytest.param(2, 12, marks=pytest.mark.slow)])
def test_processes_make_one_fresh_database_together(tmp_path: Path, databases: int, processes: int):
    made_at_once([url(tmp_path / f"{turn}.db") for turn in range(databases)], processes)


def test_a_database_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, failed = opening.RetryingRDBStorage, []

    def raced(*given: Any, **named: Any) -> Any:
        if len(failed) < 2:
            failed.append(1)
            raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("table studies already exists"))
        return real(*given, **named)

    monkeypatch.setattr(opening, "RetryingRDBStorage", raced)
    assert open_storage(url(tmp_path / "a.db"), create=True).get_all_studies() == []
    assert len(failed) == 2
