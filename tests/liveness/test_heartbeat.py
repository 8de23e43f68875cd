"""A worker's sign of life, as others see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import wait_for

from optevo import keys
from optevo.liveness import heartbeat
from optevo.liveness.heartbeat import Heartbeat


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'a.db'}")


def beats(trial: optuna.Trial) -> int:
    count: int = trial.study._storage.get_trial(trial._trial_id).system_attrs.get(keys.BEAT, [0])[0]
    return count


def test_a_running_trials_count_grows(study: optuna.Study):
    trial = study.ask()
    with Heartbeat().beating(trial):
        wait_for(lambda: beats(trial) >= 3)


def test_it_stops_with_the_trial(study: optuna.Study):
    trial = study.ask()
    with Heartbeat().beating(trial):
        wait_for(lambda: beats(trial))
    count = beats(trial)
    time.sleep(0.2)
    assert beats(trial) == count


def test_a_worker_learns_that_its_trial_was_given_away(study: optuna.Study):
    trial, heart = study.ask(), Heartbeat()
    with heart.beating(trial):
        assert not heart.given_away
        study.tell(trial.number, state=TrialState.FAIL)
        wait_for(lambda: heart.given_away)
    with heart.beating(study.ask()):  # the next trial is its own again
        assert not heart.given_away


def test_a_task_that_hangs_has_no_heartbeat(study: optuna.Study, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    trial, heart = study.ask(), Heartbeat()
    with heart.beating(trial):
        for _ in range(5):  # hours, but it advances
            now[0] += heartbeat.HUNG_SECONDS - 1
            heart.pulse()
            before = beats(trial)
            _until(lambda: beats(trial) > before)  # noqa: B023  called at once
        threads = len(threading.enumerate())
        now[0] += heartbeat.HUNG_SECONDS + 1
        _until(lambda: len(threading.enumerate()) < threads)
        after = beats(trial)
        time.sleep(0.1)
        assert beats(trial) == after


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):  # the clock of `wait_for` stands still here
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came")
