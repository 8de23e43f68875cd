"""The individuals of a particle search are the same whatever the workers, the kills and the storage."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState
from particles import check, claims, individuals

from optevo import keys
from optevo.samplers import ParticleSampler
from optevo.samplers.base import sampler_of
from optevo.storage.opening import open_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")
SMALL: dict[str, Any] = {"initial_size": 8, "n_particles": 2, "n_steps": 2, "n_mutations": 3, "n_attempts": 3}
ENDED = 4  # generations


def luck(*what: object) -> float:
    """A number in [0, 1) that is the same for the same words."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") / 2**48


def rugged(trial: Trial) -> float:
    """Of three individuals, one ends without a value."""
    x = trial.suggest_float("x", -5, 5)
    n = trial.suggest_int("n", 0, 9)
    if luck(x, n) < 0.33:
        raise optuna.TrialPruned
    return x**2 + n


def sampler(**changes: Any) -> ParticleSampler:
    return ParticleSampler(**{**SMALL, "seed": 5, "max_failures": None, "patience": 0.0, **changes})


def generation(study: optuna.Study) -> int:
    return sampler_of(study).slot_table(study).generation


@pytest.fixture(scope="module")
def unbroken() -> dict[tuple[int, ...], Any]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler())
    while generation(study) < ENDED:
        study.optimize(rugged, n_trials=1)
    check(study)
    found = individuals(study, ENDED)
    assert {len(claim) for claim in found} == {2, 3}
    assert {claim[2] for claim in found if len(claim) == 3} == {1, 2}
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whoever_evaluates_what_and_is_killed_when(unbroken, seed: int):
    # Workers with a sampler each take turns. Trials fail, are interrupted, or are not heard of until another
    # has taken their slot, if ever; and a worker may be a new process, which knows nothing.
    chance, storage, live = random.Random(seed), InMemoryStorage(), dict[int, tuple[optuna.Study, Trial]]()
    optuna.create_study(storage=storage, study_name="s")

    def worker() -> optuna.Study:
        return optuna.load_study(storage=storage, study_name="s", sampler=sampler())

    def finish(study: optuna.Study, trial: Trial) -> None:
        try:
            study.tell(trial, rugged(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)

    workers, silent = [worker() for _ in range(3)], list[tuple[optuna.Study, Trial]]()
    while generation(workers[0]) < ENDED:
        i = chance.randrange(3)
        if silent and chance.random() < 0.1:
            finish(*silent.pop(chance.randrange(len(silent))))
        elif i not in live:
            live[i] = workers[i], workers[i].ask()
        else:
            study, trial = live.pop(i)
            match chance.choices(["finish", "fail", "interrupt", "fall silent", "restart"], [6, 1, 1, 1, 1])[
                0
            ]:
                case "finish":
                    finish(study, trial)
                case "fail":
                    trial.suggest_float("x", -5, 5)  # so far it got
                    study.tell(trial, state=TrialState.FAIL)
                case "interrupt":
                    trial.set_user_attr(keys.INTERRUPTED, True)
                    study.tell(trial, state=TrialState.FAIL)
                case "fall silent":
                    silent.append((study, trial))
                case "restart":
                    workers[i] = worker()
    assert individuals(workers[0], ENDED) == unbroken


def test_four_threads_do_what_one_does(unbroken):
    study = optuna.create_study(sampler=sampler(patience=600.0))
    study.optimize(rugged, n_trials=len(unbroken) + 8, n_jobs=4)
    assert generation(study) >= ENDED
    check(study)
    assert individuals(study, ENDED) == unbroken


@pytest.mark.parametrize("ours", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_process_goes_on_where_the_last_one_stopped(unbroken, tmp_path: Path, ours: bool):
    url = f"sqlite:///{tmp_path}/optevo.db"
    for number in itertools.count():
        storage = open_storage(url, create=True) if ours else optuna.storages.RDBStorage(url)
        study = optuna.create_study(storage=storage, study_name="s", sampler=sampler(), load_if_exists=True)
        if generation(study) >= ENDED:
            break
        study.ask().suggest_float("x", -5, 5)  # killed in the middle
        study.tell(len(study.trials) - 1, state=TrialState.FAIL)
        study.optimize(rugged, n_trials=number % 5 + 3)
    assert individuals(study, ENDED) == unbroken
    best = min(t.value for t in study.trials if t.state == TrialState.COMPLETE)
    assert study.best_value == best


def test_two_studies_of_one_database_and_one_sampler_are_apart(unbroken, tmp_path: Path):
    storage, one = open_storage(f"sqlite:///{tmp_path}/optevo.db", create=True), sampler()
    studies = [optuna.create_study(storage=storage, study_name=name, sampler=one) for name in "ab"]
    while min(map(generation, studies)) < ENDED:
        studies[0].optimize(rugged, n_trials=1)
        studies[1].optimize(lambda trial: rugged(trial) + 1, n_trials=1)
    for study in studies:
        check(study)
    first, second = (individuals(study, ENDED) for study in studies)
    assert first == unbroken
    assert {claim: one[0] for claim, one in first.items()} == {claim: one[0] for claim, one in second.items()}


def test_the_seed_of_a_study_that_gives_none_is_its_own(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path}/optevo.db", create=True)
    found = []
    for name in ("a", "b", "a"):
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler(seed=None), load_if_exists=True
        )
        study.optimize(rugged, n_trials=4)
        found.append([trial.params for trial in claims(study).values()])
    assert found[0] == found[2][:4]
    assert found[0] != found[1]


def test_an_attempt_begins_where_another_has_just_ended_and_not_before():
    study = optuna.create_study(sampler=sampler(patience=600.0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=10)
    held = [study.ask() for _ in range(6)]
    for trial in held:
        trial.suggest_float("x", 0, 1)
    assert [slot.claim for slot in sampler_of(study).slot_table(study).claimable()] == []
    study.tell(held[4], state=TrialState.PRUNED)
    (again,) = sampler_of(study).slot_table(study).claimable()
    assert again.claim == [2, 4, 1]
    other = study.ask()
    other.suggest_float("x", 0, 1)
    assert study.trials[other.number].system_attrs[keys.CLAIM] == [2, 4, 1]
    assert other.params != held[4].params
    study.tell(other, 0.5)
    assert sampler_of(study).slot_table(study).claimable() == []


def test_pickled_samplers_propose_the_same(unbroken):
    import pickle  # noqa: PLC0415

    study = optuna.create_study(sampler=sampler())
    while generation(study) < ENDED:
        study.optimize(rugged, n_trials=3)
        study.sampler = pickle.loads(pickle.dumps(study.sampler))
    assert individuals(study, ENDED) == unbroken
