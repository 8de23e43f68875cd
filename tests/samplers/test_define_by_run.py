"""Spaces whose trials suggest only what a candidate expresses: what sleeps is kept, and inherited."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState
from particles import check, individuals
from switch_space import OTHER, SwitchSpace

from optevo import keys
from optevo.samplers import BreedingSampler, GeneticSampler, ParticleSampler
from optevo.samplers.base import sampler_of
from optevo.samplers.individuals import params_of
from optevo.samplers.kinds import SAMPLERS
from optevo.samplers.sections import TPESection
from optevo.storage.opening import open_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")
SPACE = SwitchSpace()


def rate(trial: Trial) -> float:
    params = SPACE.suggest(trial)
    assert params.keys() == {"kind", params["kind"]}
    return SPACE.candidate(params).lr


def particles(**options: Any) -> ParticleSampler:
    sizes = {"initial_size": 8, "n_particles": 2, "n_steps": 3, "n_mutations": 4, "n_attempts": 2}
    return ParticleSampler(**sizes, seed=0, space=SPACE, **options)


def genetic(**options: Any) -> GeneticSampler:
    return GeneticSampler(population_size=8, n_elites=2, tournament_size=2, seed=0, space=SPACE, **options)


def of_an_earlier_time(child: FrozenTrial, parents: list[FrozenTrial]) -> bool:
    """Whether a child is what one mutation makes of a parent, awake or asleep."""
    own = params_of(child)
    for parent in map(params_of, parents):
        kind = parent["kind"]
        if own["kind"] == kind and own["asleep"] == parent["asleep"]:
            return True
        if own == {"kind": OTHER[kind], OTHER[kind]: parent["asleep"], "asleep": parent[kind]}:
            return True
    return False


def assert_inherited(study: optuna.Study) -> None:
    flips, failed = 0, set[tuple[int, ...]]()
    for trial in study.trials:
        claim = tuple(trial.system_attrs[keys.CLAIM])
        again, failed = claim in failed, failed | ({claim} if trial.state == TrialState.FAIL else set())
        assert trial.params.keys() == {"kind", trial.params["kind"]}
        assert trial.system_attrs[keys.DORMANT].keys() == {"asleep"}
        parents = [study.trials[number] for number in keys.ours(trial)[keys.PARENTS]]
        if again:  # what had failed, whoever its parents would be now
            continue
        if parents and keys.ours(trial)[keys.ORIGIN] != "re-evaluation":
            assert of_an_earlier_time(trial, parents)
            flips += all(parent.params["kind"] != trial.params["kind"] for parent in parents)
        elif parents:
            assert params_of(trial) == params_of(parents[0])
    assert flips >= 2  # a particle flips to what it has asleep but once


@pytest.mark.parametrize("make", [particles, genetic])
def test_children_inherit_what_sleeps_across_a_resume_and_whatever_the_workers(make, tmp_path: Path):
    whole = optuna.create_study(sampler=make())
    whole.optimize(rate, n_trials=40)
    assert_inherited(whole)
    storage = open_storage(f"sqlite:///{tmp_path}/optevo.db", create=True)
    for number in itertools.count():
        study = optuna.create_study(storage=storage, study_name="s", sampler=make(), load_if_exists=True)
        if len(study.trials) >= 40:
            break
        study.optimize(rate, n_trials=number % 4 + 1)
    assert_inherited(study)
    generations = sampler_of(study).slot_table(study).generation
    threads = optuna.create_study(sampler=make())
    threads.optimize(rate, n_trials=40, n_jobs=2)
    expected = individuals(whole, generations)
    assert individuals(study, generations) == expected
    assert individuals(threads, generations) == expected


def test_tabu_goes_by_the_spaces_own_form():
    study = optuna.create_study(sampler=particles())
    study.optimize(rate, n_trials=8 + 2 + 3 * 8)
    check(study, lambda params: (params["kind"], params[params["kind"]]))


def test_members_know_what_sleeps_in_them():
    study = optuna.create_study(sampler=genetic())
    study.optimize(rate, n_trials=8)
    members = sampler_of(study).slot_table(study).populations[0]
    assert all(member.params.keys() == {"kind", member.params["kind"], "asleep"} for member in members)
    assert study.best_params.keys() == {"kind", study.best_params["kind"]}


def test_a_preset_keeps_what_sleeps_in_it():
    (preset,) = SPACE.presets().values()
    study = optuna.create_study(sampler=genetic(presets=[preset]))
    study.optimize(rate, n_trials=1)
    assert study.trials[0].params == {"kind": "x", "x": 0.25}
    assert params_of(study.trials[0]) == preset
    with pytest.raises(ValueError, match="Invalid preset: the space has no parameter 'sleep'"):
        genetic(presets=[{"kind": "x", "x": 0.25, "sleep": 0.75}])


def test_an_enqueued_individual_has_nothing_asleep():
    study = optuna.create_study(sampler=genetic())
    study.enqueue_trial({"kind": "x", "x": 0.5})
    study.optimize(rate, n_trials=1)
    assert keys.DORMANT not in study.trials[0].system_attrs


def test_an_asynchronous_search_inherits_it_too_and_goes_back_to_what_failed():
    def sometimes(trial: Trial) -> float:
        value = rate(trial)
        if trial.number in (11, 12):
            raise RuntimeError
        return value

    study = optuna.create_study(sampler=genetic(asynchronous=True))
    study.optimize(sometimes, n_trials=40, catch=RuntimeError)
    assert_inherited(study)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert len(failed) == 2
    for trial in failed:
        (again,) = [
            t
            for t in study.trials
            if t.state == TrialState.COMPLETE and t.system_attrs[keys.CLAIM] == trial.system_attrs[keys.CLAIM]
        ]
        assert params_of(again) == params_of(trial)


def test_what_an_objective_suggests_besides_does_not_sleep():
    def besides(trial: Trial) -> float:
        return rate(trial) + trial.suggest_float("besides", 0, 1)

    study = optuna.create_study(sampler=particles())
    study.optimize(besides, n_trials=30)
    assert all(trial.system_attrs[keys.DORMANT].keys() == {"asleep"} for trial in study.trials)


def test_one_who_sleeps_in_nobody_writes_nothing():
    class Fixed(SwitchSpace):
        def sample(self, rng: np.random.Generator) -> dict[str, Any]:
            return {"kind": "x", "x": float(rng.random())}

        def vary(self, parents: Any, rng: np.random.Generator, decay: float) -> dict[str, Any]:
            return self.sample(rng)

    study = optuna.create_study(sampler=GeneticSampler(population_size=4, seed=0, space=Fixed()))
    study.optimize(rate, n_trials=8)
    assert all(keys.DORMANT not in trial.system_attrs for trial in study.trials)


def test_tpe_runs_on_it_with_what_is_awake_in_its_presets():
    study = optuna.create_study(
        sampler=SAMPLERS["tpe"].make(TPESection(kind="tpe", n_trials=15), SPACE, 0, 1)
    )
    study.optimize(rate, n_trials=15)
    assert study.trials[0].params == {"kind": "x", "x": 0.25}


def test_a_sampler_without_any_individual_of_its_own_keeps_what_a_draw_has_asleep():
    study = optuna.create_study(sampler=BreedingSampler(population_size=4, space=SPACE, seed=0))
    study.optimize(rate, n_trials=4)
    assert all(0 <= trial.system_attrs[keys.DORMANT]["asleep"] <= 6 for trial in study.trials)
