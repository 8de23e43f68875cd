"""The simulation of a cluster agrees with what can be worked out by hand."""

from __future__ import annotations

import pytest

from analysis.cluster_simulation import Call, Storage, Tally, runs_of_trials, simulate

FREE = {kind: Call(0.0, 0.0) for kind in ("ask", "report", "tell", "poll")}


def simulated(calls: dict[str, Call], servers: int = 1, **changes: object) -> Tally:
    options = {"workers": 8, "run": 10.0, "population": 11, "asynchronous": True, "trials": 200}
    storage = Storage("any", {**FREE, **calls}, servers)
    return simulate(storage, **{**options, "runs_of_trials": [1], **changes})  # type: ignore[arg-type]


def test_workers_of_a_storage_that_costs_nothing_only_train():
    made = simulated({})
    assert (made.database, made.generation) == (0.0, 0.0)
    assert made.training == pytest.approx(8 * made.seconds, rel=0.1)  # those at work at the end aside
    assert made.trials / made.seconds == pytest.approx(8 / 10, rel=0.1)


@pytest.mark.parametrize("servers", [1, 2])
def test_a_storage_that_everyone_waits_for_decides_how_fast_it_goes(servers: int):
    made = simulated({"tell": Call(0.0, 5.0)}, servers, runs_of_trials=[0])
    assert made.trials / made.seconds == pytest.approx(servers / 5, rel=0.05)
    if servers == 1:  # 8 workers, of whom one is served
        assert made.database / (8 * made.seconds) > 0.7


def test_calls_on_one_machine_share_its_cores():
    alone = simulated({"ask": Call(1.0, 0.0)}, run=0.0, runs_of_trials=[0])
    shared = simulated({"ask": Call(1.0, 0.0)}, run=0.0, runs_of_trials=[0], cores=2)
    assert alone.trials / alone.seconds == pytest.approx(8, rel=0.1)
    assert shared.trials / shared.seconds == pytest.approx(2, rel=0.1)


def test_who_waits_for_a_generation_is_the_rest_of_its_last_round():
    """Of 11 − 3 = 8 slots, each of 5 workers takes one, three take another: two of ten places are empty."""
    made = simulated({}, workers=5, asynchronous=False, trials=400)
    assert made.generation / (5 * made.seconds) == pytest.approx(0.2, abs=0.05)
    larger = simulated({}, workers=5, asynchronous=False, trials=400, population=83)
    assert larger.generation / (5 * larger.seconds) < 0.1


def test_it_is_the_same_for_the_same_seed():
    assert simulated({"ask": Call(0.1, 0.2)}) == simulated({"ask": Call(0.1, 0.2)})
    assert simulated({"ask": Call(0.1, 0.2)}) != simulated({"ask": Call(0.1, 0.2)}, seed=1)


def test_trials_train_as_many_runs_as_in_the_stored_search():
    drawn = runs_of_trials()
    assert (len(drawn), drawn.count(1), drawn.count(3)) == (143, 100, 41)
