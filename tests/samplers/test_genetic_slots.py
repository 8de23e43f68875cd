"""Slots of a genetic search in the host's hands: asked for, waited for, taken over, tried again."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

import optuna
import pytest
from genetic import (
    ask_slot,
    by_slot,
    plain,
    sizes,
    slot,
    unbroken,
)
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import Trial, TrialState

from optevo import keys
from optevo.samplers import GeneticSampler, NoSlot
from optevo.samplers import claiming as claims

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("the sampler waits")

    monkeypatch.setattr(claims.time, "sleep", sleep)


@pytest.mark.usefixtures("no_waiting")
def test_ask_never_waits():
    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    trials = [study.ask() for _ in range(7)]
    assert Counter(slot(t) for t in study.trials) == {(0, 0): 3, (0, 1): 2, (0, 2): 2}
    assert len(trials) == 7


@pytest.mark.usefixtures("no_waiting")
def test_ask_does_not_wait_for_a_trial_whose_process_died_before_it_chose_a_slot():
    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=1, seed=0))
    study.optimize(plain, n_trials=2)
    study._storage.create_new_trial(study._study_id)
    assert ask_slot(study) == (1, 0)


@pytest.mark.usefixtures("no_waiting")
def test_ask_takes_an_open_slot_rather_than_a_live_trials():
    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=0, seed=0))
    study._storage.create_new_trial(study._study_id)  # dies before it chooses
    taken = [ask_slot(study) for _ in range(2)]
    assert sorted(taken) == [(0, 0), (0, 1)]


def test_a_worker_takes_over_the_slot_of_a_dead_trial_when_its_patience_ends():
    sampler = GeneticSampler(population_size=2, n_elites=1, seed=0, patience=0.2)
    study = optuna.create_study(sampler=sampler)
    dead = study.ask()
    plain(dead)
    study.optimize(plain, n_trials=3)
    assert [slot(trial) for trial in study.trials] == [(0, 0), (0, 1), (0, 0), (1, 0)]
    assert study.trials[2].params == dead.params


def test_one_takeover_is_enough_for_one_long_trial():
    def objective(trial: Trial) -> float:
        value = plain(trial)
        time.sleep(0.8 if slot(trial.storage.get_trial(trial._trial_id)) == (0, 0) else 0)
        return value

    sampler = GeneticSampler(population_size=4, n_elites=1, seed=0, patience=0.5)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=10, n_jobs=6)
    # The substitute is as young as the patience: the other four waiting workers have nothing to add.
    assert Counter(slot(trial) for trial in study.trials)[(0, 0)] <= 2


def test_of_two_that_finish_in_one_slot_the_first_counts():
    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=1, seed=0))
    first, _, takeover = (study.ask() for _ in range(3))
    for trial in (first, takeover):
        plain(trial)
    study.tell(takeover, 1.0)
    study.tell(first, 2.0)
    study.tell(1, 3.0)
    assert [m.number for m in study.sampler.slot_table(study).populations[0]] == [takeover.number, 1]


def test_every_worker_counts_the_same_of_two_that_finish_in_one_slot(monkeypatch):
    # The second to finish comes from a machine whose clock is an hour slow.
    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=1, seed=0))
    first, other, takeover = (study.ask() for _ in range(3))
    for trial in (first, other, takeover):
        plain(trial)
    study.tell(takeover, 1.0)
    study.tell(other, 3.0)
    there = study.sampler.slot_table(study).populations[0]
    study.tell(first, 2.0)
    late = study._storage._get_trial(first._trial_id)
    late.datetime_complete -= timedelta(hours=1)
    newcomer = GeneticSampler(population_size=2, n_elites=1, seed=0)
    assert newcomer.slot_table(study).populations[0] == there


def test_a_retry_of_a_stale_trial_takes_back_its_slot():
    def sampler() -> GeneticSampler:
        return GeneticSampler(population_size=3, n_elites=1, seed=0)

    study = optuna.create_study(sampler=sampler())
    stale = study.ask()
    plain(stale)
    study.tell(stale, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(study, study.trials[0])
    study.optimize(plain, n_trials=7)
    assert by_slot(study) == unbroken(7, population_size=3, n_elites=1, seed=0)


def test_a_trial_object_made_again_keeps_its_slot():
    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    trial = study.ask()
    assert slot(study.trials[0]) == (0, 0)
    Trial(study, trial._trial_id)
    assert slot(study.trials[0]) == (0, 0)


def test_a_finite_search_raises_when_its_last_generation_is_full():
    sampler = GeneticSampler(population_size=3, n_elites=1, n_generations=2, seed=0, endless=False)
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(NoSlot):
        study.optimize(plain, n_trials=10)
    surplus = study.trials[-1]
    assert sizes(study) == {0: 3, 1: 2, None: 1}
    assert surplus.state == TrialState.FAIL
    assert surplus.user_attrs == {keys.SURPLUS: True}


def test_a_surplus_trial_holds_no_slot():
    sampler = GeneticSampler(population_size=2, n_elites=1, n_generations=2, seed=0, endless=False)
    study = optuna.create_study(sampler=sampler)
    trials = [study.ask(), study.ask()]
    with pytest.raises(NoSlot):
        study.ask()
    for trial in trials:
        study.tell(trial, plain(trial))
    assert ask_slot(study) == (1, 0)


@pytest.mark.usefixtures("no_waiting")
def test_a_finite_search_gives_open_slots_away_though_a_process_died_before_it_chose():
    sampler = GeneticSampler(population_size=2, n_elites=1, n_generations=2, seed=0, endless=False)
    study = optuna.create_study(sampler=sampler)
    study.optimize(plain, n_trials=2)
    study._storage.create_new_trial(study._study_id)
    assert ask_slot(study) == (1, 0)
