"""Storages that go away and come back, fill up, or answer twice: what is tried again and what is said."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from optevo.errors import UserError
from optevo.storage import errors as outage
from optevo.storage import retrying as patience
from optevo.storage.errors import StorageUnreachable, explain, first_line
from optevo.storage.opening import open_storage

_LONG = 120  # seconds that nothing takes but a hang


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    opened = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    assert isinstance(opened, RDBStorage)
    return opened


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)


def failing(storage: RDBStorage, times: int, error: Exception, *, after: bool = False) -> list[str]:
    """Let the storage's next commits fail; `after` they were carried out, as if their answer were lost."""
    failed: list[str] = []

    def fail(connection: Any) -> None:
        if len(failed) < times:
            failed.append(str(error))
            if after:
                connection.connection.commit()
            raise outage.unreachable(storage.name, str(error))

    sqlalchemy.event.listen(storage.engine, "commit", fail)
    return failed


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("optevo")]


# What is retrying


@pytest.mark.parametrize("kind", [patience.RetryingRDBStorage, "grpc"])
def test_every_call_that_optuna_makes_is_patient(kind: Any):
    if kind == "grpc":
        kind = pytest.importorskip("optevo.storage.proxy").RetryingGrpcStorageProxy
    for name in vars(BaseStorage):
        if name.startswith("_") or name in ("remove_session", "check_trial_is_updatable"):
            continue
        assert hasattr(getattr(kind, name), "__wrapped__"), name


def test_optuna_takes_a_patient_storage_for_its_own(storage: RDBStorage):
    assert isinstance(optuna.create_study(storage=storage)._storage, _CachedStorage)
    assert issubclass(pytest.importorskip("optevo.storage.proxy").RetryingGrpcStorageProxy, GrpcStorageProxy)


def test_a_call_is_tried_again_until_it_is_answered_and_says_so_once(
    storage: RDBStorage, caplog: pytest.LogCaptureFixture
):
    study = optuna.create_study(storage=storage)
    failed = failing(storage, 5, OSError("gone"))
    with caplog.at_level(logging.WARNING, "optevo"):
        study.set_user_attr("a", 1)
    assert len(failed) == 5
    assert study.user_attrs == {"a": 1}
    said = _said(caplog)
    assert len(said) == 2
    assert "does not answer (gone): trying again for up to 10 minutes" in said[0]
    assert said[1] == f"the storage {storage.name} answers again"


def test_a_storage_that_never_answers_is_given_up(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 0.2)
    study = optuna.create_study(storage=storage)
    failing(storage, 10**9, OSError("gone"))
    with pytest.raises(StorageUnreachable, match="nothing stored is lost"):
        study.set_user_attr("a", 1)


def test_who_is_asked_to_stop_waits_no_longer(tmp_path: Path):
    asked = threading.Event()
    opened = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True, should_stop=asked.is_set)
    assert isinstance(opened, RDBStorage)
    study = optuna.create_study(storage=opened)
    failing(opened, 10**9, OSError("gone"))
    threading.Timer(0.3, asked.set).start()
    with pytest.raises(StorageUnreachable):
        study.set_user_attr("a", 1)
    assert asked.is_set()


def test_a_mistake_is_not_tried_again(storage: RDBStorage):
    with pytest.raises(KeyError):
        storage.get_trial(7)
    with pytest.raises(KeyError):
        storage.delete_study(7)
    study = optuna.create_study(storage=storage, study_name="one")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name="one")
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])


def test_a_locked_database_is_waited_for_beyond_the_busy_timeout(tmp_path: Path):
    path = tmp_path / "a.db"
    storage = open_storage(f"sqlite:///{path}", create=True)
    assert isinstance(storage, RDBStorage)
    study = optuna.create_study(storage=storage)

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def _impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=10")

    storage.engine.dispose()
    with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(1.0, other.rollback)
        timer.start()
        for n in range(3):
            study.set_user_attr(f"a{n}", n)
        study.ask()
        timer.join()
    assert study.user_attrs == {"a0": 0, "a1": 1, "a2": 2}
    assert len(study.trials) == 1


# Carried out, but the acknowledgement was lost


def test_a_trial_is_told_once_though_its_acknowledgement_is_lost(storage: RDBStorage):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    failed = failing(storage, 1, OSError("gone"), after=True)
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5]) is True
    assert failed
    assert [(t.state, t.value) for t in study.trials] == [(TrialState.COMPLETE, 0.5)]


def test_a_trial_that_another_failed_during_the_outage_is_not_taken_for_told(storage: RDBStorage):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    failing(storage, 1, OSError("gone"))
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])


@pytest.mark.parametrize(
    "write",
    [
        lambda storage, trial: storage.set_trial_user_attr(trial._trial_id, "a", [1, 2]),
        lambda storage, trial: storage.set_trial_system_attr(trial._trial_id, "a", [1, 2]),
        lambda storage, trial: storage.set_trial_intermediate_value(trial._trial_id, 3, 0.5),
        lambda storage, trial: storage.set_trial_param(
            trial._trial_id, "x", 0.5, optuna.distributions.FloatDistribution(0, 1)
        ),
        lambda storage, trial: storage.set_study_user_attr(trial.study._study_id, "a", 1),
        lambda storage, trial: storage.set_study_system_attr(trial.study._study_id, "a", 1),
    ],
    ids=["user attribute", "system attribute", "report", "parameter", "study's", "study's system"],
)
def test_what_is_written_twice_is_there_once(
    storage: RDBStorage, write: Callable[[RDBStorage, optuna.Trial], None]
):
    study = optuna.create_study(storage=storage)
    once, twice = study.ask(), study.ask()
    write(storage, once)
    studies = storage.get_all_studies()
    failed = failing(storage, 1, OSError("gone"), after=True)
    write(storage, twice)
    assert failed
    assert storage.get_all_studies() == studies
    a, b = storage.get_trial(once._trial_id), storage.get_trial(twice._trial_id)
    for field in ("params", "user_attrs", "system_attrs", "intermediate_values", "state", "values"):
        assert getattr(a, field) == getattr(b, field)


def test_a_study_is_deleted_once_though_its_acknowledgement_is_lost(storage: RDBStorage):
    study = optuna.create_study(storage=storage)
    failing(storage, 1, OSError("gone"), after=True)
    storage.delete_study(study._study_id)
    assert storage.get_all_studies() == []


# A full disk


def _sqlite_error(code: int, message: str = "it hurts") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


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


# What errors mean


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
        (sqlite3.SQLITE_READONLY, 10**9, None),
    ],
)
def test_sqlites_errors_are_told_apart_by_their_code(
    monkeypatch: pytest.MonkeyPatch, code: int, free: int, word: str | None
):
    monkeypatch.setattr(outage.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
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


# The proxy


@contextmanager
def served(url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """`optevo storage serve` in a process of its own; killed in the end where it still runs."""
    code = "from optevo.cli.storage import app; app()"
    command = [sys.executable, "-c", code, "serve", "--storage", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_a_study_goes_on_when_its_proxy_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("grpc")
    url, port = f"sqlite:///{tmp_path / 'a.db'}", free_port()
    with caplog.at_level(logging.WARNING, "optevo"):
        with served(url, port) as server:
            storage = open_storage(f"grpc://127.0.0.1:{port}")
            # This sampler doesn't read the trials, by which the server would learn of them.
            sampler = optuna.samplers.RandomSampler(seed=0)
            study = optuna.create_study(study_name="one", storage=storage, sampler=sampler)
            trial = study.ask()
            server.terminate()
            assert server.wait(_LONG) == 0
        ended: list[float] = []

        def go_on() -> None:
            ended.append(trial.suggest_float("x", 0, 1))  # a trial that the next server has not seen
            study.tell(trial, ended[0])

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(1)
        assert not ended
        with served(url, port):
            thread.join(_LONG)
            assert [(t.params, t.value) for t in study.trials] == [({"x": ended[0]}, ended[0])]
    assert [f"grpc://127.0.0.1:{port}" in said for said in _said(caplog)] == [True, True]


def test_no_proxy_at_an_address_is_told_with_how_to_start_one(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("grpc")
    monkeypatch.setattr("optevo.storage.opening._PROXY_SECONDS", 0.5)
    with pytest.raises(UserError, match="optevo storage serve"):
        open_storage(f"grpc://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("url", ["grpc://u:topsecret@h:1", "grpc://h:1/db", "grpc://h:1?password=topsecret"])
def test_a_proxys_url_has_a_host_and_a_port_and_nothing_more(url: str):
    with pytest.raises(UserError, match="nothing more") as caught:
        open_storage(url)
    assert "topsecret" not in str(caught.value)


def test_a_port_in_use_is_told(storage: RDBStorage):
    proxy = pytest.importorskip("optevo.storage.proxy")
    port = free_port()
    server = proxy.start_server(storage, "127.0.0.1", port)
    try:
        with pytest.raises(UserError, match="in use"):
            proxy.start_server(storage, "127.0.0.1", port)
    finally:
        server.stop(None).wait()


def test_what_is_wrong_with_a_proxys_database_reaches_its_clients(tmp_path: Path):
    proxy = pytest.importorskip("optevo.storage.proxy")
    storage = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True, should_stop=lambda: True)
    assert isinstance(storage, RDBStorage)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "one")
    port = free_port()
    server = proxy.start_server(storage, "127.0.0.1", port)
    try:
        client = open_storage(f"grpc://127.0.0.1:{port}")
        failed = failing(storage, 3, OSError("gone"))
        client.set_study_user_attr(study_id, "a", 1)  # waits
        assert len(failed) == 3
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
            connection.execute("DROP TABLE study_user_attributes")
        with pytest.raises(UserError, match=r"a\.db is damaged"):
            client.set_study_user_attr(study_id, "a", 1)
    finally:
        server.stop(None).wait()


# One transaction


def test_of_two_who_finish_a_trial_at_once_exactly_one_succeeds(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    storages = [open_storage(url, create=True), open_storage(url)]
    study_id = storages[0].create_new_study([StudyDirection.MAXIMIZE], "one")
    both = threading.Barrier(2)

    def finish(storage: BaseStorage, trial_id: int, state: TrialState) -> bool:
        both.wait(60)
        try:
            return storage.set_trial_state_values(
                trial_id, state, [1.0] if state.name == "COMPLETE" else None
            )
        except UpdateFinishedTrialError:
            return False

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(25):
            trial_id = storages[0].create_new_trial(study_id)
            states = (TrialState.COMPLETE, TrialState.FAIL)
            calls = [
                pool.submit(finish, s, trial_id, state) for s, state in zip(storages, states, strict=True)
            ]
            assert sorted(call.result() for call in calls) == [False, True]
            trial = storages[1].get_trial(trial_id)
            assert (trial.state == TrialState.COMPLETE) == (trial.values == [1.0])
