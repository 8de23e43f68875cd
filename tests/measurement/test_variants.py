"""A winner's variants on the validation split: what they spend, and what a kill costs them."""

from __future__ import annotations

import optuna
import pytest
from measured_studies import config, create, measured_variants, own, plan
from measuring import Inline, Memory

from optevo import keys
from optevo.measurement import ablation as variants
from optevo.optim.terms.presets import PRESETS
from optevo.study.studies import create_or_resume
from optevo.training.single import train

pytestmark = pytest.mark.usefixtures("quiet_optuna")


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
