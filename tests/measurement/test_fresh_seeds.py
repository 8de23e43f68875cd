"""The best of a finished search, measured again on seeds that it never saw."""

from __future__ import annotations

import math
import statistics
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import optuna
import pytest
from measuring import Inline, Memory

from optevo import keys
from optevo.errors import RunFailed, UserError
from optevo.evaluation.objective import Objective
from optevo.measurement import pool as measuring
from optevo.measurement.fresh_seeds import Result, Row, measure, store_result, stored_result
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import best_trials, create_or_resume, load_study
from optevo.training.bench import Bench
from optevo.training.run import Run

SEARCH_SEEDS = [3, 0]


def config(**changes: Any) -> StudyConfig:
    data: dict[str, Any] = {
        "name": "one",
        "space": {"presets": ["sgd", "adam"]},
        "sampler": {"kind": "genetic", "population_size": 5, "n_generations": 1, "n_elites": 0},
        "evaluation": {"tasks": ["digits"], "steps": 4, "seeds": SEARCH_SEEDS},
        "rerun": {"candidates": 3, "seeds": 3},
    }
    return parse_config({**data, **changes}, "test")


@pytest.fixture(scope="module")
def searched() -> optuna.Study:
    """A finished search that is not to be written to."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = create_or_resume(config(), Memory(), "cpu")
    study.optimize(Objective(Bench(config(), "cpu", Path()), config().make_space()), n_trials=5)
    return study


@pytest.fixture
def study(searched: optuna.Study) -> optuna.Study:
    return copied(searched)


def measured(study: optuna.Study, one: StudyConfig | None = None) -> Result:
    result = measure(study, one or config(), devices=["cpu"], data_root=Path())
    store_result(study, one or config(), result)
    return result


def test_fresh_seeds_are_none_of_the_searchs(pool: type[Inline], study: optuna.Study):
    measured(study)
    assert {seed for _, _, seed in pool.asked}.isdisjoint(SEARCH_SEEDS)


@pytest.mark.parametrize("seeds", [[0], [0, 1], [7], [2**31 - 1], [5, 100, 3]])
def test_choosing_and_reporting_share_no_seed(pool: type[Inline], study: optuna.Study, seeds: list[int]):
    one = config(evaluation={"tasks": ["digits"], "steps": 1, "seeds": seeds})
    result = measured(study, one)
    reported = {run.seed for row in result.rows for run in row.runs}
    chosen = {seed for _, _, seed in pool.asked} - reported
    assert len(reported) == len(chosen) == 3
    assert (reported | chosen).isdisjoint(seeds)


def test_every_row_is_on_the_same_seeds_and_tasks(pool: type[Inline], study: optuna.Study):
    result = measured(study)
    assert [row.name for row in result.rows[:-1]] == ["sgd", "adam"]
    assert result.rows[-1].name == f"trial {result.winner}"
    assert len({tuple((run.task, run.seed) for run in row.runs) for row in result.rows}) == 1


def test_the_winner_is_the_candidate_with_the_best_mean_on_the_choosing_seeds(
    pool: type[Inline], study: optuna.Study
):
    result = measured(study)
    reported = {run.seed for row in result.rows for run in row.runs}
    bench, space = Bench(config(), "cpu", Path()), config().make_space()
    seeds = sorted({seed for _, _, seed in pool.asked} - reported)
    means = {
        trial.number: statistics.fmean(bench.run(space.candidate(trial.params), 0, s).fitness for s in seeds)
        for trial in best_trials(study, 3)
    }
    assert result.winner == max(means, key=lambda number: means[number])


def test_the_reported_numbers_are_those_of_the_winners_own_runs(pool: type[Inline], study: optuna.Study):
    result = measured(study)
    bench, space = Bench(config(), "cpu", Path()), config().make_space()
    row, trial = result.rows[-1], study.trials[result.winner]
    again = [bench.run(space.candidate(trial.params), 0, run.seed).fitness for run in row.runs]
    assert row.by_seed == again
    assert row.mean == pytest.approx(statistics.fmean(again))
    assert row.sd == pytest.approx(statistics.stdev(again))
    assert row.search == trial.value


def test_nothing_is_measured_twice(pool: type[Inline], study: optuna.Study):
    measured(study)
    asked = [(str(one), task, seed) for one, task, seed in pool.asked]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("lives", [1, 5, 9, 13])
def test_a_killed_measurement_goes_on_where_it_was(
    pool: type[Inline], study: optuna.Study, lives: int, monkeypatch: pytest.MonkeyPatch
):
    unbroken = measured(copied(study))
    needed = len(pool.asked)
    pool.asked.clear()
    monkeypatch.setattr(Inline, "lives", lives)
    with pytest.raises(KeyboardInterrupt):
        measured(study)
    assert stored_result(study, config()) is None
    kept = sum(key.startswith(keys.FRESH) for key in study.user_attrs)
    assert kept == lives
    pool.asked.clear()
    monkeypatch.setattr(Inline, "lives", 10_000)
    result = measured(load_study(study._storage, "one")[0])
    assert len(pool.asked) == needed - kept
    assert (result.winner, [row.by_seed for row in result.rows]) == (
        unbroken.winner,
        [row.by_seed for row in unbroken.rows],
    )


def copied(study: optuna.Study) -> optuna.Study:
    other = create_or_resume(config(), Memory(), "cpu")
    other.add_trials(study.trials)
    return other


def test_the_stored_result_is_the_one_that_was_measured(pool: type[Inline], study: optuna.Study):
    assert stored_result(study, config()) is None
    result = measured(study)
    assert stored_result(load_study(study._storage, "one")[0], config()) == result


def test_two_measurements_of_one_study_agree(pool: type[Inline], study: optuna.Study):
    first, second = measured(study), measured(copied(study))
    assert first.winner == second.winner
    assert [row.by_seed for row in first.rows] == [row.by_seed for row in second.rows]


def test_one_candidate_needs_no_choosing(pool: type[Inline], study: optuna.Study):
    result = measured(study, config(rerun={"candidates": 1, "seeds": 2}))
    assert result.winner == best_trials(study, 1)[0].number
    assert len({seed for _, _, seed in pool.asked}) == 2


def test_a_study_without_presets_has_a_result(pool: type[Inline], study: optuna.Study):
    result = measured(study, config(space={"presets": []}))
    assert [row.name for row in result.rows] == [f"trial {result.winner}"]


def test_a_study_without_a_complete_trial_has_no_result(pool: type[Inline]):
    empty = create_or_resume(config(), Memory(), "cpu")
    with pytest.raises(UserError, match="no complete trial"):
        measured(empty)


def test_progress_counts_every_run(pool: type[Inline], study: optuna.Study):
    seen: list[int] = []
    measure(study, config(), devices=["cpu"], data_root=Path(), progress=seen.append)
    assert seen == list(range(1, len(pool.asked) + 1))


def run(task: str, seed: int, metric: float | None) -> Run:
    fitness = -1.0 if metric is None else metric
    return Run(task, seed, fitness, metric, 1.0, (1.0,), 4, 0.1, None if metric is not None else 2)


def test_a_row_averages_tasks_within_a_seed_and_then_seeds():
    row = Row("x", None, (run("a", 1, 0.2), run("a", 2, 0.4), run("b", 1, 0.6), run("b", 2, 1.0)))
    assert row.by_seed == pytest.approx([0.4, 0.7])
    assert row.mean == pytest.approx(0.55)
    assert row.metric("b") == pytest.approx((0.8, statistics.stdev([0.6, 1.0])))


def test_a_row_with_a_diverged_run_is_below_any_other_and_has_no_metric_of_its_task():
    row = Row("x", None, (run("a", 1, 0.2), run("a", 2, 0.4), run("b", 1, None), run("b", 2, 1.0)))
    assert row.by_seed == [-math.inf, 0.7]
    assert (row.mean, row.diverged) == (-math.inf, 1)
    assert math.isnan(row.sd)
    assert row.metric("b") is None
    assert row.metric("a") is not None


def test_of_rows_the_one_with_the_fewest_diverged_seeds_ranks_first_on_any_scale():
    def row(*metrics: float | None) -> Row:
        return Row("x", None, tuple(run("a", seed, metric) for seed, metric in enumerate(metrics)))

    ranked = [row(-5.0, -1e6), row(-1e7, -1e7), row(None, -2.0), row(0.9, None), row(None, None)]
    assert sorted(ranked, key=lambda one: one.rank, reverse=True) == [ranked[i] for i in (0, 1, 3, 2, 4)]


def test_a_measuring_process_that_is_killed_is_replaced_a_few_times():
    calls = iter([BrokenProcessPool(), BrokenProcessPool(), "measured"])

    def measure() -> str:
        result = next(calls)
        if isinstance(result, Exception):
            raise result
        return result

    assert measuring.again_when_killed(measure) == "measured"
    calls = iter([BrokenProcessPool()] * 3)
    with pytest.raises(RunFailed, match="the same command goes on"):
        measuring.again_when_killed(measure)
