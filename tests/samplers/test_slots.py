"""The claim protocol under every interleaving that Hypothesis can think of, and the `SlotTable` by itself.

Each worker is a thread with a study and a sampler of its own, as processes have. The storage hands a baton
around: a worker stops before each of its storage operations until it is let go, so that the order of all of
them is a list of integers.
"""

from __future__ import annotations

import random
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.samplers import claiming as claims
from optevo.samplers.slots import Slot, SlotTable, claimed

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    monkeypatch.setattr(claims, "_POLL_SECONDS", 0.0)
    yield
    optuna.logging.set_verbosity(before)


class Killed(BaseException):
    """What SIGKILL is to a thread: neither Optuna nor the sampler catches it."""


class Worker:
    """A thread that does one storage operation at a time."""

    def __init__(self, world: World, outcomes: list[str]) -> None:
        self.go, self.stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.alive, self.killed, self.at = True, False, "start"
        self.world, self.outcomes = world, outcomes
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        self.stopped.acquire()

    def run(self) -> None:
        self.world.storage.here.worker = self
        try:
            self.pause()
            study = optuna.load_study(
                study_name="s", storage=self.world.storage, sampler=self.world.sampler()
            )
            study.optimize(self.objective, n_trials=len(self.outcomes), catch=RuntimeError)
        except BaseException:  # Optuna answers `Killed` with an error of its own
            if not self.killed:
                self.world.broken.append(traceback.format_exc())
        finally:
            self.alive = False
            self.stopped.release()

    def pause(self, at: str = "objective") -> None:
        if self.killed:  # whatever `finally` clauses try
            raise Killed
        self.at = at
        self.stopped.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        self.go.release()
        assert self.stopped.acquire(timeout=20), "a worker hangs between two storage operations"

    def kill(self) -> None:
        self.killed = True
        self.step()

    def objective(self, trial: Trial) -> float:
        value = trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 0, 3)
        self.world.begin(trial)
        try:
            self.pause()  # training takes a while
        finally:
            self.world.end(trial)
        match self.outcomes.pop():
            case "prune":
                trial.report(value, 0)
                raise optuna.TrialPruned
            case "fail":
                raise RuntimeError
            case "interrupt":
                trial.set_user_attr(keys.INTERRUPTED, True)
                raise RuntimeError
        return value


class StepwiseStorage(InMemoryStorage):
    """Stops a worker before every operation that another could notice or that notices another."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def _pause(self, at: str) -> None:
        if worker := getattr(self.here, "worker", None):
            worker.pause(at)

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        self._pause("create_new_trial")
        return super().create_new_trial(*args, **kwargs)

    def set_trial_system_attr(self, *args: Any, **kwargs: Any) -> None:
        self._pause("set_trial_system_attr")
        super().set_trial_system_attr(*args, **kwargs)

    def set_trial_state_values(self, *args: Any, **kwargs: Any) -> bool:
        self._pause("set_trial_state_values")
        return super().set_trial_state_values(*args, **kwargs)

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        if states is None:
            self._pause("get_all_trials")
        return super().get_all_trials(study_id, deepcopy, states)


class World:
    """A study, its workers, and what must hold of them at every moment."""

    def __init__(self, programs: list[list[str]], population: int, n_elites: int) -> None:
        self.storage, self.population, self.n_elites = StepwiseStorage(), population, n_elites
        self.study = optuna.create_study(study_name="s", storage=self.storage)
        self.working: dict[Slot, int] = {}
        self.broken: list[str] = []
        self.workers = [Worker(self, list(program)) for program in programs]

    def sampler(self) -> GeneticSampler:
        return GeneticSampler(
            population_size=self.population, n_elites=self.n_elites, seed=0, patience=float("inf")
        )

    def size(self, generation: int) -> int:
        return self.population - (self.n_elites if generation else 0)

    def trials(self) -> list[FrozenTrial]:
        return InMemoryStorage.get_all_trials(self.storage, self.study._study_id)

    def decided(self, slot: Slot) -> bool:
        held = [t for t in self.trials() if claimed(t) == slot]
        failures = sum(
            t.state == TrialState.FAIL and not keys.ours(t).get(keys.INTERRUPTED, False) for t in held
        )
        return any(t.state in FINISHED for t in held) or failures >= 3

    def begin(self, trial: Trial) -> None:
        slot = claimed(self.storage._get_trial(trial._trial_id))
        if slot in self.working:
            self.broken.append(f"trials {self.working[slot]} and {trial.number} work on {slot} together")
        if self.decided(slot):
            self.broken.append(f"trial {trial.number} works on {slot}, which is decided")
        before = slot.generation - 1
        if before >= 0 and not all(self.decided(Slot(before, i)) for i in range(self.size(before))):
            self.broken.append(f"trial {trial.number} was bred from a generation in progress")
        self.working[slot] = trial.number

    def end(self, trial: Trial) -> None:
        self.working = {slot: n for slot, n in self.working.items() if n != trial.number}

    def reap(self) -> None:
        """What heartbeats do: trials whose worker is dead fail."""
        if any(worker.alive for worker in self.workers):
            return
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def play(self, order: list[int], kills: set[int]) -> None:
        for moment, choice in enumerate(order):
            alive = [worker for worker in self.workers if worker.alive]
            if not alive:
                break
            worker = alive[choice % len(alive)]
            if moment in kills:
                worker.kill()
            else:
                worker.step()

    def stop(self) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.kill()
        self.reap()

    def check(self) -> None:
        assert not self.broken, self.broken
        trials = self.trials()
        done = Counter(claimed(t) for t in trials if t.state in FINISHED)
        assert set(done.values()) <= {1}, f"slots decided more than once: {done}"
        genomes: dict[Slot, set[Any]] = {}
        for trial in trials:
            if claimed(trial) is not None and len(trial.params) == 2:
                genomes.setdefault(claimed(trial), set()).add(tuple(sorted(trial.params.items())))
        assert all(len(proposed) == 1 for proposed in genomes.values()), "a substitute got other parameters"
        board = self.sampler().slot_table(self.study)
        for g in range(board.generation):
            assert all(self.decided(Slot(g, i)) for i in range(self.size(g)))
        assert not any(slot.generation > board.generation for slot in done)


PROGRAMS = st.lists(
    st.lists(st.sampled_from(["complete", "complete", "prune", "fail", "interrupt"]), min_size=1, max_size=4),
    min_size=2,
    max_size=4,
)


def interleave(
    programs: list[list[str]], order: list[int], kills: set[int], population: int, n_elites: int
) -> None:
    world = World(programs, population, n_elites)
    try:
        world.play(order, kills)
    finally:
        world.stop()
    world.check()
    # Whatever was left behind, another worker can go on and finish what is open.
    study = optuna.load_study(study_name="s", storage=world.storage, sampler=world.sampler())
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_int("n", 0, 3), n_trials=2 * population)
    world.check()


@settings(max_examples=60)
@given(
    programs=PROGRAMS,
    order=st.lists(st.integers(0, 11), min_size=20, max_size=150),
    kills=st.sets(st.integers(0, 150), max_size=3),
    population=st.integers(2, 4),
    data=st.data(),
)
def test_no_interleaving_counts_a_slot_twice_or_loses_one(programs, order, kills, population, data):
    interleave(programs, order, kills, population, data.draw(st.integers(0, population - 1)))


@settings(max_examples=60)
@given(
    programs=PROGRAMS,
    order=st.lists(st.integers(0, 11), min_size=20, max_size=150),
    kills=st.sets(st.integers(0, 150), max_size=2),
    population=st.integers(2, 4),
    data=st.data(),
)
def test_safety_does_not_rest_on_the_order_of_askers(programs, order, kills, population, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlotTable, "undecided", lambda self, before=0: 0)
        interleave(programs, order, kills, population, data.draw(st.integers(0, population - 1)))


@pytest.mark.parametrize("seed", range(5))
def test_live_workers_always_get_done(seed):
    # Under a fair but random order; a livelock would never end.
    rng = random.Random(seed)
    world = World([["complete"] * 5 for _ in range(5)], 4, rng.randrange(4))
    try:
        world.play([rng.randrange(60) for _ in range(6000)], set())
        assert not any(worker.alive for worker in world.workers)
    finally:
        world.stop()
    world.check()


def test_a_worker_that_wakes_up_after_its_generation_ended_takes_no_slot_of_it(monkeypatch):
    # A laptop lid, a suspended job: between choosing a slot and claiming it, others finish the generation.
    monkeypatch.setattr(SlotTable, "undecided", lambda self, before=0: 0)
    world = World([["complete"], ["complete"] * 3], 2, 0)
    sleeper, other = world.workers
    try:
        while sleeper.at != "set_trial_system_attr":
            sleeper.step()
        for worker in (other, sleeper):
            while worker.alive:
                worker.step()
    finally:
        world.stop()
    world.check()
