"""Genetic search on other people's spaces, with their pruners and wrappers."""

from __future__ import annotations

import random
import threading
import time

import optuna
import pytest
from genetic import (
    by_slot,
    plain,
    sizes,
    slot,
    ternary,
    unbroken,
)
from optuna.samplers import PartialFixedSampler
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState, create_trial

from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.samplers.slots import SlotTable
from optevo.spaces import TermSpace

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def test_hyperband_keeps_generations_exact():
    def objective(trial: Trial) -> float:
        value = plain(trial)
        for step in range(4):
            trial.report(value + step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = optuna.create_study(
        sampler=GeneticSampler(population_size=5, n_elites=0),
        pruner=optuna.pruners.HyperbandPruner(max_resource=4),
    )
    study.optimize(objective, n_trials=20)
    assert sizes(study) == dict.fromkeys(range(4), 5)
    assert any(trial.state == TrialState.PRUNED for trial in study.trials)


def test_a_partially_fixed_search_keeps_generations_and_the_fixed_value():
    sampler = PartialFixedSampler({"y": 2.5}, GeneticSampler(population_size=4, n_elites=1, seed=0))
    study = optuna.create_study(sampler=sampler)
    study.optimize(plain, n_trials=13)
    assert sizes(study) == {0: 4, 1: 3, 2: 3, 3: 3}
    assert {trial.params["y"] for trial in study.trials} == {2.5}


def test_a_partially_fixed_search_proposes_nothing_twice():
    sampler = PartialFixedSampler({"p0": "a"}, GeneticSampler(population_size=20, n_elites=2, seed=0))
    study = optuna.create_study(sampler=sampler)
    study.optimize(ternary, n_trials=120)
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) >= 108


def test_minus_one_and_minus_two_are_different_proposals():
    def objective(trial: Trial) -> float:
        return sum(trial.suggest_int(f"p{i}", -3, -1) != -2 for i in range(4))

    study = optuna.create_study(sampler=GeneticSampler(population_size=9, n_elites=1, seed=0))
    study.optimize(objective, n_trials=57)
    later = [tuple(t.params.values()) for t in study.trials if keys.ours(t)[keys.GENERATION]]
    assert len(set(later)) == len(later)


def test_conditional_parameters_are_inherited_where_a_parent_has_them():
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("kind", ["near", "far"]) == "near":
            return trial.suggest_float("near", 0, 1)
        return 2 + trial.suggest_float("far", 0, 1)

    study = optuna.create_study(sampler=GeneticSampler(population_size=10, n_elites=2, seed=0))
    study.optimize(objective, n_trials=10 + 8 * 9)
    assert sizes(study) == {0: 10, **dict.fromkeys(range(1, 10), 8)}
    # "near" is better by 1 at least: selection must show in a parameter with two values.
    later = [t for t in study.trials if keys.ours(t)[keys.GENERATION] >= 2]
    assert sum(t.params["kind"] == "near" for t in later) > 0.8 * len(later)


def test_a_range_that_changes_under_way_is_respected():
    def objective(trial: Trial) -> float:
        low = -5.0 if trial.number < 7 else 1.0
        x = trial.suggest_float("x", low, 5)
        assert low <= x <= 5
        return x**2 + trial.suggest_int("n", 1, 3 if trial.number < 9 else 2)

    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
    study.optimize(objective, n_trials=22)
    assert sizes(study) == {0: 4, **dict.fromkeys(range(1, 7), 3)}


def test_threads_share_a_sampler_through_failures_and_prunings():
    noise, crashed = random.Random(0), set()

    def objective(trial: Trial) -> float:
        value = plain(trial)
        trial.report(value, 0)
        time.sleep(noise.random() * 0.004)
        luck = (trial.number * 7919) % 10
        if luck == 0 and slot(trial) not in crashed:  # never thrice in one slot, which would give it up
            crashed.add(slot(trial))
            raise RuntimeError("crash")
        if luck < 4:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=GeneticSampler(population_size=8, n_elites=2, seed=0))
    study.optimize(objective, n_trials=120, n_jobs=12, catch=RuntimeError)
    genomes = by_slot(study)
    finished = study.sampler.slot_table(study).generation
    assert finished >= 15
    for g in range(finished):
        assert sum(key[0] == g for key in genomes) == (6 if g else 8)


def test_one_sampler_serves_two_studies_in_two_threads():
    sampler = GeneticSampler(population_size=4, n_elites=1, seed=0)
    storage = InMemoryStorage()
    studies = [optuna.create_study(storage=storage, sampler=sampler) for _ in range(2)]
    threads = [
        threading.Thread(target=study.optimize, args=(plain,), kwargs={"n_trials": 31}) for study in studies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = unbroken(31, population_size=4, n_elites=1, seed=0)
    assert [by_slot(study) for study in studies] == [expected] * 2


def test_trials_imported_from_elsewhere_take_no_slot():
    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    distributions = {n: optuna.distributions.FloatDistribution(-5, 5) for n in "xy"}
    for x in range(4):
        study.add_trial(create_trial(params={"x": x, "y": 0}, distributions=distributions, value=float(x)))
    study.optimize(plain, n_trials=3)
    assert sizes(study) == {None: 4, 0: 3}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("population_size", 0),
        ("n_elites", 50),
        ("n_elites", -1),
        ("tournament_size", 0),
        ("n_generations", 0),
        ("seed", -1),
        ("presets", [{}] * 51),
        ("max_failures", 0),
        ("patience", -1.0),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        GeneticSampler(**{option: value})


def test_a_preset_that_the_space_cannot_hold_is_refused():
    presets = [{**TermSpace().presets()["adam"], "lr": 3.0}]
    with pytest.raises(ValueError, match="lr"):
        GeneticSampler(space=TermSpace(), presets=presets)


def test_a_small_space_that_is_exhausted_is_still_bred():
    study = optuna.create_study(sampler=GeneticSampler(population_size=12, n_elites=2, seed=0))
    study.optimize(lambda trial: trial.suggest_int("n", 0, 9), n_trials=12 + 10 * 9)
    later = [t.params["n"] for t in study.trials if keys.ours(t)[keys.GENERATION] >= 5]
    assert sum(later) / len(later) < 3  # a blind draw has 4.5


def test_the_objective_can_read_its_generation_and_slot():
    seen = []

    def objective(trial: Trial) -> float:
        seen.append((keys.ours(trial).get(keys.GENERATION), keys.ours(trial).get(keys.SLOT)))
        return plain(trial)

    study = optuna.create_study(sampler=GeneticSampler(population_size=2, n_elites=1, seed=0))
    study.optimize(objective, n_trials=3)
    assert seen == [(0, 0), (0, 1), (1, 0)]


def test_the_board_shows_the_generation_in_progress():
    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    study.optimize(plain, n_trials=4)
    board = study.sampler.slot_table(study)
    assert isinstance(board, SlotTable)
    assert (board.generation, len(board.open(1)), len(board.live(1))) == (1, 1, 0)
