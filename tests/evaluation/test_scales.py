"""Scores on any scale, higher is better: who stops, who breeds, who wins, and how it is told."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from racing import Score, Scored, Slots, Workers, chance, config, noisy, raced

from optevo import keys
from optevo.evaluation.candidate_runs import CandidateRuns
from optevo.evaluation.objective import Objective
from optevo.evaluation.racing import behind, lowest, thresholds, worth
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.optim.terms.presets import PRESETS
from optevo.samplers.slots import Slot, SlotTable, earned
from optevo.study.studies import best_trials, create_or_resume, load_study
from optevo.training.fitness import DIVERGED
from optevo.training.run import Run, total_fitness


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))
        yield
    optuna.logging.set_verbosity(before)


def run(fitness: float, seed: int = 0, *, diverged: bool = False) -> Run:
    """A run of a task, of which a diverged one has the number that is stored for it."""
    metric, at = (None, 3) if diverged else (fitness, None)
    return Run("task", seed, DIVERGED if diverged else fitness, metric, 1.0, (), 20, 0.1, at)


SCALES: dict[str, Callable[[float], float]] = {
    "minus loss": lambda x: -3.0 + x,
    "r2": lambda x: -5.0 + 6.0 * x,
    "minus perplexity": lambda x: -1e6 * (1.1 - x),
    "around minus one": lambda x: -1.5 + x,
    "tiny": lambda x: -1e-9 * (1.1 - x),
    "huge": lambda x: 1e9 * (x - 0.5),
}


def scaled(scale: Callable[[float], float]) -> Score:
    def score(canonical: str, task: str, seed: int) -> float | None:
        one = noisy(canonical, task, seed)
        return None if one is None else scale(one)

    return score


# What a run and a trial are worth


@pytest.mark.parametrize("fitness", [-1e9, -1.0, -0.5, 0.0, 0.9])
def test_a_diverged_run_is_below_any_score(fitness: float):
    assert run(fitness, diverged=True).earned < run(fitness).earned == fitness
    assert total_fitness([run(0.9), run(0.9, 1, diverged=True)]) < total_fitness([run(fitness)] * 2)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_a_stopped_trial_is_worth_no_more_than_its_worst_runs_to_come(scale: Callable[[float], float]):
    rest = [scale(0.2), scale(0.5)]
    value = worth([scale(0.9), scale(0.4)], 4, [scale(1.0), scale(1.0), *rest])
    for third in (scale(0.4), *rest[:1]):
        for fourth in (scale(0.4), *rest[1:]):
            # Within a rounding of the sums; where scores are above 0, a run not made counts 0.
            possible = (scale(0.9) + scale(0.4) + third + fourth) / 4
            assert value <= possible + 1e-12 * abs(possible)


def test_runs_not_made_count_nothing_between_0_and_1_and_the_lowest_known_below():
    assert worth([0.5, 0.25], 4, [0.4] * 4) == worth([0.5, 0.25], 4) == 0.1875
    assert worth([-3.0], 2) == -3.0
    assert worth([-3.0], 2, [-9.0, -4.0]) == -3.5
    assert worth([2.0], 3, [-9.0, -4.0, 5.0]) == -2 / 3
    assert worth([], 2) == 0.0


def test_the_lowest_of_a_run_leaves_out_who_diverged_or_had_not_come_so_far():
    assert lowest([[-3.0, -math.inf], [-5.0], [2.0, 1.0]], 3) == [-5.0, 1.0, 0.0]


def test_who_diverged_sets_no_threshold_where_scores_may_be_below_it():
    # Of four one is the best quarter: the sums after two runs are −4 and, for those that diverged, nothing.
    population = [[-2.0, -math.inf], [-2.0, -2.0, -2.0], [-3.0, -math.inf], [-9.0, -math.inf]]
    assert thresholds(population, 3) == [-2.0, -4.0]
    assert thresholds([[-2.0, -math.inf]], 3) == [-2.0, -math.inf]
    assert behind([-1e9, -1e9], [-2.0, -math.inf]) is None


def test_between_0_and_1_a_diverged_run_counts_minus_one_in_a_threshold():
    # As ever: a study that goes on asks what it asked before.
    assert thresholds([[0.5, 0.9], [0.9, -math.inf]], 3) == [0.9, pytest.approx(1.4)]
    assert thresholds([[0.9, -math.inf]], 3) == [0.9, pytest.approx(-0.1)]


@pytest.mark.parametrize(("better", "worse"), [(-2.0, -3.0), (0.9, 0.8), (-1e6, -1e6 - 1), (0.0, -1.0)])
def test_who_stops_is_worth_less_than_who_went_on_and_who_diverged_than_both(better: float, worse: float):
    """minus scores: gekkowarez/gekkoga#28, krkn-chaos/krkn-ai#50."""
    asked = thresholds([[better] * 2, [worse] * 2, [worse] * 2, [worse] * 2], 2)
    on, stopped, diverged = (CandidateRuns(PRESETS["sgd"], 2, thresholds=asked) for _ in range(3))
    for seed in (0, 1):
        on.add(run(better, seed))
        if not stopped.ended:
            stopped.add(run(worse, seed))
    diverged.add(run(0.0, diverged=True))
    assert [len(one.runs) for one in (on, stopped, diverged)] == [2, 1, 1]
    values = [one.value for one in (on, stopped, diverged)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 3


def test_a_refused_and_a_given_up_candidate_are_worth_less_than_any():
    refused, given_up = (CandidateRuns(PRESETS["sgd"], 2) for _ in range(2))
    refused.enter("gate: it climbs", seconds=0.0)
    given_up.fail("failed 3 times")
    assert refused.value == given_up.value == -math.inf


# The order of a population


def pruned(value: float | None, **attrs: Any) -> FrozenTrial:
    state = TrialState.PRUNED
    return optuna.trial.create_trial(state=state, value=value, user_attrs=attrs)


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (pruned(None), None),
        (pruned(-1.0, **{keys.RUNS: [{"diverged_at": None}, {"diverged_at": 3}]}), None),
        (pruned(-1.0, **{keys.RUNS: []}), None),
        (pruned(-1.0, **{keys.RUNS: [], keys.ATTEMPTS: [1, 2, 3]}), None),
        (pruned(-1.0, **{keys.RUNS: [{"diverged_at": None}]}), -1.0),
        (pruned(0.0, **{keys.RUNS: []}), 0.0),
        (pruned(-1.0), -1.0),
        (optuna.trial.create_trial(value=-1.0, user_attrs={keys.RUNS: []}), -1.0),
    ],
    ids=["new", "diverged", "refused", "given up", "stopped", "in its first run", "another's", "complete"],
)
def test_minus_one_in_an_older_study_is_no_score(trial: FrozenTrial, expected: float | None):
    assert earned(trial) == expected


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_members_rank_complete_ones_first_then_by_value_then_by_slot(direction: str):
    sign = 1 if direction == "maximize" else -1
    study = optuna.create_study(direction=direction)
    ended: list[tuple[TrialState, float | None]] = [
        (TrialState.PRUNED, 5.0),
        (TrialState.PRUNED, None),
        (TrialState.COMPLETE, -7.0),
        (TrialState.PRUNED, 5.0),
        (TrialState.COMPLETE, -3.0),
        (TrialState.PRUNED, 6.0),
    ]
    for i, (state, value) in enumerate(ended):
        told = None if value is None else sign * value
        claim = {keys.CLAIM: [0, i]}
        study.add_trial(optuna.trial.create_trial(state=state, value=told, system_attrs=claim))
    table = SlotTable(6, 2, 3)
    table.update(study.get_trials(), study.direction)
    assert [member.slot for member in table.populations[0]] == [Slot(0, i) for i in (4, 2, 5, 0, 3, 1)]


# Whole studies


def ranked(slots: Slots, n: int, elites: int) -> Iterator[list[tuple[int, int]]]:
    """The slots of each generation's population, best first."""

    def key(name: tuple[int, int]) -> tuple[bool, float, tuple[int, int]]:
        value = slots[name]["value"]
        state = slots[name]["state"]
        return state != TrialState.COMPLETE, math.inf if value is None else -value, name

    population: list[tuple[int, int]] = []
    for g in range(n):
        population = sorted([*population[:elites], *(name for name in slots if name[0] == g)], key=key)
        yield population


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_a_search_ranks_its_trials_by_what_they_score(scale: Callable[[float], float], together: int):
    one = config(batch_candidates=together)
    workers = Workers(one, 2, score=scaled(scale), costs={"digits": 5, "mnist": 2})
    slots = workers.play(random.Random(1))
    study, elites = workers.studies[0], one.sampler.n_elites
    populations = study.sampler.slot_table(study).populations
    for g, expected in enumerate(ranked(slots, one.sampler.n_generations, elites)):
        found = [(member.slot.generation, member.slot.index) for member in populations[g]]
        assert found == expected
        for name in (name for name in slots if name[0] == g + 1):
            assert set(slots[name][keys.PARENTS]) <= set(expected)
    complete = [found for found in slots.values() if found["state"] == TrialState.COMPLETE]
    assert study.best_value == max(found["value"] for found in complete)
    verdicts = {found.get(keys.PRUNED_BY, "complete").split(":")[0] for found in slots.values()}
    assert verdicts == {"complete", "gate", "diverged", "racing"}
    for found in slots.values():
        if raced(found):
            assert found["value"] <= max(0.0, *(each["fitness"] for each in found[keys.RUNS]))
        elif found["state"] == TrialState.PRUNED:
            assert found["value"] is None


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_first_race_is_the_same_on_every_scale(scale: Callable[[float], float]):
    """Sums of as many runs compare alike, however scores are stretched and moved."""
    small = {"kind": "genetic", "population_size": 14, "n_generations": 2, "n_elites": 2}

    def whole(canonical: str, task: str, seed: int) -> float:
        return 0.4 * chance(canonical) + 0.6 * chance(canonical, task, seed)

    races = []
    for score in (whole, lambda *what: scale(whole(*what))):
        # Without a gate all of the first generation are whole, so that the second has the same parents.
        slots = Workers(config(small, gate=False), score=score).play()
        races.append({name: (found[keys.CANONICAL], found["state"]) for name, found in slots.items()})
    assert races[0] == races[1]
    assert any(state == TrialState.PRUNED for _, state in races[0].values())


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_samplers_of_optuna_go_on_from_trials_without_a_value(kind: str):
    one, storage = config({"kind": kind, "n_trials": 25}), InMemoryStorage()
    create_or_resume(one, storage, "cpu")
    study, _ = load_study(storage, one.name)
    bench = Scored(one, lambda *what: None if chance("bad", *what) < 0.2 else scaled(SCALES["r2"])(*what))
    study.optimize(Objective(bench, one.make_space()), n_trials=25)
    without = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert without
    assert all(trial.value is None for trial in without)
    assert best_trials(study, 1)[0].value == study.best_value
