"""Groups: one trial trains its neighbours too, and neither workers nor kills change what comes out."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from racing import FINISHED, STEPS, Slots, Workers, by_slot, chance, config, noisy

from optevo import keys
from optevo.evaluation.objective import Interrupted
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.optim.terms.genome import TermGenome
from optevo.samplers import GeneticSampler
from optevo.samplers.slots import Slot, SlotTable, claimed

POPULATION, ELITES, GENERATIONS = 14, 2, 6  # those of `config`
ALL = {(g, i) for g in range(GENERATIONS) for i in range(POPULATION - (ELITES if g else 0))}


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))  # most of what these studies would take
        yield
    optuna.logging.set_verbosity(before)


def workers(k: int, n: int = 1, **options: Any) -> Workers:
    return Workers(config(batch_candidates=k), n, costs={"digits": 5, "mnist": 2}, **options)


def trials(world: Workers) -> list[FrozenTrial]:
    return world.studies[0].get_trials(deepcopy=False)


def finished(world: Workers) -> dict[tuple[int, int], int]:
    """The number of the trial that decided each slot."""
    done = [trial for trial in trials(world) if trial.state in FINISHED]
    return {tuple(trial.system_attrs[keys.CLAIM]): trial.number for trial in done}


@pytest.fixture(scope="module")
def unbroken() -> Slots:
    return workers(4).play()


# One trial, one group


def test_one_trial_evaluates_its_whole_group():
    world = workers(4)
    assert world.ask(0)
    world.finish(0)
    assert sorted(finished(world)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert [trial.state in FINISHED for trial in trials(world)] == [True] * 4
    first, *stacks = world.benches[0].stacks
    assert len(first) <= 4
    assert all(set(stack) <= set(first) for stack in stacks)


def test_a_group_trains_run_by_run_and_shrinks_as_members_end():
    scores = {"digits": 0.9, "mnist": 0.9}

    def score(canonical: str, task: str, seed: int) -> float | None:
        return None if chance(canonical) < 0.5 else scores[task]

    world = Workers(config(batch_candidates=8, gate=False), score=score)
    world.ask(0)
    world.finish(0)
    first, *rest = world.benches[0].stacks
    good = [canonical for canonical in first if chance(canonical) >= 0.5]
    assert 0 < len(good) < len(first) == 8
    assert rest == [good] * 3


@pytest.mark.parametrize("k", [3, 4, 5, 14, 1000])
def test_every_generation_is_exact_and_the_last_group_may_be_smaller(k: int):
    world = workers(k)
    slots = world.play()
    assert set(slots) == ALL
    assert len(trials(world)) == len(ALL)  # nothing failed, nothing surplus
    for g in range(GENERATIONS):
        size = POPULATION - (ELITES if g else 0)
        groups = [range(first, min(first + k, size)) for first in range(0, size, k)]
        leaders = [min(finished(world)[g, i] for i in group) for group in groups]
        assert all(len(stack) <= k for stack in world.benches[0].stacks)
        assert len(set(leaders)) == len(groups)


def test_the_trials_that_a_leader_adds_are_like_any_other(unbroken: Slots):
    world = workers(4)
    world.ask(0)
    world.finish(0)
    leader, *added = trials(world)
    assert len(added) == 3
    about_the_process = {keys.WORKER}
    always = {keys.FORMULA, keys.HYPERPARAMETERS, keys.CANONICAL, keys.RUNS}
    lineage = {keys.GENERATION, keys.SLOT, keys.PARENTS, keys.ORIGIN}
    for trial in added:
        assert set(trial.user_attrs) >= always | {keys.TRAINED_STEPS, keys.SECONDS}
        assert set(keys.ours(trial)) >= lineage
        assert set(trial.system_attrs) == set(leader.system_attrs)
        assert list(trial.params) == list(leader.params)
        assert trial.distributions == leader.distributions
        assert trial.intermediate_values == {4 * STEPS: trial.value}
        assert trial.datetime_start == leader.datetime_start
        assert trial.datetime_complete >= trial.datetime_start
    shared = set.intersection(*(set(trial.user_attrs) for trial in trials(world)))
    assert shared - about_the_process >= always


@pytest.mark.parametrize("k", [3, 4, 14])
def test_a_slot_in_a_group_gets_what_it_gets_alone(k: int):
    # A score that does not depend on the company: then all must be the same.
    alone, grouped = workers(1), workers(k)
    for world in (alone, grouped):
        bench = world.benches[0]
        run = bench._run
        bench._run = lambda *what, run=run: run(*what[:3], "any", what[4])
    one, several = alone.play(), grouped.play()
    assert set(one) == set(several) == ALL
    for slot, found in one.items():
        assert several[slot] == found
    assert {found[keys.ORIGIN] for found in one.values()} == {"random", "crossover+mutation"}


def test_presets_hold_the_first_slots_of_a_group():
    from optevo.study.studies import make_sampler  # noqa: PLC0415

    one = config(batch_candidates=3, pruner="none").model_copy(
        update={"space": config().space.model_copy(update={"presets": ("sgd", "adam")})}
    )
    world = Workers(one, make=make_sampler)
    world.ask(0)
    world.finish(0)
    assert [keys.ours(t)[keys.ORIGIN] for t in trials(world)] == ["preset", "preset", "random"]
    assert [keys.ours(t)[keys.SLOT] for t in trials(world)] == [0, 1, 2]


# Who may claim what


def test_nobody_claims_in_a_group_in_which_a_trial_is_at_work():
    world = workers(4, 5)
    got = [world.ask(worker) for worker in range(5)]
    assert got == [True] * 4 + [False]  # 14 slots are four groups
    claims = [claimed(t) for t in trials(world) if t.state == TrialState.RUNNING]
    assert sorted(slot.index for slot in claims if slot) == [0, 4, 8, 12]
    world.finish(1)
    assert not world.ask(4)
    for worker in (0, 2, 3):
        world.finish(worker)
    assert world.ask(4)
    assert claimed(trials(world)[-1]) == Slot(1, 0)


def test_a_group_with_decided_slots_is_claimed_by_one_of_its_open_ones():
    world = workers(4, 2)
    world.ask(0)
    kill_while_adding(world, 0, after=1)
    assert sorted(finished(world)) == [(0, 1)]
    assert world.ask(1)
    assert claimed(trials(world)[-1]) == Slot(0, 2)  # a slot that failed comes last
    world.ask(0)
    assert claimed(trials(world)[-1]) == Slot(0, 4)


def test_one_slot_of_each_group_can_be_claimed():
    board = SlotTable(10, 1, 3, group_size=4)
    assert board.claimable() == [Slot(0, 0), Slot(0, 4), Slot(0, 8)]
    assert board.group(Slot(0, 9)) == [Slot(0, 8), Slot(0, 9)]
    assert board.group(Slot(1, 8)) == [Slot(1, 8)]
    assert SlotTable(10, 1, 3).claimable() == SlotTable(10, 1, 3).open(0)


def test_a_group_needs_a_space():
    sampler = GeneticSampler(population_size=4, group_size=2)
    study = optuna.create_study(sampler=sampler)
    study.ask()
    with pytest.raises(ValueError, match="space"):
        sampler.group(study, Slot(0, 0))


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (5, 0), (5, 1)])
def test_workers_in_any_order_find_what_one_finds(unbroken: Slots, n: int, seed: int):
    world = workers(4, n)
    assert world.play(random.Random(seed)) == unbroken
    trained = [set(bench.trained) for bench in world.benches]
    assert any(trained)


# Kills


class Killed(BaseException):
    """What SIGKILL is to a worker: nobody catches it."""


def kill_while_adding(world: Workers, worker: int, after: int) -> bool:
    """The worker trains its group and is killed after so many added trials; whether it was."""
    study = world.studies[worker]
    add, added = study.add_trial, []

    def add_trial(trial: FrozenTrial) -> None:
        if len(added) == after:
            raise Killed
        added.append(trial)
        add(trial)

    trial = world.live[worker]
    study.add_trial = add_trial  # type: ignore[method-assign]
    try:
        world.finish(worker)
    except Killed:
        # What is left of it is a trial that runs for ever, until somebody misses its process.
        world.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return True
    finally:
        study.add_trial = add  # type: ignore[method-assign]
    return False


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_what_a_killed_leader_left_is_evaluated_by_the_next_trial_and_nothing_twice(
    unbroken: Slots, after: int
):
    world = workers(4, 2)
    world.ask(0)
    killed = kill_while_adding(world, 0, after)
    assert killed == (after < 3)
    before = finished(world)
    assert len(before) == (after if killed else 4)
    if killed:
        world.ask(1)
        world.finish(1)
    assert {slot: finished(world)[slot] for slot in before} == before
    assert sorted(finished(world)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert world.play() == unbroken


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (3, 0), (3, 1)])
def test_a_study_whose_leaders_are_killed_all_the_time_ends_as_the_unbroken_one(
    unbroken: Slots, seed: int, n: int
):
    luck, world, kills = random.Random(seed), workers(4, n), 0
    while not world.complete():
        worker = luck.randrange(n)
        if worker not in world.live:
            world.ask(worker)
        elif kills < 40 and luck.random() < 0.6:
            kills += kill_while_adding(world, worker, luck.randrange(3))
        else:
            world.finish(worker)
    assert kills > 4
    assert by_slot(trials(world)) == unbroken


@pytest.mark.parametrize("k", [4, 14])
def test_the_stack_after_a_kill_is_the_stack_before_it(k: int):
    world = workers(k, 2)
    world.ask(0)
    kill_while_adding(world, 0, after=2)
    world.ask(1)
    world.finish(1)
    assert world.benches[1].stacks == world.benches[0].stacks


def test_an_interrupted_group_leaves_nothing_behind(unbroken: Slots):
    world = workers(4)
    bench, objective = world.benches[0], world.objectives[0]
    calls: list[int] = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted
        return real(*args)

    real = bench.run_together
    bench.run_together = interrupted  # type: ignore[method-assign]
    world.ask(0)
    trial = world.live.pop(0)
    with pytest.raises(Interrupted):
        objective(trial)
    world.studies[0].tell(trial, state=TrialState.FAIL)
    assert finished(world) == {}
    assert world.play() == unbroken


def test_a_leader_that_was_presumed_dead_decides_nothing_twice(unbroken: Slots):
    world = workers(4, 2)
    world.ask(0)
    slow = world.live[0]
    world.storage.set_trial_state_values(slow._trial_id, TrialState.FAIL)  # taken for dead
    world.ask(1)
    world.finish(1)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        world.finish(0)
    assert len(finished(world)) == 4
    assert world.play() == unbroken


# A member that raises


def test_a_member_that_raises_costs_its_own_slot_and_not_those_of_its_group():
    poison = by_slot_of_first_generation()[0, 2]

    def score(canonical: str, task: str, seed: int) -> float | None:
        if canonical == poison:
            raise RuntimeError("this genome's fault")
        return noisy(canonical, task, seed)

    lost = []
    for k in (1, 4):
        world = workers(k, score=score)
        while world.studies[0].sampler.slot_table(world.studies[0]).generation == 0:
            world.ask(0)
            trial = world.live[0]
            try:
                world.finish(0)
            except RuntimeError:
                world.studies[0].tell(trial, state=TrialState.FAIL)
        decided = {slot for slot in finished(world) if slot[0] == 0}
        lost.append({(0, i) for i in range(POPULATION)} - decided)
    assert lost[1] == lost[0]


def test_a_member_whose_gate_raises_costs_its_own_slot_alone(monkeypatch: pytest.MonkeyPatch):
    poison, real = by_slot_of_first_generation()[0, 2], TermGenome.gate

    def own(one: TermGenome) -> str | None:
        if one.canonical() == poison:
            raise ZeroDivisionError
        return real(one)

    monkeypatch.setattr(TermGenome, "gate", own)
    world = workers(4)
    assert world.ask(0)
    world.finish(0)
    assert set(finished(world)) == {(0, 0), (0, 1), (0, 3)}


def by_slot_of_first_generation() -> dict[tuple[int, int], str]:
    return {slot: found[keys.CANONICAL] for slot, found in workers(1).play().items() if slot[0] == 0}
