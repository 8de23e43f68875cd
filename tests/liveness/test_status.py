"""Who is at work on a study, and `optevo repair`."""

from __future__ import annotations

import datetime

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_studies import create, dead_worker, finish, fitness
from typer.testing import CliRunner

from optevo import keys
from optevo.cli.main import app
from optevo.liveness.lost import worker_identity
from optevo.liveness.status import repair, running_trials


def at_work(study: optuna.Study, **worker: object) -> optuna.Trial:
    trial = study.ask()
    fitness(trial)
    trial.set_user_attr(keys.WORKER, {**worker_identity("cpu"), **worker})
    return trial


def beat(trial: optuna.Trial, seconds_ago: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    when = (now - datetime.timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
    trial.study._storage.set_trial_system_attr(trial._trial_id, keys.BEAT, [1, when])


def four(study: optuna.Study) -> None:
    """A live worker, a dead one, and two of another machine, one of which has long been silent."""
    at_work(study)
    at_work(study, **dead_worker())
    beat(at_work(study, host="far/away", pid=17), 10)
    beat(at_work(study, host="far/away", pid=18), 4000)


def test_live_dead_and_stale_workers_are_told_apart(url: str):
    study = create(url)
    four(study)
    assert [running_trial.state for running_trial in running_trials(study)] == [
        "live",
        "dead",
        "live",
        "stale",
    ]
    assert [running_trial.name for running_trial in running_trials(study)][3] == "far, process 18"


def test_status_lists_the_workers(url: str):
    study = create(url)
    four(study)
    answer = CliRunner().invoke(app, ["status", "--storage", url])
    assert answer.exit_code == 0
    assert "4, 2 gone" in answer.output
    for word in ("live", "dead", "stale", "far, process 18", "cpu"):
        assert word in answer.output


def test_repair_gives_back_what_dead_and_silent_workers_held_and_nothing_else(url: str):
    study = create(url)
    four(study)
    answer = CliRunner().invoke(app, ["repair", "one", "--storage", url])
    assert answer.exit_code == 0
    assert "2 trials given back" in answer.output
    states = [trial.state for trial in create(url).trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL]
    assert ["given back" in t.system_attrs.get(keys.LOST, "") for t in study.trials] == [False, True] * 2


def test_repair_takes_everything_when_told_and_the_study_ends_as_ever(url: str):
    untroubled = finish(create(InMemoryStorage()))
    study = create(url)
    four(study)
    assert all(given_back for _, given_back in repair(study, everything=True))
    assert finish(create(url)) == untroubled


def test_repair_of_a_sound_study_says_that_nothing_was_left(url: str):
    finish(create(url))
    answer = CliRunner().invoke(app, ["repair", "one", "--storage", url])
    assert (answer.exit_code, answer.output.strip()) == (0, "nothing was left behind")
