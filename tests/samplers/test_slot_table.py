"""The table of slots by itself: what is open, given up, ranked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.samplers.slots import Slot, SlotTable

pytestmark = pytest.mark.usefixtures("quiet_optuna")

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
NOW = datetime.now()


def trial(number: int, state: TrialState, slot: Slot | None = None, **options: Any) -> FrozenTrial:
    values = {"value": options.get("value")} if state in FINISHED else {"value": None}
    return FrozenTrial(
        number=number,
        state=state,
        datetime_start=options.get("started", datetime.now()),
        datetime_complete=NOW + timedelta(seconds=number) if state.is_finished() else None,
        params={},
        distributions={},
        user_attrs=options.get("user_attrs", {}),
        system_attrs={} if slot is None else {keys.CLAIM: [slot.generation, slot.index]},
        intermediate_values={},
        trial_id=number,
        **values,
    )


def board(trials: list[FrozenTrial], population: int = 2, n_elites: int = 0) -> SlotTable:
    made = SlotTable(population, n_elites, max_failures=3)
    made.update(trials, StudyDirection.MINIMIZE)
    return made


FIRST = Slot(0, 0)


def test_a_slot_is_given_up_after_three_failures():
    failed = [trial(i, TrialState.FAIL, FIRST) for i in range(3)]
    assert board(failed[:2]).open(0) == [Slot(0, 1), Slot(0, 0)]  # the luckless last
    assert board(failed).open(0) == [Slot(0, 1)]


def test_an_interruption_is_no_failure():
    stopped = [trial(i, TrialState.FAIL, FIRST, user_attrs={keys.INTERRUPTED: True}) for i in range(9)]
    assert FIRST in board(stopped).open(0)


def test_a_generation_of_nothing_but_failures_is_followed_by_another():
    failed = [trial(i, TrialState.FAIL, Slot(0, i % 2)) for i in range(6)]
    made = board(failed)
    assert made.generation == 1
    assert made.populations[0] == []


def test_a_search_goes_on_after_a_generation_of_nothing_but_failures():
    def objective(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.number < 9:
            raise RuntimeError
        return x

    study = optuna.create_study(sampler=GeneticSampler(population_size=3, n_elites=1, seed=0))
    study.optimize(objective, n_trials=9 + 4, catch=RuntimeError)
    done = Counter(keys.ours(t)[keys.GENERATION] for t in study.trials)
    assert done == {0: 9, 1: 2, 2: 2}
    first = {t.params["x"] for t in study.trials[:9]}
    assert len(first) == 3  # each substitute got its slot's parameters
    assert not first & {t.params["x"] for t in study.trials[9:]}


def test_a_generation_waits_for_the_substitute_of_a_slot_that_has_failed_three_times():
    trials = [trial(i, TrialState.FAIL, FIRST) for i in range(3)]
    trials += [trial(3, TrialState.RUNNING, FIRST), trial(4, TrialState.COMPLETE, Slot(0, 1), value=1.0)]
    assert board(trials).generation == 0


def test_a_waiting_trial_is_not_undecided():
    assert board([trial(0, TrialState.WAITING, started=None)]).undecided() == 0


def test_reading_a_history_at_once_gives_what_reading_it_bit_by_bit_gives():
    study = optuna.create_study(sampler=GeneticSampler(population_size=5, n_elites=2, seed=0))
    bits = SlotTable(5, 2, max_failures=3)

    def objective(trial: Trial) -> float:
        bits.update(study.get_trials(deepcopy=False), StudyDirection.MINIMIZE)
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 4 == 1:
            raise RuntimeError
        return round(x, 1)

    study.optimize(objective, n_trials=60, catch=RuntimeError)
    bits.update(study.trials, StudyDirection.MINIMIZE)
    once = SlotTable(5, 2, max_failures=3)
    once.update(study.trials, StudyDirection.MINIMIZE)
    assert once.generation > 8
    assert (bits.generation, bits.populations) == (once.generation, once.populations)


def test_stragglers_of_finished_generations_leave_nothing_in_memory():
    trials = [trial(0, TrialState.RUNNING, FIRST), trial(1, TrialState.COMPLETE, FIRST, value=1.0)]
    trials += [trial(2, TrialState.COMPLETE, Slot(0, 1), value=1.0)]
    made = board(trials)
    assert made.generation == 1
    trials[0] = trial(0, TrialState.COMPLETE, FIRST, value=1.0)
    made.update(trials, StudyDirection.MINIMIZE)
    assert made._holders == {}


def ranking(order: Callable[[int], int]) -> list[int]:
    """Slots of a population of equals, best first, when slot i is evaluated by trial `order(i)`."""
    slot_of = {order(i): i for i in range(4)}
    trials = [trial(n, TrialState.COMPLETE, Slot(0, slot_of[n]), value=1.0) for n in range(4)]
    return [slot_of[member.number] for member in board(trials, population=4).populations[0]]


def test_members_that_are_equally_fit_rank_by_slot_and_not_by_trial():
    assert ranking(lambda i: i) == ranking(lambda i: (i + 2) % 4)


def test_askers_that_waited_long_do_not_trample_on_each_other(monkeypatch):
    # Twelve workers behind one long training, all older than a minute when the next generation opens.
    monkeypatch.setattr(SlotTable, "undecided", lambda self, before=0: 0)
    writes: Counter[int] = Counter()

    class Counting(InMemoryStorage):
        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            writes[trial_id] += key == keys.CLAIM
            time.sleep(0.001)  # a write to a database takes a while
            super().set_trial_system_attr(trial_id, key, value)

    study = optuna.create_study(
        storage=Counting(), sampler=GeneticSampler(population_size=12, n_elites=0, seed=0)
    )
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=48, n_jobs=12)
    assert sum(writes.values()) / len(writes) < 5
