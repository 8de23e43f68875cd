"""A real PostgreSQL server: stopped under its workers, created by many at once, and its password unseen."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from postgres import PASSWORD, Postgres
from storages import made_at_once
from stored_studies import content, made

from optevo.errors import UserError
from optevo.storage.copying import copy_studies
from optevo.storage.errors import StorageUnreachable
from optevo.storage.opening import open_storage
from optevo.storage.study_file import read_study, save_study

pytestmark = [pytest.mark.postgres, pytest.mark.usefixtures("quiet_optuna")]

_LONG = 120  # seconds that nothing takes but a hang


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """One that a test may stop: the next finds it running."""
    yield postgres
    postgres.stop()
    postgres.start()


def test_a_copy_to_postgresql_and_back_keeps_everything(url: str, tmp_path: Path, postgres: Postgres):
    """And from a file of it, though the server is started again: the one of these tests that always runs."""
    middle, last = f"{postgres.fresh_url()}?keepalives_idle=7", f"sqlite:///{tmp_path / 'b.db'}"
    made(url)
    list(copy_studies(url, middle))
    assert list(copy_studies(middle, last)) == ["study 'one': 8 trials copied"]
    assert content(url) == content(middle) == content(last)
    assert PASSWORD not in str(open_storage(last).get_all_studies())
    opened = open_storage(middle)
    before = opened.get_all_studies()
    postgres.stop()
    postgres.start()
    assert opened.get_all_studies() == before  # by a connection that was made anew
    save_study(middle, "one", tmp_path / "one.json")
    assert content(read_study(tmp_path / "one.json")) == content(url)


def _work(url: str, worker: int, n: int) -> None:
    """Evaluate `n` trials, each of which says which it is."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="one", storage=open_storage(url))
    for i in range(n):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("which", [worker, i])
        trial.report(x, 1)
        study.tell(trial, x)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("immediate", [False, True], ids=["shut down", "crashed"])
def test_workers_go_on_after_an_outage_and_nothing_is_lost_or_doubled(server: Postgres, immediate: bool):
    url = server.fresh_url()
    study = optuna.create_study(study_name="one", storage=open_storage(url, create=True))
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work, args=(url, worker, 40)) for worker in range(2)]
    for worker in workers:
        worker.start()
    until = time.monotonic() + _LONG
    while len(study.trials) < 10 and time.monotonic() < until:
        time.sleep(0.1)
    server.stop(immediate=immediate)
    time.sleep(5)
    assert all(worker.is_alive() for worker in workers)
    server.start()
    for worker in workers:
        worker.join(_LONG)
        assert worker.exitcode == 0
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    which = sorted(tuple(trial.user_attrs["which"]) for trial in done)
    assert which == [(worker, i) for worker in range(2) for i in range(40)]
    assert all(trial.value == trial.params["x"] == trial.intermediate_values[1] for trial in done)
    # A creation whose acknowledgement was lost leaves a trial that says nothing.
    assert all(not trial.user_attrs for trial in study.trials if trial not in done)
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))


@pytest.mark.slow
def test_who_is_asked_to_stop_during_an_outage_stops(server: Postgres):
    url, asked = server.fresh_url(), threading.Event()
    storage = open_storage(url, create=True, should_stop=asked.is_set)
    study = optuna.create_study(storage=storage)
    server.stop()
    threading.Timer(1, asked.set).start()
    with pytest.raises(StorageUnreachable):
        study.ask()
    assert asked.is_set()


@pytest.mark.slow
def test_twelve_processes_make_one_fresh_database_together(server: Postgres):
    made_at_once([server.fresh_url() for _ in range(2)], 12)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_told_at_once(server: Postgres):
    url = server.fresh_url()
    server.stop()
    with pytest.raises(UserError, match="does not answer"):
        open_storage(url, create=True)


@pytest.mark.slow
def test_a_server_that_is_starting_is_waited_for(server: Postgres, monkeypatch: pytest.MonkeyPatch):
    import psycopg  # noqa: PLC0415  an extra

    url, real, refused = server.fresh_url(), psycopg.connect, []

    def starting(*args, **kwargs):
        if len(refused) < 3:
            refused.append(1)
            raise psycopg.OperationalError("connection failed: FATAL:  the database system is starting up")
        return real(*args, **kwargs)

    monkeypatch.setattr(psycopg, "connect", starting)
    open_storage(url, create=True)
    assert len(refused) == 3


@pytest.mark.slow
def test_too_many_connections_are_waited_for(server: Postgres):
    import psycopg  # noqa: PLC0415  an extra

    study = optuna.create_study(storage=open_storage(server.fresh_url(), create=True))
    study._storage._backend.engine.dispose()
    address = {"host": "127.0.0.1", "port": server.port, "dbname": "postgres"}
    others: list[psycopg.Connection] = []
    with pytest.raises(psycopg.OperationalError, match=r"too many clients|connection slots"):
        others.extend(psycopg.connect(**address, user="optevo") for _ in range(1000))
    threading.Timer(2, lambda: [other.close() for other in others]).start()
    study.ask()
    assert len(study.trials) == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", ["trials", "trial_user_attributes"])
def test_a_missing_table_is_damage(server: Postgres, table: str):
    url = server.fresh_url()
    study = optuna.create_study(storage=open_storage(url, create=True))
    trial = study.ask()
    server.execute(f"DROP TABLE {table} CASCADE", url.rpartition("/")[2])
    with pytest.raises(UserError, match="damaged") as caught:
        trial.set_user_attr("a", 1)
    assert PASSWORD not in str(caught.value)


@pytest.mark.slow
def test_a_database_that_does_not_exist_is_told_without_the_password(server: Postgres):
    with pytest.raises(UserError, match="does not exist") as caught:
        open_storage(server.url.replace("/postgres", "/nosuch"), create=True)
    assert PASSWORD not in str(caught.value)


@pytest.mark.slow
def test_no_message_or_log_shows_the_password(server: Postgres, caplog: pytest.LogCaptureFixture):
    asked = threading.Event()
    url = server.fresh_url()
    assert PASSWORD in url
    study = optuna.create_study(storage=open_storage(url, create=True, should_stop=asked.is_set))
    server.stop()
    threading.Timer(1, asked.set).start()
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageUnreachable) as caught:
        study.ask()
    with pytest.raises(UserError) as opening:
        open_storage(url)
    assert "does not answer" in caplog.text
    for text in (caplog.text, str(caught.value), str(opening.value)):
        assert PASSWORD not in text


@pytest.mark.slow
def test_a_lost_network_is_noticed_within_a_minute(server: Postgres):
    storage = open_storage(server.fresh_url() + "?keepalives_idle=7", create=True)
    assert isinstance(storage, RDBStorage)
    with storage.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        settings = raw.info.get_parameters()
    assert settings["keepalives_idle"] == "7"  # the user's own
    assert int(settings["tcp_user_timeout"]) <= 60_000
    assert int(settings["connect_timeout"]) <= 60


@pytest.mark.slow
def test_a_client_that_stands_still_in_a_transaction_does_not_hold_its_locks_for_ever(server):
    storage = open_storage(server.fresh_url(), create=True)
    with storage.engine.connect() as connection:
        show = lambda name: connection.exec_driver_sql(f"SHOW {name}").scalar()  # noqa: E731
        assert (show("idle_in_transaction_session_timeout"), show("lock_timeout")) == ("30s", "1min")
