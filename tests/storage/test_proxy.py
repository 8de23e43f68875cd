"""A database that one machine serves to others: its clients wait for it and learn what is wrong with it."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import GrpcStorageProxy, RDBStorage
from optuna.trial import TrialState
from storages import failing, logged
from stored_studies import content, made

from optevo.errors import UserError
from optevo.storage.copying import copy_studies
from optevo.storage.opening import open_storage

pytestmark = pytest.mark.usefixtures("short_pauses")

_LONG = 120  # seconds that nothing takes but a hang


@contextmanager
def served(url: str, port: int, zone: str = "UTC") -> Iterator[subprocess.Popen[str]]:
    """`optevo storage serve` in a process of its own, in a time zone; killed in the end if it still runs."""
    code = "from optevo.cli.storage import app; app()"
    command = [sys.executable, "-c", code, "serve", "--storage", url, "--port", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TZ": zone},
    )
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
    assert [f"grpc://127.0.0.1:{port}" in said for said in logged(caplog)] == [True, True]


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


def test_a_copy_can_come_from_a_proxy_and_go_to_one(tmp_path: Path):
    proxy = pytest.importorskip("optevo.storage.proxy")
    made(f"sqlite:///{tmp_path / 'a.db'}")
    urls, servers = [], []
    try:
        for name in ("a.db", "b.db"):
            port = free_port()
            storage = open_storage(f"sqlite:///{tmp_path / name}", create=True)
            servers.append(proxy.start_server(storage, "127.0.0.1", port))
            urls.append(f"grpc://127.0.0.1:{port}")
        list(copy_studies(*urls))
        assert content(urls[0]) == content(urls[1])
    finally:
        for server in servers:
            server.stop(None).wait()


def test_a_server_ends_cleanly(tmp_path: Path):
    """By Ctrl-C; another test ends one by SIGTERM."""
    pytest.importorskip("grpc")
    port = free_port()
    code = "from optevo.cli.storage import app; app()"
    command = [sys.executable, "-c", code, "serve", "--port", str(port)]
    env = {**os.environ, "OPTEVO_STORAGE": f"sqlite:///{tmp_path / 'a.db'}"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f"grpc://127.0.0.1:{port}" in process.stdout.readline()
        storage = open_storage(f"grpc://127.0.0.1:{port}")
        assert storage.get_all_studies() == []
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=_LONG)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_a_proxy_of_a_proxy_is_refused(tmp_path: Path):
    proxy = pytest.importorskip("optevo.storage.proxy")
    with pytest.raises(UserError, match="not another proxy"):
        proxy.start_server(optuna.storages.InMemoryStorage(), "127.0.0.1", 1)


def test_a_proxy_in_another_time_zone_tells_and_takes_instants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("grpc")
    first, port = f"sqlite:///{tmp_path / 'a.db'}", free_port()
    made(first)
    with served(first, port, "Asia/Tokyo"):
        proxy = f"grpc://127.0.0.1:{port}"
        try:
            monkeypatch.setenv("TZ", "America/New_York")
            time.tzset()
            assert content(proxy) == content(first)
            study = optuna.load_study(study_name="one", storage=open_storage(proxy))
            study.add_trial(study.get_trials(states=(TrialState.COMPLETE,))[0])
            number = study.ask().number
            assert content(proxy) == content(first)
            stored = optuna.load_study(study_name="one", storage=open_storage(first)).trials
            assert stored[-1].datetime_complete == stored[0].datetime_complete
            started = stored[number].datetime_start
            assert started is not None
            assert abs((datetime.datetime.now() - started).total_seconds()) < 600
            theirs = GrpcStorageProxy(host="127.0.0.1", port=port)  # as before: the server's local time
            (trial, *_) = theirs.get_all_trials(study._study_id)
            assert trial.datetime_start is not None
            assert stored[0].datetime_start is not None
            assert (trial.datetime_start - stored[0].datetime_start).total_seconds() in (13 * 3600, 14 * 3600)
            assert theirs.create_new_trial(study._study_id, trial)
        finally:
            monkeypatch.undo()
            time.tzset()
