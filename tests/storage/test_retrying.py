"""Storages that go away and come back, or answer twice: what is tried again and what is said."""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from storages import failing, logged

from optevo.storage import retrying
from optevo.storage.errors import StorageUnreachable
from optevo.storage.opening import count_states, open_storage

pytestmark = pytest.mark.usefixtures("short_pauses")

_LONG = 120  # seconds that nothing takes but a hang


# What is retrying


@pytest.mark.parametrize("kind", [retrying.RetryingRDBStorage, "grpc"])
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
    said = logged(caplog)
    assert len(said) == 2
    assert "does not answer (gone): trying again for up to 10 minutes" in said[0]
    assert said[1] == f"the storage {storage.name} answers again"


def test_a_storage_that_never_answers_is_given_up(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrying, "OUTAGE_SECONDS", 0.2)
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
    trial = study.ask()

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def _impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=10")

    storage.engine.dispose()
    with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(1.0, other.rollback)
        timer.start()
        study.tell(trial, 1.0)
        for n in range(3):
            study.set_user_attr(f"a{n}", n)
        study.ask()
        timer.join()
    assert study.user_attrs == {"a0": 0, "a1": 1, "a2": 2}
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING"]
    assert count_states(study) == {"COMPLETE": 1, "RUNNING": 1}


def test_a_storage_can_be_sent_to_another_process(storage: RDBStorage):
    study = optuna.create_study(storage=storage)
    sent = pickle.loads(pickle.dumps(storage))
    failed = failing(sent, 1, OSError("gone"))
    sent.set_study_user_attr(study._study_id, "a", 1)
    assert failed
    assert study.user_attrs == {"a": 1}


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
