"""A particle search: which generations there are, who moves where, and what is never tried again."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.trial import Trial
from particles import check, claims

from optevo import keys
from optevo.samplers import NoSlot, ParticleSampler, SlotSampler
from optevo.spaces import BaselineSpace, TermSpace

pytestmark = pytest.mark.usefixtures("quiet_optuna")
SMALL = {"initial_size": 12, "n_particles": 3, "n_steps": 3, "n_mutations": 4, "n_attempts": 3}
PLACES = 12 + 3 + 3 * 12


def hill(trial: Trial) -> float:
    x, y = (trial.suggest_float(name, -5, 5) for name in "xy")
    if int(10 * x) % 3 == 0:
        raise optuna.TrialPruned
    return x**2 + y**2


def searched(sampler: ParticleSampler, objective=hill, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(sampler=sampler, direction=direction)
    with pytest.raises(NoSlot):
        study.optimize(objective, n_trials=10_000)
    return study


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return searched(ParticleSampler(**SMALL, seed=3, endless=False))


def test_a_search_follows_the_published_rules(study):
    found = claims(study)
    assert Counter(g for g, index, *attempt in found if not attempt) == {0: 12, 1: 3, 2: 12, 3: 12, 4: 12}
    assert any(len(claim) == 3 for claim in found)  # some had another attempt
    assert len(check(study)) == 5
    assert study.sampler.slot_table(study).ended


def test_particles_begin_with_the_best_as_they_are(study):
    first = study.sampler.slot_table(study).populations[0]
    again = [claims(study)[1, i] for i in range(3)]
    assert [trial.params for trial in again] == [member.params for member in first[:3]]
    assert [keys.ours(trial)[keys.PARENTS] for trial in again] == [[m.number] for m in first[:3]]
    assert {keys.ours(trial)[keys.ORIGIN] for trial in again} == {"re-evaluation"}


def test_a_particle_moves_to_its_best_child_even_where_that_is_worse(study):
    path = check(study)
    values = [[study.trials[at[p]].value for at in path] for p in range(3)]
    assert any(after > before for one in values for before, after in itertools.pairwise(one))
    assert all(
        before != after
        for b, a in itertools.pairwise(path[1:])
        for before, after in zip(b.values(), a.values(), strict=True)
    )
    best = min(t.value for t in study.trials if t.state.name == "COMPLETE")
    assert study.best_value == best < min(one[-1] for one in values)


def test_of_equal_children_the_first_slot_counts():
    def flat(trial: Trial) -> float:
        trial.suggest_float("x", 0, 1)
        return 0.0

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), flat)
    found = claims(study)
    for g in (2, 3):
        for p in range(3):
            assert keys.ours(found[g + 1, p * 4])[keys.PARENTS] == [found[g, p * 4].number]


def test_a_particle_whose_children_earned_nothing_stays_where_it_is():
    def barren(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if keys.ours(trial)[keys.GENERATION] == 2 and keys.ours(trial)[keys.SLOT] < 4:
            raise optuna.TrialPruned
        return x

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), barren)
    path, found = check(study), claims(study)
    assert path[2][0] == path[1][0]
    assert path[2][1] != path[1][1]
    assert [claim for claim in found if claim[:2] == (2, 0)] == [(2, 0), (2, 0, 1), (2, 0, 2)]


def test_a_particle_whose_re_evaluation_earned_nothing_goes_on_all_the_same():
    def barren(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if keys.ours(trial)[keys.GENERATION] == 1:
            raise optuna.TrialPruned
        return x

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), barren)
    path, found = check(study), claims(study)
    assert path[1] == path[0]
    assert [claim for claim in found if claim[0] == 1] == [(1, 0), (1, 1), (1, 2)]  # one attempt each


def test_those_that_earned_nothing_fill_up():
    def rare(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if keys.ours(trial)[keys.GENERATION] == 0 and keys.ours(trial)[keys.SLOT] != 7:
            raise optuna.TrialPruned
        return x

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), rare)
    found = claims(study)
    starts = [found[0, 7].number, found[0, 0].number, found[0, 1].number]
    assert [keys.ours(found[1, p])[keys.PARENTS] for p in range(3)] == [[number] for number in starts]
    check(study)


@pytest.mark.parametrize("left", [2, 0])
def test_fewer_members_make_fewer_particles(left: int):
    def crash(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if keys.ours(trial)[keys.GENERATION] == 0 and keys.ours(trial)[keys.SLOT] >= left:
            raise RuntimeError
        return x

    study = optuna.create_study(sampler=ParticleSampler(**SMALL, seed=0, max_failures=1))
    study.optimize(crash, n_trials=12 + max(left, 1) * (1 + 3 * 4), catch=RuntimeError)
    table = study.sampler.slot_table(study)
    assert table.generation == 5
    assert [len(table.populations[g]) for g in range(5)] == [left, *(max(left, 1) * n for n in (1, 4, 4, 4))]
    origins = {keys.ours(trial)[keys.ORIGIN] for trial in study.trials if keys.ours(trial)[keys.GENERATION]}
    assert origins == {"re-evaluation", "mutation"} if left else {"random", "mutation"}


def test_an_attempt_that_is_given_up_is_followed_by_none():
    def crash(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if keys.ours(trial)[keys.GENERATION] == 2 and keys.ours(trial)[keys.SLOT] == 0:
            if len(study.trials[trial.number].system_attrs[keys.CLAIM]) == 3:
                raise RuntimeError
            raise optuna.TrialPruned
        return x

    study = optuna.create_study(sampler=ParticleSampler(**SMALL, seed=0, max_failures=2))
    study.optimize(crash, n_trials=PLACES + 2, catch=RuntimeError)
    table = study.sampler.slot_table(study)
    assert table.generation == 5
    assert len(table.populations[2]) == 12  # what the first attempt came to
    assert [tuple(t.system_attrs[keys.CLAIM]) for t in study.trials if t.state.name == "FAIL"] == [
        (2, 0, 1)
    ] * 2


def test_the_last_attempt_is_the_places_member(study):
    table, found = study.sampler.slot_table(study), claims(study)
    for g in (2, 3, 4):
        last = {claim[1]: trial.number for claim, trial in found.items() if claim[0] == g}
        assert sorted(member.number for member in table.populations[g]) == sorted(last.values())
        earlier = {member.number for member in table.earlier_attempts[g]}
        assert earlier == {t.number for c, t in found.items() if c[0] == g} - set(last.values())


def test_a_particle_is_never_again_what_it_has_been_as_long_as_there_is_anything_else():
    def letters(trial: Trial) -> float:
        return sum(trial.suggest_categorical(name, list("abcd")) == "a" for name in "xyz")

    sampler = ParticleSampler(initial_size=4, n_particles=1, n_steps=2, n_mutations=6, seed=0, endless=False)
    check(searched(sampler, letters))  # 13 of 64 words


def test_a_space_that_is_exhausted_hangs_nobody():
    def coin(trial: Trial) -> float:
        return float(trial.suggest_categorical("x", [0, 1]))

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), coin)
    assert study.sampler.slot_table(study).ended


def test_the_best_of_all_is_the_result_whichever_way_is_up():
    study = searched(ParticleSampler(**SMALL, seed=2, endless=False), lambda t: -hill(t), "maximize")
    check(study)
    assert study.best_value == max(t.value for t in study.trials if t.state.name == "COMPLETE")


def test_without_an_end_particles_take_further_steps():
    study = optuna.create_study(sampler=ParticleSampler(**SMALL, seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=PLACES + 3 * 12)
    assert study.sampler.slot_table(study).generation == 8
    check(study)


def test_presets_hold_the_first_places_of_the_initial_population():
    sampler = ParticleSampler(**SMALL, seed=0, presets=[{"x": 1.0, "y": 2.0}, {"x": 0.15, "y": 0.0}])
    study = optuna.create_study(sampler=sampler)
    study.optimize(hill, n_trials=15)
    assert [t.params for t in study.trials[:2]] == [{"x": 1.0, "y": 2.0}, {"x": 0.15, "y": 0.0}]
    assert study.trials[12].params == {"x": 0.15, "y": 0.0}
    assert [keys.ours(t)[keys.ORIGIN] for t in study.trials[1:3]] == ["preset", "random"]


def test_an_enqueued_individual_holds_a_place_and_may_be_where_a_particle_moves():
    study = optuna.create_study(sampler=ParticleSampler(**SMALL, seed=0))
    study.optimize(hill, n_trials=15)
    study.enqueue_trial({"x": 0.15, "y": 0.0})
    study.optimize(hill, n_trials=40)
    found = claims(study)
    assert found[2, 0].params == {"x": 0.15, "y": 0.0}
    assert keys.ours(found[3, 0])[keys.PARENTS] == [found[2, 0].number]


def test_the_parameters_that_only_some_suggest_are_inherited_too():
    def branches(trial: Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return trial.suggest_float("x", 0, 1)
        return trial.suggest_float("y", 0, 1)

    study = searched(ParticleSampler(**SMALL, seed=0, endless=False), branches)
    found = claims(study)
    starts = [study.trials[keys.ours(found[1, p])[keys.PARENTS][0]] for p in range(3)]
    assert [found[1, p].params for p in range(3)] == [trial.params for trial in starts]
    assert all(keys.DORMANT not in trial.system_attrs for trial in study.trials)


def test_a_space_of_ours_is_mutated_from_one_parent():
    space = TermSpace(presets=("adam",))

    def size(trial: Trial) -> float:
        candidate = space.candidate(space.suggest(trial))
        return candidate.lr + len(candidate.terms)

    presets = list(space.presets().values())
    study = searched(ParticleSampler(**SMALL, seed=0, space=space, presets=presets, endless=False), size)
    check(study)
    numbers = np.random.default_rng(0), np.random.default_rng(0)
    (adam,) = presets
    assert space.vary([adam], numbers[0], 1.0) == space.mutate(adam, numbers[1], 1.0)


def test_only_the_initial_population_is_screened_and_nothing_races():
    sampler = ParticleSampler(**SMALL)
    assert [sampler.screens(g) for g in range(4)] == [True, False, False, False]
    assert not sampler.races
    assert SlotSampler.races
    assert not SlotSampler.screens(sampler, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_particles": 13}, "Invalid n_particles: 13, of 12 initial individuals"),
        ({"n_steps": 0}, "Invalid n_steps: 0, expected at least 1"),
        ({"n_attempts": 0}, "Invalid n_attempts: 0, expected at least 1"),
        ({"space": BaselineSpace("adam")}, "Invalid space: 'adam' has no mutation: evolves is False"),
        ({"presets": [{"x": 0}] * 13}, "Invalid presets: 13 of them in a population of 12"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message: str):
    with pytest.raises(ValueError, match=message):
        ParticleSampler(**{**SMALL, **wrong})


def test_a_misspelt_option_is_told_the_right_one():
    with pytest.raises(TypeError, match=r"n_particels.*n_particles"):
        ParticleSampler(n_particels=3)
