"""Optuna's samplers wrapped in slots: several studies, and several threads, at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import InMemoryStorage

from optevo import keys
from optevo.samplers import SeededSampler

pytestmark = pytest.mark.usefixtures("quiet_optuna")
PRESETS = [{"x": 0.25}, {"x": 0.75}]


def sampler(n_trials: int = 6, presets: Any = PRESETS) -> SeededSampler:
    return SeededSampler(lambda seed: TPESampler(seed=seed, n_startup_trials=2), 3, n_trials, presets)


def x_of(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def test_one_sampler_tells_studies_of_one_number_in_two_storages_apart():
    shared = sampler()
    first, second = (optuna.create_study(storage=InMemoryStorage(), sampler=shared) for _ in range(2))
    assert first._study_id == second._study_id
    for _ in range(3):
        for study in (first, second):
            study.optimize(x_of, n_trials=1)
    for study in (first, second):
        assert [keys.ours(trial)[keys.SLOT] for trial in study.trials] == [0, 1, 2]
    assert [t.params for t in first.trials] == [t.params for t in second.trials]


def test_a_study_deleted_and_made_anew_under_its_number_starts_with_its_first_slot():
    storage, shared = InMemoryStorage(), sampler()
    study = optuna.create_study(study_name="one", storage=storage, sampler=shared)
    study.optimize(x_of, n_trials=2)
    optuna.delete_study(study_name="one", storage=storage)
    storage._max_study_id -= 1  # as a database gives a number out again
    again = optuna.create_study(study_name="one", storage=storage, sampler=shared)
    assert again._study_id == study._study_id
    again.optimize(x_of, n_trials=1)
    assert keys.ours(again.trials[0])[keys.SLOT] == 0


def test_trials_of_threads_keep_their_own_presets():
    study, begun = optuna.create_study(sampler=sampler()), threading.Barrier(2)

    def objective(trial: optuna.Trial) -> float:
        if keys.ours(trial)[keys.SLOT] < 2:  # both have begun before either asks for its preset
            begun.wait(timeout=20)
        return x_of(trial)

    study.optimize(objective, n_trials=2, n_jobs=2)
    assert {keys.ours(t)[keys.SLOT]: t.params["x"] for t in study.trials} == {0: 0.25, 1: 0.75}


def test_threads_propose_what_one_worker_proposes():
    """Of a sampler that does not learn: what a slot gets depends on nobody else."""

    def proposed(jobs: int) -> dict[int, dict[str, Any]]:
        study = optuna.create_study(sampler=SeededSampler(RandomSampler, 3, 12, []))

        def both(trial: optuna.Trial) -> float:
            return x_of(trial) + trial.suggest_float("y", 0, 1)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda _: study.optimize(both, n_trials=1), range(12)))
        return {keys.ours(trial)[keys.SLOT]: trial.params for trial in study.trials}

    assert proposed(4) == proposed(1)
