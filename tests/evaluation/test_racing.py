"""Racing: who stops, what that is worth, in which order runs go, and that timing changes none of it."""

from __future__ import annotations

import functools
import heapq
import math
import random
from collections.abc import Iterator, Sequence

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from racing import STEPS, Score, Scored, Slots, Workers, by_slot, chance, config, noisy, raced
from strategies import genome
from torch import nn

from optevo import keys
from optevo.evaluation.candidate_runs import CandidateRuns
from optevo.evaluation.objective import Objective
from optevo.evaluation.racing import behind, thresholds, worth
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, load_study
from optevo.tasks import build
from optevo.training.bench import Bench
from optevo.training.run import Run


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))  # most of what these studies would take
        yield
    optuna.logging.set_verbosity(before)


# Thresholds


def tables(n_runs: st.SearchStrategy[int] = st.integers(1, 6)) -> st.SearchStrategy[list[list[float]]]:  # noqa: B008
    """A population, best member first: the fitness of each one's runs."""
    tenths = st.integers(0, 10).map(lambda n: n / 10)
    fitness = st.one_of(tenths, st.floats(0, 1.05))
    return n_runs.flatmap(
        lambda n: st.lists(st.lists(fitness, min_size=n, max_size=n), min_size=2, max_size=14)
    )


@given(tables(), st.data())
def test_a_bar_is_what_the_best_quarter_had_earned_by_then(table, data):
    n_runs = len(table[0])
    population = [fitness[: data.draw(st.integers(0, n_runs))] for fitness in table]
    asked = thresholds(population, n_runs)
    assert len(asked) == n_runs - 1
    quarter = -(-len(population) // 4)
    for n, bar in enumerate(asked, 1):
        sums = [math.fsum(fitness[:n]) for fitness in population if len(fitness) >= n]
        assert bar == (min(heapq.nlargest(quarter, sums)) if sums else -math.inf)


@given(tables(), st.randoms())
def test_the_order_of_the_population_has_no_say(table, luck):
    shuffled = luck.sample(table, len(table))
    assert thresholds(shuffled, len(table[0])) == thresholds(table, len(table[0]))


@given(tables(), st.lists(st.floats(-1, 1.05), max_size=7))
def test_who_stops_would_not_have_been_among_the_best_quarter(table, earned):
    n_runs, quarter = len(table[0]), -(-len(table) // 4)
    reason = behind(earned, thresholds(table, n_runs))
    ahead = sum(math.fsum(earned) < math.fsum(fitness[: len(earned)]) for fitness in table)
    assert (reason is not None) == (0 < len(earned) < n_runs and ahead >= quarter)
    assert reason is None or reason.startswith("racing:")


def test_without_bars_nobody_stops():
    assert behind([-1.0], []) is None
    assert behind([], [0.5]) is None
    assert behind([-1.0], thresholds([[], []], 3)) is None


def courses(table: Sequence[Sequence[float]], thresholds: Sequence[float]) -> list[CandidateRuns]:
    """A generation that runs against `thresholds`; two seeds a task where that comes out even."""
    n_runs, ended = len(table[0]), []
    n_tasks = n_runs // 2 if n_runs % 2 == 0 else n_runs
    for fitness in table:
        one = CandidateRuns(genome("GRAD"), n_runs, thresholds=thresholds)
        for i, value in enumerate(fitness):
            if not one.ended:
                one.add(Run(f"task {i % n_tasks}", i // n_tasks, value, value, 1.0, (), STEPS, 0.1, None))
        ended.append(one)
    return ended


@settings(max_examples=300)
@given(tables(), st.data())
def test_who_stops_ranks_below_everyone_that_went_on(before, data):
    n_runs = len(before[0])
    table = data.draw(tables(n_runs=st.just(n_runs)))
    _check_ranks(courses(table, thresholds(before, n_runs)))


def test_who_stops_ranks_below_everyone_that_went_on_where_sums_differ_in_the_last_bit():
    # 0.1 + 0.2 > 0.3
    asked = thresholds([[0.1, 0.2, 0.0, 0.0]], 4)
    _check_ranks(courses([[0.3, 0.0, 0.0, 0.0], [0.1, 0.2, 0.0, 0.0]], asked))


def _check_ranks(generation: list[CandidateRuns]) -> None:
    for stopped in generation:
        if len(stopped.runs) < stopped.n_runs:
            assert stopped.value is not None
            further = [other for other in generation if len(other.runs) > len(stopped.runs)]
            assert all(other.value > stopped.value for other in further)


def test_what_a_stopped_trial_is_worth_counts_runs_not_taken_as_nothing():
    assert worth([0.5, 0.25], 4) == 0.1875


# The order of runs


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        pytest.param({"digits": 9, "mnist": 1}, ["m4", "m2", "d4", "d2"], id="the cheapest task first"),
        pytest.param({"digits": 1, "mnist": 9}, ["d4", "d2", "m4", "m2"], id="as they stand"),
        pytest.param({"digits": 3, "mnist": 3}, ["d4", "m4", "d2", "m2"], id="seed by seed among equals"),
        pytest.param({}, ["d4", "m4", "d2", "m2"], id="nothing known"),
    ],
)
def test_runs_go_cheapest_task_first_and_seed_by_seed_among_equals(costs, expected):
    workers = Workers(config(seeds=[4, 2], pruner="none", gate=False), costs=costs, score=lambda *run: 0.5)
    workers.ask(0)
    workers.finish(0)
    assert [f"{task[0]}{seed}" for _, task, seed in workers.benches[0].trained] == expected
    (trial,) = workers.studies[0].trials
    assert [f"{run['task'][0]}{run['seed']}" for run in keys.ours(trial)[keys.RUNS]] == expected


def test_what_a_task_costs_is_a_count_of_its_multiplications(monkeypatch: pytest.MonkeyPatch):
    one = parse_config(
        {
            "name": "costs",
            "sampler": {"kind": "genetic"},
            "evaluation": {"tasks": ["digits"], "batch_size": 50},
        },
        "test",
    )
    bench = Bench(one, "cpu", None)  # type: ignore[arg-type]
    macs = 64 * 64 + 64 * 32 + 32 * 10
    assert bench.rehearse() == {"digits": 2 * 50 * macs}
    task = bench.tasks[0][0]
    monkeypatch.setattr(
        task, "model", lambda g: build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), g)
    )
    assert bench.rehearse() == {"digits": 2 * 50 * 640}


# Whole studies


def oracle(slots: Slots, config: StudyConfig, order: Sequence[tuple[str, int]], score: Score) -> Slots:
    """State, value and number of runs of every slot, from the table of all fitness and nothing else."""
    sampler, n_runs = config.sampler, len(order)
    ranked: list[tuple[tuple[bool, float, tuple[int, int]], list[float]]] = []
    expected: Slots = {}
    for g in range(sampler.n_generations):
        quarter = math.ceil(len(ranked) / 4)
        members = ranked[: sampler.n_elites]
        for index in range(sampler.population_size - (sampler.n_elites if g else 0)):
            canonical = slots[g, index][keys.CANONICAL]
            ascends = '"grad":-1.0' in canonical
            fitness: list[float] = []
            state, value = TrialState.PRUNED, -math.inf
            for task, seed in () if ascends else order:
                one = score(canonical, task, seed)
                fitness.append(-1.0 if one is None else one + 1e-12 * chance("alone"))
                rivals = [theirs[: len(fitness)] for _, theirs in ranked if len(theirs) >= len(fitness)]
                if one is None:
                    value = -math.inf
                    break
                value = sum(fitness) / n_runs
                if len(fitness) == n_runs:
                    state = TrialState.COMPLETE
                elif rivals and sum(sum(fitness) < sum(theirs) - 1e-15 for theirs in rivals) >= min(
                    quarter, len(rivals)
                ):
                    break
            expected[g, index] = {"state": state, "value": value, "n": len(fitness)}
            members = [*members, ((state != TrialState.COMPLETE, -value, (g, index)), fitness)]
        ranked = sorted(members)
    return expected


@pytest.fixture(scope="module")
def one_worker() -> Slots:
    return Workers(config(), costs={"digits": 5, "mnist": 2}).play()


def test_a_study_races_as_an_oracle_says(one_worker: Slots):
    order = [("mnist", 0), ("mnist", 1), ("digits", 0), ("digits", 1)]
    expected = oracle(one_worker, config(), order, noisy)
    assert set(one_worker) == set(expected)
    for slot, found in one_worker.items():
        assert found["state"] == expected[slot]["state"]
        assert len(found[keys.RUNS]) == expected[slot]["n"]
        value = -math.inf if found["value"] is None else found["value"]
        assert value == pytest.approx(expected[slot]["value"], abs=1e-14)


def test_that_study_has_every_kind_of_trial(one_worker: Slots):
    # Else the tests around it say less than they seem to.
    verdicts = [found.get(keys.PRUNED_BY, "complete").split(":")[0] for found in one_worker.values()]
    assert set(verdicts) == {"complete", "gate", "diverged", "racing"}
    assert verdicts.count("racing") >= 5
    assert {len(found[keys.RUNS]) for found in one_worker.values() if raced(found)} == {1, 2, 3}
    assert any(keys.COPIED_FROM in found and found[keys.TRAINED_STEPS] for found in one_worker.values())


def test_generation_zero_is_never_raced(one_worker: Slots):
    assert not any(raced(found) for (g, _), found in one_worker.items() if g == 0)
    assert any(raced(found) for (g, _), found in one_worker.items() if g == 1)


def test_a_raced_trial_is_pruned_with_the_sum_of_its_fitness_over_all_runs(one_worker: Slots):
    for found in filter(raced, one_worker.values()):
        assert found["state"] == TrialState.PRUNED
        assert 0 < len(found[keys.RUNS]) < 4
        assert found["value"] == math.fsum(run["fitness"] for run in found[keys.RUNS]) / 4
        copied = found.get(keys.COPIED_RUNS, 0)
        assert found[keys.TRAINED_STEPS] == STEPS * (len(found[keys.RUNS]) - copied)


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (4, 0), (4, 1)])
def test_workers_in_any_order_find_what_one_finds(one_worker: Slots, n: int, seed: int):
    workers = Workers(config(), n, costs={"digits": 5, "mnist": 2})
    assert workers.play(random.Random(seed)) == one_worker
    assert all(bench.trained for bench in workers.benches)


def test_a_new_process_for_every_trial_finds_what_one_finds(one_worker: Slots):
    workers = Workers(config(), 75, costs={"digits": 5, "mnist": 2})
    n = 0
    while not workers.complete():
        assert workers.ask(n)
        workers.finish(n)
        n += 1
    assert n == 74
    assert by_slot(workers.studies[0].trials) == one_worker


def test_without_racing_everyone_is_trained_to_the_end():
    slots = Workers(config(pruner="none")).play()
    assert not any(map(raced, slots.values()))
    for found in slots.values():
        verdict = found.get(keys.PRUNED_BY, "complete").split(":")[0]
        assert (found["state"] == TrialState.COMPLETE) == (verdict == "complete")
        assert len(found[keys.RUNS]) == 4 or verdict in ("gate", "diverged")


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_samplers_without_generations_train_everyone_under_the_default_pruner(kind: str):
    one = config({"kind": kind, "n_trials": 15}, gate=False)
    assert one.evaluation.pruner == "racing"
    storage = InMemoryStorage()
    create_or_resume(one, storage, "cpu")
    study, _ = load_study(storage, one.name)
    study.optimize(Objective(Scored(one, chance), one.make_space()), n_trials=15)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 15
    assert all(len(keys.ours(trial)[keys.RUNS]) == 4 for trial in study.trials)


def test_a_last_bit_in_the_sum_does_not_depend_on_what_was_copied(one_worker: Slots):
    # A value is made of the same runs in the same order, whoever trained them.
    values: dict[str, set[float]] = {}
    for found in one_worker.values():
        if found["state"] == TrialState.COMPLETE:
            values.setdefault(found[keys.CANONICAL], set()).add(found["value"])
    assert values
    assert all(len(found) == 1 for found in values.values())
