"""A database that may be read and no more is looked at; what would write says so, and nothing is touched."""

from __future__ import annotations

import os
import pickle
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest

from optevo.errors import UserError
from optevo.storage.opening import open_storage

_NOBODY = 65534


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def made_by_optuna(path: Path) -> Path:
    """An Optuna database in its default journal mode, with a study in it."""
    storage = optuna.storages.RDBStorage(url(path))
    optuna.create_study(storage=storage, study_name="theirs")
    storage.remove_session()
    storage.engine.dispose()
    return path


def refused(url: str, *, create: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        open_storage(url, create=create)
    return str(caught.value)


@contextmanager
def _as_an_ordinary_user() -> Iterator[Path]:
    """A folder of root's, seen by a user who may read it and no more."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no user ids here")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        made_by_optuna(path / "a.db").chmod(0o444)
        root = os.geteuid() == 0
        if not root:
            path.chmod(0o555)
        try:
            if root:
                os.seteuid(_NOBODY)
            yield path
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o755)


def test_a_file_that_cannot_be_written_is_refused_and_left_as_it_was():
    with _as_an_ordinary_user() as folder:
        before = (folder / "a.db").read_bytes()
        assert "a.db" in refused(url(folder / "a.db"), create=True)
        assert (folder / "a.db").read_bytes() == before


def test_a_file_that_cannot_be_written_can_be_looked_at():
    with _as_an_ordinary_user() as folder:
        storage = open_storage(url(folder / "a.db"))
        assert [study.study_name for study in storage.get_all_studies()] == ["theirs"]


def test_a_folder_that_cannot_be_written_is_refused():
    with _as_an_ordinary_user() as folder:
        assert "new.db is read-only here, or its folder is" in refused(url(folder / "new.db"))
        assert not (folder / "new.db").exists()


@contextmanager
def _logged_ahead(*, left: bool = False, rollback: bool = False) -> Iterator[Path]:
    """A database as `optevo run` leaves it in a folder that the user can't write; or with changes `left`."""
    with _as_an_ordinary_user() as folder:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(0o755)
        name = "b.db" if left else "ähnliche Größe % #.db"
        storage = open_storage(url(folder / "b.db"), create=True)
        optuna.create_study(study_name="ours", storage=storage)
        storage.remove_session()
        storage.engine.dispose()
        if left:
            journal = "-journal" if rollback else "-wal"
            (folder / f"b.db{journal}").write_bytes(b"changes")
        (folder / "b.db").rename(folder / name)
        (folder / name).chmod(0o444)
        folder.chmod(0o555)
        if os.getuid() == 0:
            folder.chmod(0o755)
            os.seteuid(_NOBODY)
        yield folder / name


def test_a_log_ahead_in_a_folder_that_cannot_be_written_can_be_looked_at_and_copied(tmp_path: Path):
    with _logged_ahead() as path:
        before = sorted((file.name, file.read_bytes()) for file in path.parent.iterdir())
        with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.OperationalError):
            connection.execute("SELECT * FROM studies")  # SQLite by itself
        storage = open_storage(url(path))
        assert [study.study_name for study in storage.get_all_studies()] == ["ours"]
        again = pickle.loads(pickle.dumps(storage))
        assert [study.study_name for study in again.get_all_studies()] == ["ours"]
        with pytest.raises(UserError, match=r"is read-only here.*copy it to a folder of your own"):
            storage.set_study_user_attr(1, "a", 1)
        assert sorted((file.name, file.read_bytes()) for file in path.parent.iterdir()) == before


@pytest.mark.parametrize("rollback", [True, False])
def test_changes_beside_a_file_that_only_a_writer_could_take_in_are_not_passed_over(rollback: bool):
    with _logged_ahead(left=True, rollback=rollback) as path:
        journal = "-journal" if rollback else "-wal"
        assert f"b.db{journal} holds changes" in refused(url(path), create=False)


def test_a_file_that_may_not_be_read_is_refused_without_advice_about_backups():
    with _as_an_ordinary_user() as folder:
        if os.getuid() == 0:
            os.seteuid(0)
        (folder / "a.db").chmod(0)
        if os.getuid() == 0:
            os.seteuid(_NOBODY)
        message = refused(url(folder / "a.db"), create=False)
        assert "permission denied" in message
        assert "backup" not in message
