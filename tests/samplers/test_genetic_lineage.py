"""Who becomes a parent, and what a trial knows of its own."""

from __future__ import annotations

import optuna
import pytest
from genetic import (
    by_slot,
    plain,
    populations,
    sizes,
    unbroken,
)
from optuna.trial import Trial, TrialState

from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def test_enqueued_trials_become_parents():
    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
    for x in range(4):
        study.enqueue_trial({"x": x / 10, "y": 0.0})
    study.optimize(plain, n_trials=7)
    parents = {number for trial in study.trials[4:] for number in keys.ours(trial)[keys.PARENTS]}
    assert parents
    assert parents <= {0, 1, 2, 3}


def test_presets_hold_the_first_slots_of_generation_zero():
    presets = [{"x": 1.0, "y": 2.0}, {"x": -1.0, "y": 0.5}]
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=5, n_elites=1, seed=0, presets=presets)
    )
    study.optimize(plain, n_trials=5)
    assert [trial.params for trial in study.trials[:2]] == presets
    assert [keys.ours(trial)[keys.ORIGIN] for trial in study.trials] == ["preset"] * 2 + ["random"] * 3


def test_presets_of_a_space_are_evaluated_exactly_as_given():
    space = TermSpace()
    presets = list(space.presets().values())
    sampler = GeneticSampler(population_size=8, n_elites=1, seed=0, space=space, presets=presets)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: space.suggest(trial)["lr"], n_trials=8)
    assert [trial.params for trial in study.trials[: len(presets)]] == presets


@pytest.mark.parametrize("n_elites", [0, 1, 3])
def test_parents_are_members_of_the_previous_generation(n_elites):
    study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=n_elites, seed=1))
    study.optimize(plain, n_trials=40)
    ranked = populations(study, 6, n_elites)
    for trial in study.trials:
        g, parents = keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.PARENTS]
        assert len(parents) == (2 if g else 0)
        assert not g or set(parents) <= set(ranked[g - 1])


def test_the_worst_member_never_wins_a_tournament_of_four():
    study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=2, seed=2))
    study.optimize(plain, n_trials=60)
    ranked = populations(study, 6, 2)
    for trial in study.trials:
        if keys.ours(trial)[keys.GENERATION]:
            worst = ranked[keys.ours(trial)[keys.GENERATION] - 1][3:]
            assert not set(keys.ours(trial)[keys.PARENTS]) & set(worst)


def test_elites_are_carried_over_without_a_new_trial():
    study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=2, seed=0))
    study.optimize(plain, n_trials=6 + 4 * 3)
    assert sizes(study) == {0: 6, 1: 4, 2: 4, 3: 4}
    board = study.sampler.slot_table(study)
    assert [[m.number for m in board.populations[g]] for g in range(4)] == populations(study, 6, 2)
    for g in range(1, 4):
        assert {m.number for m in board.populations[g]} >= {m.number for m in board.populations[g - 1][:2]}


def test_an_elite_breeds_generations_after_its_own():
    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
    study.enqueue_trial({"x": 0.0, "y": 0.0})
    study.optimize(plain, n_trials=4 + 3 * 4)
    last = [t for t in study.trials if keys.ours(t)[keys.GENERATION] == 4]
    assert any(0 in keys.ours(trial)[keys.PARENTS] for trial in last)


def test_an_enqueued_trial_does_not_claim_to_be_a_preset():
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=4, n_elites=1, seed=0, presets=[{"x": 1.0, "y": 1.0}])
    )
    study.enqueue_trial({"x": 3.0, "y": 3.0})
    study.optimize(plain, n_trials=1)
    assert study.trials[0].params == {"x": 3.0, "y": 3.0}
    assert keys.ours(study.trials[0])[keys.ORIGIN] != "preset"


def test_pruned_trials_rank_below_complete_ones_by_what_they_earned():
    def objective(trial: Trial) -> float:
        value = plain(trial)
        trial.report(value, 0)
        if trial.number % 2:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=2, seed=0))
    study.optimize(objective, n_trials=10)
    assert [m.number for m in study.sampler.slot_table(study).populations[0]] == populations(study, 6, 2)[0]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_come_first_in_either_direction(direction):
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=5, n_elites=1, seed=0), direction=direction
    )
    study.optimize(plain, n_trials=5)
    values = [member.value for member in study.sampler.slot_table(study).populations[0]]
    assert values == sorted(values, reverse=direction == "maximize")


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_member_without_a_value_is_worst_in_either_direction(direction):
    def objective(trial: Trial) -> float:
        value = plain(trial)
        if trial.number == 2:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(
        sampler=GeneticSampler(population_size=5, n_elites=1, seed=0), direction=direction
    )
    study.optimize(objective, n_trials=5)
    assert study.sampler.slot_table(study).populations[0][-1].number == 2


@pytest.mark.parametrize("space", [None, TermSpace()], ids=["generic", "terms"])
def test_trials_pruned_before_they_suggest_anything_stop_no_search(space):
    def objective(trial: Trial) -> float:
        if trial.number < 4:
            raise optuna.TrialPruned
        return space.suggest(trial)["lr"] if space else plain(trial)

    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0, space=space))
    study.optimize(objective, n_trials=10)
    assert [trial.state for trial in study.trials[4:]] == [TrialState.COMPLETE] * 6


def test_a_nan_objective_fails_its_trial_and_the_slot_is_tried_again_with_the_same_parameters():
    def objective(trial: Trial) -> float:
        return float("nan") if trial.number in (1, 4) else plain(trial) + trial.suggest_int("n", 0, 3)

    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    study.optimize(objective, n_trials=9)
    assert [t.number for t in study.trials if t.state == TrialState.FAIL] == [1, 4]
    assert by_slot(study) == unbroken(
        7, lambda t: plain(t) + t.suggest_int("n", 0, 3), population_size=3, n_elites=1, seed=0
    )
