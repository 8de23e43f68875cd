"""The winner on the test split, once a study, and its variants on validation data: who reads what."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import optuna
import pytest
from measuring import Inline, Memory
from small_studies import config as small_config

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.measurement import ablation as variants
from optevo.measurement import test_split as final
from optevo.measurement.ablation import measure_variants
from optevo.measurement.fresh_seeds import measure
from optevo.measurement.pool import form_of, run_key
from optevo.measurement.test_split import (
    Plan,
    finished,
    measure_test_split,
    next_reading,
    stored_evaluation,
)
from optevo.optim.terms.presets import PRESETS
from optevo.study.check import check_study
from optevo.study.config import StudyConfig
from optevo.study.studies import create_or_resume, load_study
from optevo.tasks.vision import Digits
from optevo.training.bench import Bench
from optevo.training.run import Run
from optevo.training.single import train

pytestmark = pytest.mark.usefixtures("quiet_optuna")
TASKS = ["digits", "measuring:Other"]


def config(tasks: list[str] = TASKS, **changes: Any) -> StudyConfig:
    sampler = {"kind": "genetic", "population_size": 2, "n_generations": 1, "n_elites": 0}
    return small_config(
        sampler=sampler,
        **{
            "evaluation__tasks": tasks,
            "evaluation__steps": 3,
            "rerun": {"candidates": 2, "seeds": 2},
            **changes,
        },
    )


def create(one: StudyConfig, trials: int = 2) -> optuna.Study:
    study = create_or_resume(one, Memory(), "cpu")
    if trials:
        study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=trials)
    return study


@pytest.fixture(scope="module")
def searched() -> optuna.Study:
    """A finished search that is not to be written to."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return create(config())


@pytest.fixture
def study(searched: optuna.Study) -> optuna.Study:
    made = create(config(), trials=0)
    made.add_trials(searched.trials)
    return made


@pytest.fixture
def digits() -> tuple[Digits, dict[str, Any]]:
    task = Digits()
    return task, task.load(Path())


def measured(study: optuna.Study, one: Plan, budget: StudyConfig | None = None) -> final.TestEvaluation:
    return measure_test_split(study, budget or config(), one, devices=["cpu"], data_root=Path())


def plan(study: optuna.Study, one: StudyConfig, winner: int, *, again: bool = False, **said: int) -> Plan:
    reading = next_reading([(study, one, winner)]) if again else 1
    return final.plan(study, one, winner, reading=reading, **said)


def own(study: optuna.Study, prefix: str = keys.FINAL) -> dict[str, Any]:
    return {key: value for key, value in study.user_attrs.items() if key.startswith(prefix)}


def a_run(task: str = "digits", seed: int = 1000, metric: float | None = 0.5, **changes: Any) -> Run:
    run = Run(task, seed, -1.0 if metric is None else metric, metric, 1.0, (1.0,), 3, 0.1, None)
    return dataclasses.replace(run, diverged_at=2 if metric is None else None, **changes)


def put(study: optuna.Study, attempt: int = 1, seeds: tuple[int, ...] = (1000, 1001), trial: int = 1) -> None:
    """A finished measurement of two tasks, as it lies in the storage."""
    header = {"trial": trial, "steps": 4, "seeds": list(seeds), "environment": {}}
    study.set_user_attr(f"{keys.FINAL}{attempt}", header)
    # From the last to the first: no order of the database's is to be relied on.
    for seed in reversed(seeds):
        for i, task in reversed(list(enumerate(("digits", "other")))):
            run = dataclasses.asdict(a_run(task, seed, metric=attempt / 10 + i / 100))
            candidate = config().make_space().candidate(study.trials[trial].params)
            study.set_user_attr(run_key(f"{keys.FINAL}{attempt}:4:", form_of(candidate), i, seed), run)


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


def without(study: optuna.Study, ending: str) -> optuna.Study:
    """The study as it was before the attributes with this ending."""
    other = create(config(), trials=0)
    other.add_trials(study.trials)
    for key, value in study.user_attrs.items():
        if not key.endswith(ending):
            other.set_user_attr(key, value)
    return other


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
            without(study, run_key(f"{keys.FINAL}2:4:", form_of(PRESETS["adam"]), 1, 1000)), config()
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


# Variants


def measured_variants(study: optuna.Study, one: StudyConfig, **changes: Any) -> dict[str, tuple[Run, ...]]:
    candidates = {name: PRESETS[name] for name in ("adam", "rmsprop")}
    said = {"steps": 4, "n_seeds": 2, "progress": lambda done: None, **changes}
    budget = variants.variants_config(one, said["steps"], said["n_seeds"])
    return measure_variants(
        study, budget, candidates, devices=["cpu"], data_root=Path(), progress=said["progress"]
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_variants_are_scored_on_the_validation_split_whatever_the_study_selected_on(
    pool,
    digits,
    split: str,
):
    one = config(["digits"], evaluation__split=split)
    runs = measured_variants(create(one, trials=0), one)
    for name, own_runs in runs.items():
        seeds = [run.seed for run in own_runs]
        expected = [train(*digits, PRESETS[name], seed=s, steps=4, split="validation").metric for s in seeds]
        assert [run.metric for run in own_runs] == expected


def test_variants_of_a_study_that_selected_on_the_test_split_do_not_touch_it(pool):
    one = config(["measuring:Guarded"], evaluation__split="test")
    study = create_or_resume(one, Memory(), "cpu")
    assert len(measured_variants(study, one)["adam"]) == 2


def test_variants_run_task_by_task_and_seed_by_seed_on_the_same_seeds(pool, study: optuna.Study):
    runs = measured_variants(study, config())
    order = [[(run.task, run.seed) for run in each] for each in runs.values()]
    first = variants.FIRST_SEED
    assert order == [[(t, first + i) for t in ("digits", "other") for i in (0, 1)]] * 2


def test_variants_seeds_are_neither_the_searchs_nor_the_finals(study: optuna.Study):
    ours = {variants.FIRST_SEED + i for i in range(100)}
    assert ours.isdisjoint(plan(study, config(), 1, n_seeds=100).seeds)
    assert ours.isdisjoint(config().evaluation.seeds)


@pytest.mark.parametrize("lives", [1, 5])
def test_killed_variants_go_on_where_they_were(
    pool,
    study: optuna.Study,
    lives: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Inline, "lives", lives)
    with pytest.raises(KeyboardInterrupt):
        measured_variants(study, config())
    assert len(own(study, keys.ABLATION)) == lives
    monkeypatch.setattr(Inline, "lives", 100)
    first = measured_variants(study, config())
    asked = [(one.canonical(), task, seed) for one, task, seed in pool.asked]
    assert len(asked) == len(set(asked)) == 8
    assert measured_variants(study, config()) == first
    assert len(pool.asked) == 8


def test_variants_of_another_budget_are_others(pool, study: optuna.Study):
    four = measured_variants(study, config())
    two = measured_variants(study, config(), steps=2)
    assert {run.steps for each in two.values() for run in each} == {2}
    assert measured_variants(study, config()) == four
    more = measured_variants(study, config(), n_seeds=3)
    assert {name: [run for run in each if run in four[name]] for name, each in more.items()} == {
        name: list(each) for name, each in four.items()
    }
    assert len(pool.asked) == 8 + 8 + 4


def test_variants_spend_nothing_of_the_final_measurement(pool, study: optuna.Study):
    measured_variants(study, config())
    assert own(study) == {}
    assert plan(study, config(), 1).attempt == 1


# Damage


class Stored:
    """As much of a study as is checked, and all of it can be changed."""

    def __init__(self, study: optuna.Study) -> None:
        self.study_name, self.directions, self.trials = "one", study.directions, study.trials
        self.user_attrs = json.loads(json.dumps(study.user_attrs))

    def get_trials(self, deepcopy: bool) -> list[Any]:
        return self.trials


@pytest.fixture
def whole(study: optuna.Study) -> Stored:
    put(study)
    study.set_user_attr(f"{keys.ABLATION}4:0123456789ab:0:2000", dataclasses.asdict(a_run(seed=2000)))
    return Stored(study)


RUN = run_key(f"{keys.FINAL}1:4:", form_of(PRESETS["adam"]), 0, 1000)


def test_what_is_written_passes_the_check(whole: Stored):
    check_study(whole)


@pytest.mark.parametrize("field", ["trial", "steps", "seeds", "environment"])
@pytest.mark.parametrize("value", [None, "x", -1, 1.5, [], [-1], [None], True], ids=str)
def test_a_header_of_another_shape_is_refused_by_name(whole: Stored, field: str, value: Any):
    whole.user_attrs[f"{keys.FINAL}1"][field] = value
    with pytest.raises(UserError, match="optevo:final:1") as caught:
        check_study(whole)
    assert "study 'one'" in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "x", 3, {}], ids=str)
@pytest.mark.parametrize("key", [f"{keys.FINAL}1", RUN, f"{keys.ABLATION}4:0123456789ab:0:2000"])
def test_an_attribute_that_is_no_table_is_refused_by_name(whole: Stored, key: str, value: Any):
    whole.user_attrs[key] = value
    with pytest.raises(UserError, match=key):
        check_study(whole)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Run)])
@pytest.mark.parametrize("key", [RUN, f"{keys.ABLATION}4:0123456789ab:0:2000"])
def test_a_run_that_lacks_a_field_is_refused_by_name(whole: Stored, key: str, field: str):
    del whole.user_attrs[key][field]
    with pytest.raises(UserError, match=key):
        check_study(whole)


@pytest.mark.parametrize("trial", [2, 99, 2**40])
def test_a_header_of_a_trial_that_is_not_there_is_refused(whole: Stored, trial: int):
    whole.user_attrs[f"{keys.FINAL}1"]["trial"] = trial
    with pytest.raises(UserError, match="optevo:final:1"):
        check_study(whole)


@pytest.mark.parametrize(
    "key",
    [
        f"{keys.FINAL}1:0123456789ab",
        f"{keys.FINAL}1:0123456789ab:zero:1000",
        f"{keys.FINAL}1:x:0:",
        f"{keys.FINAL}1:4:0123456789ab:0:{'9' * 5000}",
    ],
    ids=range(4),
)
def test_a_run_whose_name_says_no_task_and_seed_is_refused(whole: Stored, key: str):
    whole.user_attrs[key] = json.loads(json.dumps(dataclasses.asdict(a_run())))
    with pytest.raises(UserError, match="optevo:final"):
        check_study(whole)


@pytest.mark.parametrize("change", [{"task": "another"}, {"seed": 7}], ids=str)
def test_a_run_of_a_task_or_seed_that_was_not_measured_is_refused(whole: Stored, change: dict[str, Any]):
    whole.user_attrs[RUN] |= change
    with pytest.raises(UserError, match="optevo:final"):
        check_study(whole)
