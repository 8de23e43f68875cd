"""Racing within runs: who stops, what that is worth, what is kept, and that timing changes none of it."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from racing import STEPS, Line, Slots, Workers, by_slot, config
from strategies import genome

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.candidate_runs import CandidateRuns
from optevo.evaluation.racing import lowest, thresholds
from optevo.evaluation.within_runs import MARGIN, MARGIN_TO_FALL, behind_within, margins, useful_losses
from optevo.optim.schedules import WarmupCosine
from optevo.optim.terms import gate as integrity
from optevo.optim.terms.gate import gate
from optevo.samplers import GeneticSampler
from optevo.study.config import StudyConfig
from optevo.training.run import Run, read_run

COSTS = {"digits": 5, "mnist": 2}


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_quick() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "gate", functools.cache(gate))
        yield
    optuna.logging.set_verbosity(before)


def within(**evaluation: Any) -> Any:
    return config(pruner="racing_within_runs", **evaluation)


def whole(fitness: float, losses: Sequence[float | None] = (2.0, 1.0, 0.5)) -> Run:
    return Run("digits", 0, fitness, fitness, 0.5, tuple(losses), STEPS, 0.1, None)


def ended(*losses: float) -> Run:
    return Run("digits", 0, -1.0, None, None, losses, 2 * len(losses), 0.1, None)


# What is asked


def test_what_is_asked_is_what_the_useful_members_of_the_generation_before_had_by_then():
    good = [[whole(0.9, (1.0, 0.9, 0.1))], [whole(0.8, (2.0, 0.4, 0.1))]]
    others = [[whole(0.1 * n, (0.1, 0.1, 0.1))] for n in range(5)]
    (losses,) = useful_losses([*others, *good], 1)
    assert losses == [1.5, 0.65]


def test_those_who_diverged_or_did_not_come_so_far_ask_nothing():
    diverged = Run("digits", 0, -1.0, None, None, (9.0, None), 7, 0.1, 6)
    (first, second) = useful_losses([[whole(0.5), diverged], [], [diverged]], 2)
    assert first == [2.0, 1.0]
    assert second == []


def test_a_loss_that_is_not_finite_asks_nothing():
    assert useful_losses([[whole(0.5, (None, 1.0, 0.5))]], 1)[0][0] == math.inf


def test_the_first_tenth_with_too_high_a_loss_is_where_a_trial_stops():
    assert behind_within([2.0, 1.1], [2.0, 1.0], [0.0, 0.1]) is None
    assert behind_within([3.0], [], []) is None
    assert behind_within([-0.95], [-1.0], [0.1]) is None
    reason = behind_within([1.0, 1.5, 9.0], [2.0, 1.25, 1.0], [0.1, 0.15, 0.1])
    assert reason is not None
    assert reason.startswith("racing: training loss 1.5000 in tenth 2 of the run; the median of the best")
    assert reason.endswith("had 1.2500 or less, and 15.0% more would do")


def test_who_has_yet_to_lower_its_rate_may_be_further_behind():
    assert margins(lambda step: 1.0, 100) == [MARGIN] * 9
    assert margins(WarmupCosine(100, warmup_steps=100), 100) == [MARGIN] * 9
    falling = margins(WarmupCosine(100, cosine=True), 100)
    assert falling[0] == pytest.approx(MARGIN + MARGIN_TO_FALL, abs=0.01)
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(MARGIN, abs=0.01)
    assert len(margins(WarmupCosine(4), 4)) == 3


# What it is worth


@given(st.data())
def test_who_stops_within_a_run_ranks_between_those_that_stopped_before_and_after_it(data):
    n_runs = 4
    fitness = st.floats(0.01, 1.05)
    table = data.draw(st.lists(st.lists(fitness, min_size=4, max_size=4), min_size=3, max_size=8))
    asked, least = thresholds(table, n_runs), lowest(table, n_runs)

    def course(values: Sequence[float], last: Run | None) -> CandidateRuns | None:
        one = CandidateRuns(genome("GRAD"), n_runs, thresholds=asked, lowest=least)
        one.useful_losses, one.margins = [[0.0] * 9] * n_runs, [0.0] * 9
        for value in values:
            if one.ended:
                return None
            one.add(whole(value))
        if last is not None and not one.ended:
            one.add(last)
        return one if one.ended and (last is None) == (one.unfinished is None) else None

    n = data.draw(st.integers(0, 3))
    runs = st.lists(fitness, min_size=n, max_size=n)
    tenths = data.draw(st.integers(1, 9))
    one = course(data.draw(runs), ended(*[1.0] * tenths))
    if one is None or one.value is None:
        return
    before = course(data.draw(runs), None)
    assert before is None or before.value < one.value
    further = [data.draw(st.floats(least[i], 1.05)) for i in range(n + 1)]
    after = course(further, None)
    assert after is None or after.value > one.value
    longer = course(data.draw(runs), ended(*[1.0] * tenths, 2.0)) if tenths < 9 else None
    assert longer is None or longer.value > one.value


# Whole studies


@pytest.fixture(scope="module", params=[1, 4], ids=["one by one", "stacks of four"])
def one_worker(request: pytest.FixtureRequest) -> tuple[int, Slots]:
    return request.param, Workers(within(batch_candidates=request.param), costs=COSTS).play()


def stopped(slots: Slots) -> list[dict[str, Any]]:
    return [found for found in slots.values() if keys.UNFINISHED in found]


def test_a_trial_that_stops_says_where_and_keeps_the_losses_so_far(one_worker):
    _, slots = one_worker
    assert len(stopped(slots)) > 10
    assert {len(found[keys.RUNS]) for found in stopped(slots)} >= {0, 1}
    for found in stopped(slots):
        run = read_run({**found[keys.UNFINISHED], "seconds": 0.0})
        n = len(run.losses)
        assert found["state"] == TrialState.PRUNED
        assert found[keys.GENERATION] > 0
        assert 0 < n < 10
        assert run.unfinished
        assert run.steps == 2 * n
        # What is known may be behind earlier than where it once stopped.
        where = range(n, n + 1) if found[keys.TRAINED_STEPS] else range(1, n + 1)
        assert any(f"in tenth {i} of the run" in found[keys.PRUNED_BY] for i in where)
        assert 0 < found["value"] < 1.05
        known = found.get(keys.COPIED_RUNS, 0)
        trained = STEPS * (len(found[keys.RUNS]) - known)
        assert found[keys.TRAINED_STEPS] in (trained, trained + run.steps)


def test_a_form_that_lost_within_a_run_is_not_trained_again_where_it_would_lose_again():
    slots = Workers(within(), costs=COSTS).play()
    copies = [found for found in stopped(slots) if found[keys.TRAINED_STEPS] == 0]
    assert copies
    for found in copies:
        source = slots[found[keys.COPIED_FROM]]
        assert source[keys.CANONICAL] == found[keys.CANONICAL]
        assert source[keys.UNFINISHED] == found[keys.UNFINISHED]
        assert source[keys.RUNS] == found[keys.RUNS]


@pytest.mark.parametrize("n", [2, 4])
def test_workers_in_any_order_find_what_one_finds(one_worker, n: int):
    k, slots = one_worker
    assert Workers(within(batch_candidates=k), n, costs=COSTS).play(random.Random(n)) == slots


def test_a_new_process_for_every_trial_finds_what_one_finds():
    slots, workers, n = Workers(within(), costs=COSTS).play(), Workers(within(), 75, costs=COSTS), 0
    while not workers.complete():
        assert workers.ask(n)
        workers.finish(n)
        n += 1
    assert by_slot(workers.studies[0].trials) == slots


def test_an_asynchronous_search_races_within_runs_and_ends():
    def made(config: StudyConfig) -> GeneticSampler:
        sizes = config.sampler.model_dump(include={"population_size", "n_generations", "n_elites"})
        return GeneticSampler(**sizes, seed=0, space=Line(), endless=False, asynchronous=True)

    slots = Workers(within(), 3, costs=COSTS, make=made).play(random.Random(0))
    assert stopped(slots)
    assert {g for g, _ in slots} == set(range(6))


def test_it_saves_steps():
    def steps(pruner: str) -> int:
        slots = Workers(config(pruner=pruner), costs=COSTS).play()
        return sum(found[keys.TRAINED_STEPS] for found in slots.values())

    assert steps("racing_within_runs") < 0.9 * steps("racing")


def test_runs_that_look_for_their_rate_are_refused():
    with pytest.raises(UserError, match="take the pruner racing"):
        within(steps=1000, rates={})
