"""`asynchronous = true`: nobody waits for a generation's stragglers, and every slot still counts once."""

from __future__ import annotations

from collections import Counter

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_studies import GENETIC, config, create, fitness

from optevo import keys
from optevo.errors import UserError
from optevo.samplers import GeneticSampler, NoSlot, sampler_of
from optevo.study.studies import is_complete

ASYNCHRONOUS = {**GENETIC, "asynchronous": True}


@pytest.fixture
def study() -> optuna.Study:
    return create(InMemoryStorage(), sampler=ASYNCHRONOUS)


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    study.tell(trial, fitness(trial))


def slot(trial: optuna.Trial) -> tuple[int, int]:
    return keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]


def test_the_next_generation_begins_while_a_straggler_is_at_work(study: optuna.Study):
    straggler = study.ask()
    for _ in range(5):
        tell(study, study.ask())
    assert slot(study.ask())[0] == 1
    assert sampler_of(study).slot_table(study).generation == 0
    tell(study, straggler)
    assert sampler_of(study).slot_table(study).generation == 1


def test_a_synchronous_study_has_no_slot_then():
    study = create(InMemoryStorage())
    study.ask()
    for _ in range(5):
        tell(study, study.ask())
    with pytest.raises(NoSlot):
        study.ask()


def test_every_slot_counts_once_and_the_study_ends(study: optuna.Study):
    straggler = study.ask()
    for _ in range(13):
        tell(study, study.ask())
    with pytest.raises(NoSlot):
        study.ask()
    assert not is_complete(study)
    tell(study, straggler)
    assert is_complete(study)
    expected = [(0, i) for i in range(6)] + [(g, i) for g in (1, 2) for i in range(4)]
    assert Counter(slot(t) for t in study.get_trials(states=(TrialState.COMPLETE,))) == Counter(expected)


def test_children_are_bred_from_those_that_have_finished(study: optuna.Study):
    straggler = study.ask()
    finished = []
    for _ in range(5):
        trial = study.ask()
        tell(study, trial)
        finished.append(trial.number)
    child = study.ask()
    assert keys.ours(child)[keys.ORIGIN] == "crossover+mutation"
    assert set(keys.ours(child)[keys.PARENTS]) <= set(finished)
    assert straggler.number not in keys.ours(child)[keys.PARENTS]


def test_a_straggler_that_finishes_becomes_a_parent(study: optuna.Study):
    straggler = study.ask()
    for _ in range(5):
        tell(study, study.ask())
    fitness(straggler)
    study.tell(straggler, 1000.0)
    assert sampler_of(study).slot_table(study).recent()[0].number == straggler.number


def test_elites_stay_among_the_parents_and_others_make_room(study: optuna.Study):
    for _ in range(14):
        tell(study, study.ask())
    values = {trial.number: trial.value for trial in study.trials}
    best = sorted(values, key=lambda number: -values[number])[:2]
    latest = [number for number in sorted(values, reverse=True) if number not in best][:4]
    assert {member.number for member in sampler_of(study).slot_table(study).recent()} == {*best, *latest}


def test_a_slot_that_lost_its_worker_is_evaluated_again_with_the_same_genome(study: optuna.Study):
    for _ in range(7):
        tell(study, study.ask())
    lost = study.ask()
    fitness(lost)
    for _ in range(3):  # whoever finishes meanwhile would breed another child
        tell(study, study.ask())
    study.tell(lost.number, state=TrialState.FAIL)
    again = study.ask()
    fitness(again)
    assert slot(again) == slot(lost)
    assert again.params == lost.params


def test_no_genome_is_bred_twice(study: optuna.Study):
    for _ in range(14):
        tell(study, study.ask())
    genomes = [str(sorted(trial.params.items())) for trial in study.trials]
    assert len(set(genomes)) == len(genomes)


def test_it_works_on_any_study_of_optunas():
    sampler = GeneticSampler(population_size=6, n_elites=1, seed=0, asynchronous=True)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=60)
    assert study.best_value < 0.1


def test_it_is_refused_with_groups():
    with pytest.raises(UserError, match="batch_candidates = 1"):
        config(sampler=ASYNCHRONOUS, evaluation__batch_candidates=2)
    with pytest.raises(ValueError, match="group_size"):
        GeneticSampler(asynchronous=True, group_size=2)
