"""Workers that are gone: told from those at work, and their slots given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_studies import RANDOM, TPE, create, dead_worker, finish, fitness, slots, wait_for

from optevo import keys
from optevo.liveness import lost
from optevo.liveness.lost import LivenessMonitor, fail_lost_trials, state_of, worker_identity
from optevo.storage.opening import open_storage
from optevo.study.studies import is_complete, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def ask(study: optuna.Study, worker: dict[str, Any] | None) -> optuna.Trial:
    if worker is None:  # killed before it could do anything
        return study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    trial = study.ask()
    trial.set_user_attr(keys.WORKER, worker)
    fitness(trial)
    return trial


def state(study: optuna.Study, trial: optuna.Trial) -> TrialState:
    return study.trials[trial.number].state


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test is over."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


class Clock:
    """A monotonic clock that moves when told, instead of minutes of waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(lost.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def watch(study: optuna.Study, monitor: LivenessMonitor, clock: Clock, seconds: float) -> list[int]:
    """Look every five seconds for so long; which trials were failed."""
    failed = fail_lost_trials(study, monitor)
    for _ in range(round(seconds / 5)):
        clock.now += 5
        failed += fail_lost_trials(study, monitor)
    return failed


def beat(
    study: optuna.Study, trial: optuna.Trial, count: int, when: str = "2026-01-01T00:00:00+00:00"
) -> None:
    study._storage.set_trial_system_attr(trial._trial_id, keys.BEAT, [count, when])


# Processes


def test_this_process_is_live_and_one_that_ended_is_dead():
    assert state_of(worker_identity()) == "live"
    assert state_of(dead_worker()) == "dead"


def test_a_process_that_got_a_dead_ones_number_is_not_the_dead_one():
    assert state_of({**worker_identity(), "started": worker_identity()["started"] - 100}) == "dead"


def test_nothing_is_known_of_another_machines_worker():
    assert state_of({**worker_identity(), "host": "elsewhere"}) == "elsewhere"


def test_a_process_that_ended_and_was_not_waited_for_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = worker_identity(pid=process.pid)
    process.kill()
    try:
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert state_of(identity) == "dead"
    finally:
        process.communicate()


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells a process's start apart from the clock")
def test_setting_the_clock_makes_no_process_look_like_another(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
):
    identity = worker_identity(pid=sleeper.pid)
    # What setting the clock an hour ahead does to psutil's idea of when processes started.
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() + 3600)
    assert state_of(identity) == "live"


# Trials


def test_a_dead_workers_trial_is_evaluated_again_with_the_same_genome(url: str):
    study = create(url)
    study.optimize(fitness, n_trials=5)
    lost = ask(study, dead_worker())
    genome = study.trials[lost.number].params
    assert fail_lost_trials(study, LivenessMonitor()) == [lost.number]
    assert state(study, lost) == TrialState.FAIL
    again, _ = load_study(open_storage(url), "one")
    substitute = ask(again, worker_identity())
    assert substitute.number != lost.number
    assert again.trials[substitute.number].params == genome
    assert (
        keys.ours(again.trials[substitute.number])[keys.SLOT]
        == keys.ours(study.trials[lost.number])[keys.SLOT]
    )


def test_a_living_workers_trial_is_left_alone():
    study = create(InMemoryStorage())
    trial = ask(study, worker_identity())
    assert fail_lost_trials(study, LivenessMonitor()) == []
    assert state(study, trial) == TrialState.RUNNING


def elsewhere(study: optuna.Study) -> optuna.Trial:
    """A running trial of another machine's worker."""
    return ask(study, {**dead_worker(), "host": "elsewhere"})


def test_another_machines_trial_is_left_alone_while_its_heart_beats(clock: Clock):
    study = create(InMemoryStorage())
    trial, monitor = elsewhere(study), LivenessMonitor()
    for count in range(1, 6):
        beat(study, trial, count)
        assert watch(study, monitor, clock, lost.GRACE_SECONDS - 10) == []
    assert state(study, trial) == TrialState.RUNNING


def test_another_machines_trial_without_a_heartbeat_for_long_is_lost(clock: Clock):
    study = create(InMemoryStorage())
    trial = elsewhere(study)
    beat(study, trial, 7)
    assert watch(study, LivenessMonitor(), clock, lost.GRACE_SECONDS + 10) == [trial.number]
    assert state(study, trial) == TrialState.FAIL
    assert "no heartbeat" in study.trials[trial.number].system_attrs[keys.LOST]


def test_clocks_that_differ_or_jump_kill_nobody(clock: Clock):
    study = create(InMemoryStorage())
    trial, monitor = elsewhere(study), LivenessMonitor()
    for count, when in enumerate(["1999-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"]):
        beat(study, trial, count, when)
        assert watch(study, monitor, clock, 60) == []


def test_an_observer_that_was_itself_suspended_takes_nobody_for_dead(clock: Clock):
    study = create(InMemoryStorage())
    elsewhere(study)
    monitor = LivenessMonitor()
    for _ in range(5):
        clock.now += 3600  # seen nothing in between
        assert fail_lost_trials(study, monitor) == []


@pytest.mark.parametrize(
    ("seconds", "gone"), [(lost.NAMELESS_SECONDS - 5, False), (lost.NAMELESS_SECONDS + 10, True)]
)
def test_a_trial_that_never_names_its_worker_is_lost_after_a_while(clock: Clock, seconds: float, gone: bool):
    study = create(InMemoryStorage())
    trial = ask(study, None)
    assert watch(study, LivenessMonitor(), clock, seconds) == ([trial.number] if gone else [])


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_stopped_processs_trial_is_given_to_another(clock: Clock, sleeper: subprocess.Popen[bytes]):
    study, monitor = create(InMemoryStorage()), LivenessMonitor()
    trial = ask(study, worker_identity(pid=sleeper.pid))
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    assert watch(study, monitor, clock, lost.FROZEN_SECONDS - 5) == []
    assert watch(study, monitor, clock, 15) == [trial.number]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_that_was_stopped_for_a_moment_keeps_its_trial(
    clock: Clock, sleeper: subprocess.Popen[bytes]
):
    study, monitor = create(InMemoryStorage()), LivenessMonitor()
    ask(study, worker_identity(pid=sleeper.pid))
    for number, state in [(signal.SIGSTOP, "stopped"), (signal.SIGCONT, "sleeping")] * 3:
        sleeper.send_signal(number)
        wait_for(lambda: psutil.Process(sleeper.pid).status() == state)  # noqa: B023  called at once
        assert watch(study, monitor, clock, lost.FROZEN_SECONDS - 5) == []


def test_a_trial_names_its_worker_as_soon_as_it_holds_a_slot(url: str, monkeypatch: pytest.MonkeyPatch):
    # Killed in between, it would hold its slot for minutes, and the resumed search would stand still.
    from optevo.storage.retrying import RetryingRDBStorage  # noqa: PLC0415

    study, attributes = create(url), []
    for method in ("set_trial_user_attr", "set_trial_system_attr"):
        inner = getattr(RetryingRDBStorage, method)

        def watch(self: Any, trial: int, key: str, value: Any, inner: Any = inner) -> None:
            attributes.append(key)
            inner(self, trial, key, value)

        monkeypatch.setattr(RetryingRDBStorage, method, watch)
    study.optimize(fitness, n_trials=1)
    assert keys.WORKER in attributes
    assert attributes.index(keys.WORKER) < attributes.index(keys.CLAIM)


def test_a_study_that_lost_a_worker_at_every_trial_ends_with_the_same_genomes_and_values(url: str):
    unbroken = finish(create(InMemoryStorage()))
    dead = dead_worker()
    study = create(url)
    while not is_complete(study):
        ask(study, dead)
        fail_lost_trials(study, LivenessMonitor())
        study, _ = load_study(open_storage(url), "one")
        study.optimize(fitness, n_trials=1)
    assert slots(study) == unbroken


def test_a_study_killed_any_number_of_times_on_one_slot_ends_with_the_same_genomes(url: str):
    unbroken = finish(create(InMemoryStorage()))
    dead, study = dead_worker(), create(url)
    study.optimize(fitness, n_trials=3)
    for _ in range(5):
        ask(study, dead)
        fail_lost_trials(study, LivenessMonitor())
        study, _ = load_study(open_storage(url), "one")
    assert finish(study) == unbroken


@pytest.mark.parametrize("sampler", [RANDOM, TPE], ids=lambda sampler: sampler["kind"])
def test_a_preset_lost_with_its_worker_is_evaluated_all_the_same(url: str, sampler: dict[str, Any]):
    study = create(url, sampler=sampler)
    lost = ask(study, dead_worker())
    fail_lost_trials(study, LivenessMonitor())
    study, _ = load_study(open_storage(url), "one")
    study.optimize(fitness, n_trials=15)
    done = [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert study.trials[lost.number].params in done


@pytest.mark.parametrize("error", [psutil.AccessDenied(4711), PermissionError("hidden")])
def test_a_process_that_the_system_hides_is_left_to_its_heartbeat(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    identity = worker_identity()

    def hidden(*_: object) -> None:
        raise error

    monkeypatch.setattr(psutil, "Process", hidden)
    assert state_of(identity) == "elsewhere"


def test_where_other_users_processes_are_hidden_a_missing_one_is_not_called_dead(
    monkeypatch: pytest.MonkeyPatch,
):
    identity = dead_worker()
    monkeypatch.setattr(lost, "_sees_others", lambda: False)
    assert state_of(identity) == "elsewhere"
