"""`GeneticSampler` against every trap of genetic sampling under Optuna, each first sprung on NSGA-II.

A check that both samplers can take is a function of a sampler factory. It raises `AssertionError` where the
sampler walks into the trap: the test for ours calls it, the test for Optuna's expects the error.
"""

from __future__ import annotations

import time
from typing import Any

import optuna
import pytest
from genetic import (
    CountingStorage,
    CountingTrials,
    Factory,
    generation,
    ours,
    plain,
    sizes,
    ternary,
)
from optuna.samplers import NSGAIISampler
from optuna.storages import InMemoryStorage
from optuna.trial import Trial

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def nsga2(population: int) -> NSGAIISampler:
    return NSGAIISampler(population_size=population, seed=0)


# Traps that both samplers can step into


def enqueued_trials_belong_to_generation_zero(factory: Factory) -> None:
    study = optuna.create_study(sampler=factory(4))
    for x in range(4):
        study.enqueue_trial({"x": float(x), "y": 0.0})
    study.optimize(plain, n_trials=4)
    assert [generation(trial) for trial in study.trials] == [0] * 4


def pruned_trials_count_in_their_generation(factory: Factory) -> None:
    def objective(trial: Trial) -> float:
        value = plain(trial)
        trial.report(value, 0)
        if trial.number % 5:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=factory(4))
    study.optimize(objective, n_trials=20)
    assert sizes(study) == dict.fromkeys(range(5), 4)


def generations_go_on_when_nothing_earns_a_value(factory: Factory) -> None:
    def objective(trial: Trial) -> float:
        plain(trial)
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=factory(4))
    study.optimize(objective, n_trials=12)
    assert sizes(study) == {0: 4, 1: 4, 2: 4}


def sixteen_threads_keep_generations_exact(factory: Factory) -> None:
    def objective(trial: Trial) -> float:
        value = plain(trial)
        time.sleep(0.002 + 0.004 * (value % 1))
        return value

    study = optuna.create_study(sampler=factory(10))
    study.optimize(objective, n_trials=40, n_jobs=16)
    assert sizes(study) == dict.fromkeys(range(4), 10)


def the_trials_visited_an_ask_do_not_grow(factory: Factory, history: tuple[int, int]) -> None:
    study = optuna.create_study(storage=CountingStorage(), sampler=factory(10))
    visits = []
    for until in history:
        study.optimize(lambda trial: trial.suggest_float("x", -5, 5), n_trials=until - len(study.trials))
        CountingTrials.visits = 0
        study.optimize(lambda trial: trial.suggest_float("x", -5, 5), n_trials=10)  # one whole generation
        visits.append(CountingTrials.visits)
    assert visits[1] < 1.2 * visits[0]


def one_sampler_keeps_two_studies_apart(factory: Factory) -> None:
    def run(interleaved: bool) -> list[list[dict[str, Any]]]:
        storage, sampler = InMemoryStorage(), factory(4)
        studies = [optuna.create_study(storage=storage, sampler=sampler) for _ in range(2)]
        for _ in range(12):
            studies[0].optimize(plain, n_trials=1)
            if interleaved:
                studies[1].optimize(lambda trial: -plain(trial), n_trials=1)
        return [[trial.params for trial in study.trials] for study in studies]

    try:
        mixed = run(interleaved=True)
    except ValueError as error:  # NSGA-II refuses a second study
        raise AssertionError from error
    assert mixed[0] == run(interleaved=False)[0]


def a_resumed_search_goes_on_as_if_unbroken(factory: Factory) -> None:
    whole = optuna.create_study(sampler=factory(4))
    whole.optimize(plain, n_trials=20)
    broken = optuna.create_study(sampler=factory(4))
    for n_trials in (6, 5, 9):
        broken.sampler = factory(4)
        broken.optimize(plain, n_trials=n_trials)
    assert [trial.params for trial in broken.trials] == [trial.params for trial in whole.trials]


def most_proposals_on_six_ternary_parameters_are_distinct(factory: Factory) -> None:
    study = optuna.create_study(sampler=factory(20))
    study.optimize(ternary, n_trials=400)
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) >= 380


TRAPS = [
    enqueued_trials_belong_to_generation_zero,
    pruned_trials_count_in_their_generation,
    generations_go_on_when_nothing_earns_a_value,
    sixteen_threads_keep_generations_exact,
    one_sampler_keeps_two_studies_apart,
    a_resumed_search_goes_on_as_if_unbroken,
    most_proposals_on_six_ternary_parameters_are_distinct,
]


@pytest.mark.parametrize("trap", TRAPS)
def test_ours_avoids(trap):
    trap(ours)


@pytest.mark.parametrize("trap", TRAPS)
def test_nsga2_falls_into(trap):
    with pytest.raises(AssertionError):
        trap(nsga2)


def test_the_trials_visited_an_ask_stay_the_same_from_200_to_800():
    the_trials_visited_an_ask_do_not_grow(ours, (200, 800))


def test_the_trials_that_nsga2_visits_an_ask_grow():
    with pytest.raises(AssertionError):
        the_trials_visited_an_ask_do_not_grow(nsga2, (100, 300))
