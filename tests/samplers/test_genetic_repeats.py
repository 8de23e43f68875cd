"""The same search, whatever happens to its workers."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import random
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from genetic import (
    CountingStorage,
    Slots,
    by_slot,
    plain,
    unbroken,
)
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState
from sqlalchemy import event

from optevo.samplers import GeneticSampler
from optevo.spaces import TermSpace

pytestmark = pytest.mark.usefixtures("quiet_optuna")


TERMS = {"population_size": 6, "n_elites": 2, "n_generations": 5, "seed": 3}


def term_objective(trial: Trial) -> float:
    genome = TermSpace().suggest(trial)
    return abs(genome["lr"] - 0.003) + abs(genome["beta1"] - 0.8) + 0.1 * genome["n_terms"]


def term_sampler(**options: Any) -> GeneticSampler:
    return GeneticSampler(space=TermSpace(), **{**TERMS, **options})


@pytest.fixture(scope="module")
def term_search() -> Slots:
    """What one thread proposes in 26 trials: generation 0 to 5 whole."""
    return unbroken(26, term_objective, space=TermSpace(), **TERMS)


@pytest.mark.parametrize("n_jobs", [4, 16])
def test_any_number_of_threads_proposes_the_same(term_search, n_jobs):
    noise = random.Random(n_jobs)

    def objective(trial: Trial) -> float:
        value = term_objective(trial)
        time.sleep(noise.random() * 0.01)
        return value

    study = optuna.create_study(sampler=term_sampler())
    study.optimize(objective, n_trials=26, n_jobs=n_jobs)
    assert by_slot(study) == term_search


def test_ties_do_not_make_genomes_depend_on_the_order_of_trials():
    def search(unlucky: bool) -> Slots:
        study = optuna.create_study(sampler=GeneticSampler(population_size=8, n_elites=2, seed=0))
        for size in (8, 6, 6):
            trials = [study.ask() for _ in range(size)]
            for trial in trials:
                plain(trial)
            if unlucky:  # one worker of many dies, its slot goes to a trial with a higher number
                study.tell(trials[0], state=TrialState.FAIL)
                trials[0] = study.ask()
                plain(trials[0])
            for trial in trials:
                study.tell(trial, -1.0)  # diverged, all of them
        return by_slot(study)

    assert search(unlucky=True) == search(unlucky=False)


def test_failures_change_no_genome(term_search):
    def objective(trial: Trial) -> float:
        value = term_objective(trial)
        if trial.number in (0, 3, 8, 12, 20):
            raise RuntimeError("out of memory")
        return value

    study = optuna.create_study(sampler=term_sampler())
    study.optimize(objective, n_trials=26 + 5, catch=RuntimeError)
    assert by_slot(study) == term_search


def rdb(path: Path | str) -> RDBStorage:
    """SQLite without waiting for the disk, which costs the tests most of their time."""
    storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(storage.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous = OFF"))
    storage.engine.dispose()  # so that every later connection is made with it
    return storage


def work(path: str, n_trials: int, killed_at: int | None) -> None:
    """A worker process; it dies by SIGKILL in the middle of trial `killed_at`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Trial) -> float:
        value = term_objective(trial)
        if trial.number == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001 * (os.getpid() % 7))
        return value

    study = optuna.load_study(study_name="s", storage=rdb(path), sampler=term_sampler())
    study.optimize(objective, n_trials=n_trials)


def start(path: Path, n_trials: int, killed_at: int | None = None) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(str(path), n_trials, killed_at), daemon=True
    )
    process.start()
    return process


@pytest.mark.slow
def test_processes_on_one_sqlite_file_propose_the_same(term_search, tmp_path):
    study = optuna.create_study(study_name="s", storage=rdb(tmp_path / "s.db"), sampler=term_sampler())
    workers = [start(tmp_path / "s.db", n) for n in (13, 13)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert by_slot(study) == term_search


@pytest.mark.slow
def test_a_search_killed_in_the_middle_goes_on_as_if_unbroken(term_search, tmp_path):
    study = optuna.create_study(study_name="s", storage=rdb(tmp_path / "s.db"), sampler=term_sampler())
    worker = start(tmp_path / "s.db", 26, killed_at=11)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    stale = [trial.number for trial in study.trials if trial.state == TrialState.RUNNING]
    assert stale == [11]
    study.tell(11, state=TrialState.FAIL)
    study.sampler = term_sampler()
    study.optimize(term_objective, n_trials=26 - 11)
    assert by_slot(study) == term_search


def test_two_studies_in_one_database_with_two_samplers_do_not_mix(tmp_path):
    storage = rdb(tmp_path / "s.db")
    a, b = (
        optuna.create_study(
            study_name=f"s{seed}",
            storage=storage,
            sampler=GeneticSampler(population_size=4, n_elites=1, seed=seed),
        )
        for seed in (0, 1)
    )
    for _ in range(10):
        a.optimize(plain, n_trials=1)
        b.optimize(plain, n_trials=1)
    for seed, study in enumerate((a, b)):
        assert by_slot(study) == unbroken(10, population_size=4, n_elites=1, seed=seed)


def test_a_study_that_was_deleted_and_made_again_starts_anew(tmp_path):
    # SQLite gives the new study the old one's id.
    storage = optuna.storages.get_storage(rdb(tmp_path / "s.db"))
    sampler = GeneticSampler(population_size=3, n_elites=1, seed=0)
    for _ in range(2):
        study = optuna.create_study(study_name="s", storage=storage, sampler=sampler)
        study.optimize(plain, n_trials=7)
        genomes = by_slot(study)
        optuna.delete_study(study_name="s", storage=storage)
    assert genomes == unbroken(7, population_size=3, n_elites=1, seed=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_of_the_sampler_goes_on_as_the_original_would(copied, term_search):
    study = optuna.create_study(sampler=term_sampler())
    study.optimize(term_objective, n_trials=13)
    study.sampler = copied(study.sampler)
    study.optimize(term_objective, n_trials=13)
    assert by_slot(study) == term_search


def test_without_a_seed_two_studies_differ():
    first, second = (unbroken(6, population_size=3, n_elites=1) for _ in range(2))
    assert all(first[key] != second[key] for key in first)


def substitute(study: Study, sampler: BaseSampler) -> tuple[Trial, dict[str, Any]]:
    """Fail a trial and give its slot to another sampler."""
    trial = study.ask()
    plain(trial)
    study.tell(trial, state=TrialState.FAIL)
    study.sampler = sampler
    again = study.ask()
    plain(again)
    return trial, again.params


def test_without_a_seed_two_workers_of_one_study_agree():
    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1))
    study.optimize(plain, n_trials=4)
    trial, params = substitute(study, GeneticSampler(population_size=3, n_elites=1))
    assert params == trial.params


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs time.tzset")
def test_without_a_seed_workers_in_two_time_zones_agree(monkeypatch, tmp_path):
    def sampler() -> GeneticSampler:
        return GeneticSampler(population_size=3, n_elites=1)

    try:
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        study = optuna.create_study(study_name="s", storage=rdb(tmp_path / "s.db"), sampler=sampler())
        study.optimize(plain, n_trials=2)
        trial = study.ask()
        plain(trial)
        study.tell(trial, state=TrialState.FAIL)
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        study = optuna.load_study(study_name="s", storage=rdb(tmp_path / "s.db"), sampler=sampler())
        again = study.ask()
        plain(again)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert again.params == trial.params


def test_without_a_seed_a_generation_costs_no_more_reads_than_with_one():
    reads = []
    for seed in (0, None):
        storage = CountingStorage()
        study = optuna.create_study(
            storage=storage, sampler=GeneticSampler(population_size=20, n_elites=2, seed=seed)
        )
        study.optimize(plain, n_trials=40)
        reads.append(storage.reads)
    assert reads[1] <= reads[0] + 40
