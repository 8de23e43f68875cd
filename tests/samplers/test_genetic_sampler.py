"""`GeneticSampler` against every trap of genetic sampling under Optuna, each first sprung on NSGA-II.

A check that both samplers can take is a function of a sampler factory. It raises `AssertionError` where the
sampler walks into the trap: the test for ours calls it, the test for Optuna's expects the error.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, NSGAIISampler, PartialFixedSampler
from optuna.storages import InMemoryStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import event

from optevo.samplers import GeneticSampler, NoSlot
from optevo.samplers import claiming as claims
from optevo.samplers.slots import SlotTable
from optevo.spaces import TermSpace

Factory = Callable[[int], BaseSampler]
Slots = dict[tuple[int, int], Any]
INHERIT = ("COMPLETE", "PRUNED")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def ours(population: int) -> GeneticSampler:
    return GeneticSampler(population_size=population, n_elites=0, seed=0)


def nsga2(population: int) -> NSGAIISampler:
    return NSGAIISampler(population_size=population, seed=0)


def plain(trial: Trial) -> float:
    return trial.suggest_float("x", -5, 5) ** 2 + trial.suggest_float("y", -5, 5) ** 2


def ternary(trial: Trial) -> float:
    return sum(trial.suggest_categorical(f"p{i}", ["a", "b", "c"]) != "b" for i in range(6))


def generation(trial: FrozenTrial) -> int | None:
    return trial.user_attrs.get("generation", trial.system_attrs.get("NSGAIISampler:generation"))


def slot(trial: FrozenTrial) -> tuple[int, int]:
    return trial.user_attrs["generation"], trial.user_attrs["slot"]


def sizes(study: Study) -> Counter[int | None]:
    """How many trials each generation took."""
    return Counter(generation(trial) for trial in study.trials)


def ask_slot(study: Study) -> tuple[int, int]:
    """The slot that a newly asked trial gets."""
    number = study.ask().number
    return slot(study.trials[number])


def by_slot(study: Study) -> Slots:
    """The parameters evaluated in each slot; a slot that was decided twice fails here."""
    done = [trial for trial in study.trials if trial.state.name in INHERIT]
    genomes = {slot(trial): trial.params for trial in done}
    assert len(genomes) == len(done), "a slot was evaluated twice"
    return genomes


def populations(study: Study, size: int, n_elites: int) -> list[list[int]]:
    """Trial numbers of every finished generation, the fittest first: an oracle that minimises."""
    ranked: list[list[int]] = []
    carried: list[FrozenTrial] = []
    while True:
        g = len(ranked)
        born = [t for t in study.trials if t.state.name in INHERIT and slot(t)[0] == g]
        if len(born) < size - (n_elites if g else 0):
            return ranked
        members = sorted(carried + born, key=lambda t: float("inf") if t.value is None else t.value)
        ranked.append([t.number for t in members])
        carried = members[:n_elites]


def unbroken(n_trials: int, objective: Callable[[Trial], float] = plain, **options: Any) -> Slots:
    study = optuna.create_study(sampler=GeneticSampler(**options))
    study.optimize(objective, n_trials=n_trials)
    return by_slot(study)


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


class CountingTrials(list):
    """A list of trials that counts how many are looked at."""

    visits = 0

    def __iter__(self) -> Iterator[FrozenTrial]:
        for trial in super().__iter__():
            CountingTrials.visits += 1
            yield trial

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        CountingTrials.visits += len(found) if isinstance(index, slice) else 1
        return found


class CountingStorage(InMemoryStorage):
    reads = 0

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        self.reads += 1
        return CountingTrials(super().get_all_trials(*args, **kwargs))


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


# Members, parents, lineage


def test_enqueued_trials_become_parents():
    study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
    for x in range(4):
        study.enqueue_trial({"x": x / 10, "y": 0.0})
    study.optimize(plain, n_trials=7)
    parents = {number for trial in study.trials[4:] for number in trial.user_attrs["parents"]}
    assert parents
    assert parents <= {0, 1, 2, 3}


def test_presets_hold_the_first_slots_of_generation_zero():
    presets = [{"x": 1.0, "y": 2.0}, {"x": -1.0, "y": 0.5}]
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=5, n_elites=1, seed=0, presets=presets)
    )
    study.optimize(plain, n_trials=5)
    assert [trial.params for trial in study.trials[:2]] == presets
    assert [trial.user_attrs["origin"] for trial in study.trials] == ["preset"] * 2 + ["random"] * 3


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
        g, parents = trial.user_attrs["generation"], trial.user_attrs["parents"]
        assert len(parents) == (2 if g else 0)
        assert not g or set(parents) <= set(ranked[g - 1])


def test_the_worst_member_never_wins_a_tournament_of_four():
    study = optuna.create_study(sampler=GeneticSampler(population_size=6, n_elites=2, seed=2))
    study.optimize(plain, n_trials=60)
    ranked = populations(study, 6, 2)
    for trial in study.trials:
        if trial.user_attrs["generation"]:
            worst = ranked[trial.user_attrs["generation"] - 1][3:]
            assert not set(trial.user_attrs["parents"]) & set(worst)


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
    last = [t for t in study.trials if t.user_attrs["generation"] == 4]
    assert any(0 in trial.user_attrs["parents"] for trial in last)


def test_an_enqueued_trial_does_not_claim_to_be_a_preset():
    study = optuna.create_study(
        sampler=GeneticSampler(population_size=4, n_elites=1, seed=0, presets=[{"x": 1.0, "y": 1.0}])
    )
    study.enqueue_trial({"x": 3.0, "y": 3.0})
    study.optimize(plain, n_trials=1)
    assert study.trials[0].params == {"x": 3.0, "y": 3.0}
    assert study.trials[0].user_attrs["origin"] != "preset"


def test_pruned_trials_rank_by_what_they_earned():
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


# The same search, whatever happens to its workers

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


# Slots in the host's hands: asking, waiting, taking over, retrying


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
    assert surplus.user_attrs == {"surplus": True}


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


def test_several_objectives_are_refused():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=ours(4))
    with pytest.raises(ValueError, match="one objective"):
        study.ask()


# Other people's spaces, pruners and wrappers


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
    later = [tuple(t.params.values()) for t in study.trials if t.user_attrs["generation"]]
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
    later = [t for t in study.trials if t.user_attrs["generation"] >= 2]
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
    later = [t.params["n"] for t in study.trials if t.user_attrs["generation"] >= 5]
    assert sum(later) / len(later) < 3  # a blind draw has 4.5


def test_the_objective_can_read_its_generation_and_slot():
    seen = []

    def objective(trial: Trial) -> float:
        seen.append((trial.user_attrs.get("generation"), trial.user_attrs.get("slot")))
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
