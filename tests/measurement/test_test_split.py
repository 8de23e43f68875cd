"""The winner on the test split, once a study, and its variants on validation data: who reads what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import optuna
import pytest
from measured_studies import config, create, measured, measured_variants, own, plan, put, without
from measuring import Inline

from optevo import keys
from optevo.errors import UserError
from optevo.measurement import test_split as final
from optevo.measurement.fresh_seeds import measure
from optevo.measurement.pool import form_of, run_key
from optevo.measurement.test_split import (
    Plan,
    finished,
    measure_test_split,
    stored_evaluation,
)
from optevo.optim.terms.presets import PRESETS
from optevo.study.studies import load_study
from optevo.training.bench import Bench
from optevo.training.run import Run
from optevo.training.single import train

pytestmark = pytest.mark.usefixtures("quiet_optuna")


# Plans


def test_the_first_plan_is_a_thousand_steps_and_three_seeds_of_the_winner(study: optuna.Study):
    assert plan(study, config(), 1) == Plan(1, 1, 1000, (1000, 1001, 1002))


def test_a_first_plan_takes_the_steps_and_seeds_that_are_asked_for(study: optuna.Study):
    assert plan(study, config(), 0, steps=7, n_seeds=2) == Plan(1, 0, 7, (1000, 1001))


def test_planning_writes_nothing(study: optuna.Study):
    before = study.user_attrs
    plan(study, config(), 0)
    plan(study, config(), 0, again=True)
    assert study.user_attrs == before


def test_every_study_is_measured_on_the_same_seeds(study: optuna.Study):
    other = create(config(seed=99), trials=0)
    assert plan(other, config(), 0).seeds == plan(study, config(), 1).seeds


@pytest.mark.parametrize("said", [{}, {"steps": 4}, {"n_seeds": 2}, {"steps": 4, "n_seeds": 2}], ids=str)
def test_a_measurement_that_was_made_is_the_plan(study: optuna.Study, said: dict[str, int]):
    put(study)
    assert plan(study, config(), 1, **said) == Plan(1, 1, 4, (1000, 1001))


@pytest.mark.parametrize("said", [{"steps": 5}, {"n_seeds": 3}, {"steps": 4, "n_seeds": 1}], ids=str)
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_another_budget_than_that_of_a_begun_measurement_is_refused(
    study: optuna.Study, said: dict[str, int], complete: bool, again: bool
):
    put(study)
    if not complete:
        study = without(study, ":1:1001")
    if complete and again:
        assert plan(study, config(), 1, again=True, **said).attempt == 2  # asked for by name
        return
    with pytest.raises(UserError, match="test split") as caught:
        plan(study, config(), 1, again=again, **said)
    assert study.study_name in str(caught.value)
    assert ("steps" if said.get("steps") == 5 else "seeds") in str(caught.value)


def test_a_measurement_of_another_trial_than_the_present_winner_is_refused(study: optuna.Study):
    put(study, trial=1)
    with pytest.raises(UserError, match="trial 1"):
        plan(study, config(), 0)


def test_again_is_a_second_attempt_at_the_present_winner(study: optuna.Study):
    put(study)
    assert plan(study, config(), 0, again=True) == Plan(2, 0, 1000, (1000, 1001, 1002))
    assert plan(study, config(), 0, again=True, steps=9, n_seeds=1) == Plan(2, 0, 9, (1000,))


def test_again_goes_on_with_a_measurement_that_is_not_finished(study: optuna.Study):
    put(study)
    put(study, 2)
    half = without(study, run_key(f"{keys.FINAL}2:4:", form_of(PRESETS["adam"]), 0, 1000))
    assert plan(half, config(), 1, again=True).attempt == 2
    assert plan(half, config(), 1).attempt == 1  # the one that is whole
    assert plan(study, config(), 1, again=True).attempt == 3


def test_again_without_a_measurement_is_the_first(study: optuna.Study):
    assert plan(study, config(), 1, again=True).attempt == 1


def test_the_latest_finished_measurement_is_shown(study: optuna.Study):
    assert stored_evaluation(study, config()) is None
    put(study)
    put(study, 2)
    assert stored_evaluation(study, config()).attempt == 2
    assert (
        stored_evaluation(
            without(study, run_key(f"{keys.FINAL}2:4:", form_of(PRESETS["adam"]), 1, 1000)),
            config(),
        ).attempt
        == 1
    )


def test_the_final_budget_changes_steps_seeds_and_split_and_nothing_else():
    one = config(evaluation__precision="bfloat16", evaluation__batch_size=64)
    budget = final.test_config(one, Plan(1, 0, 77, (1000, 1001)))
    plain, changed = one.to_dict(), budget.to_dict()
    assert {key: changed["evaluation"].pop(key) for key in ("steps", "seeds", "split")} == {
        "steps": 77,
        "seeds": [1000, 1001],
        "split": "test",
    }
    for key in ("steps", "seeds", "split"):
        plain["evaluation"].pop(key)
    assert changed == plain


# What is stored, and in which order


@pytest.mark.parametrize("seeds", [(1000, 1001), (9, 10, 11), (1000,)], ids=str)
def test_runs_are_given_task_by_task_and_seed_by_seed(study: optuna.Study, seeds: tuple[int, ...]):
    put(study, seeds=seeds)
    done = finished(study, config(), plan(study, config(), 1))
    assert [(run.task, run.seed) for run in done.runs] == [(t, s) for t in ("digits", "other") for s in seeds]
    assert done.seeds == list(seeds)
    assert done.tasks == ["digits", "other"]


@pytest.mark.parametrize("missing", [":0:1000", ":1:1001"])
def test_a_measurement_that_lacks_a_run_is_not_finished(study: optuna.Study, missing: str):
    put(study)
    assert finished(study, config(), plan(study, config(), 1)) is not None
    assert finished(without(study, missing), config(), plan(study, config(), 1)) is None


def test_the_tenth_attempt_is_not_the_first(study: optuna.Study):
    for attempt in range(1, 11):
        put(study, attempt)
    assert [finished(study, config(), one).runs[0].metric for one in final._plans(study)] == [
        i / 10 for i in range(1, 11)
    ]
    assert plan(study, config(), 1).attempt == 10


# Measuring


def test_the_winner_is_scored_on_the_test_split(pool, study: optuna.Study, digits):
    done = measured(study, Plan(1, 1, 4, (1000, 1001)))
    winner = config().make_space().candidate(study.trials[1].params)
    by_split = {
        split: [train(*digits, winner, seed=seed, steps=4, split=split).metric for seed in (1000, 1001)]
        for split in ("test", "validation")
    }
    assert [run.metric for run in done.runs[:2]] == by_split["test"] != by_split["validation"]
    assert (done.study, done.trial, done.attempt, done.steps) == ("one", 1, 1, 4)
    assert {run.steps for run in done.runs} == {4}


def test_what_was_measured_is_what_is_stored(pool, study: optuna.Study):
    done = measured(study, plan(study, config(), 1, steps=2, n_seeds=2))
    loaded, _ = load_study(study._storage, "one")
    assert stored_evaluation(loaded, config()) == done
    assert finished(loaded, config(), plan(loaded, config(), 1)) == done


def test_the_split_is_said_to_be_spent_before_anything_is_trained(
    pool,
    study: optuna.Study,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Inline, "lives", 0)
    one = plan(study, config(), 1, steps=2, n_seeds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(study, one)
    assert pool.asked == []
    (key,) = own(study)
    assert key == f"{keys.FINAL}1"
    header = study.user_attrs[key]
    assert (header["trial"], header["steps"], header["seeds"]) == (1, 2, [1000, 1001])
    assert header["environment"]["torch"]
    assert plan(study, config(), 1) == one


@pytest.mark.parametrize("lives", [1, 3])
def test_a_killed_measurement_goes_on_where_it_was(
    pool,
    study: optuna.Study,
    lives: int,
    monkeypatch: pytest.MonkeyPatch,
):
    unbroken = measured(without(study, "nothing"), Plan(1, 1, 2, (1000, 1001)))
    assert len(pool.asked) == 4
    pool.asked.clear()
    monkeypatch.setattr(Inline, "lives", lives)
    one = plan(study, config(), 1, steps=2, n_seeds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(study, one)
    assert finished(study, config(), one) is None
    kept = own(study)
    assert len(kept) == 1 + lives
    monkeypatch.setattr(Inline, "lives", 100)
    done = measured(study, plan(load_study(study._storage, "one")[0], config(), 1))
    asked = [(task, seed) for _, task, seed in pool.asked]
    assert sorted(asked) == [(0, 1000), (0, 1001), (1, 1000), (1, 1001)]  # nothing twice
    assert [(r.task, r.seed, r.metric) for r in done.runs] == [
        (r.task, r.seed, r.metric) for r in unbroken.runs
    ]
    assert kept.items() <= own(study).items()


def test_a_killed_process_costs_the_run_it_was_at(pool, study: optuna.Study, monkeypatch):
    deaths = iter([False, True, False])

    def submit(self: Inline, function: Callable[..., Run], *arguments: Any) -> Future[Run]:
        if not next(deaths, False):
            return inner(self, function, *arguments)
        future: Future[Run] = Future()
        future.set_exception(BrokenProcessPool())
        return future

    inner = Inline.submit
    monkeypatch.setattr(Inline, "submit", submit)
    done = measured(study, plan(study, config(), 1, steps=2, n_seeds=2))
    assert len(done.runs) == 4
    assert len(pool.asked) == 4


def test_a_finished_measurement_is_not_trained_again(pool, study: optuna.Study):
    put(study)
    before = study.user_attrs
    measured(study, plan(study, config(), 1))
    assert pool.asked == []
    assert study.user_attrs == before


def test_a_second_attempt_leaves_the_first_as_it_was(pool, study: optuna.Study):
    measured(study, plan(study, config(), 1, steps=2, n_seeds=2))
    before = copy.deepcopy(own(study, f"{keys.FINAL}1"))
    second = measured(study, plan(study, config(), 1, again=True, steps=2, n_seeds=2))
    assert second.attempt == 2
    assert own(study, f"{keys.FINAL}1") == before
    assert len(pool.asked) == 8  # trained anew, not looked up
    assert stored_evaluation(study, config()) == second
    assert plan(study, config(), 1) == Plan(2, 1, 2, (1000, 1001))


def test_progress_counts_every_run_that_is_trained(pool, study: optuna.Study):
    seen: list[int] = []
    one = plan(study, config(), 1, steps=1, n_seeds=2)
    measure_test_split(study, config(), one, devices=["cpu"], data_root=Path(), progress=seen.append)
    assert seen == [1, 2, 3, 4]


# Who sees the test split


def test_a_bench_of_a_search_holds_no_test_data():
    assert [{*splits} for _, splits in Bench(config(), "cpu", Path()).tasks] == [{"train", "validation"}] * 2


def test_a_bench_that_scores_on_the_test_split_holds_it():
    bench = Bench(config(evaluation__split="test"), "cpu", Path())
    assert [{*splits} for _, splits in bench.tasks] == [{"train", "validation", "test"}] * 2


def test_search_rerun_and_variants_never_touch_the_test_split(pool):
    one = config(["measuring:Guarded"])
    study = create(one)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    measure(study, one, devices=["cpu"], data_root=Path())
    runs = measured_variants(study, one)
    assert len(pool.asked) > 6
    assert all(run.metric is not None for run in runs["adam"])


def test_the_final_measurement_touches_it(pool):
    one = config(["measuring:Guarded"])
    study = create(one)
    with pytest.raises(AssertionError, match="touched"):
        measured(study, plan(study, one, 1), one)


def test_a_search_that_says_test_touches_it():
    with pytest.raises(AssertionError, match="touched"):
        Bench(config(["measuring:Guarded"], evaluation__split="test"), "cpu", Path())
