"""A worker's sign of life, as others see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optevo import heartbeat, keys
from optevo.heartbeat import Heartbeat

PATIENCE = 60


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'a.db'}")


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


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
    monkeypatch.setattr(heartbeat, "HUNG_SECONDS", 0.5)
    trial, heart = study.ask(), Heartbeat()
    with heart.beating(trial):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:  # while it advances, it beats
            heart.pulse()
            time.sleep(0.01)
        before = beats(trial)
        assert before > 2
        time.sleep(1.5)
        after = beats(trial)
        time.sleep(0.3)
        assert beats(trial) == after
