"""Studies as frames."""

from __future__ import annotations

import datetime
import math
import statistics

import pytest
from example_studies import EVALUATION, STUDIES, Loaded, evaluate, example, fail, run, search, tamper
from optuna.trial import TrialState, create_trial

from optevo import keys
from optevo.reporting import best, cost, curves, generations, lineage, parts, runs, schedules, trials

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture
def complete() -> Loaded:
    return example("complete")


@pytest.mark.parametrize("state", STUDIES)
def test_every_frame_can_be_had_of_a_study_in_any_state(state):
    study, config = example(state)
    frame = trials(study, config)
    numbers = [int(n) for n in frame["number"]]
    assert len(frame) == len(study.trials)
    for other in (runs(study), curves(study), generations(study, config), parts(study, config)):
        assert len(other.columns)
    for number in numbers:
        assert set(lineage(study, number)["trial"]) <= set(numbers)
    assert set(schedules(study, config, numbers)["trial"]) <= set(numbers)
    assert len(best(frame, 3)) <= 3
    assert min(cost(study)) >= 0


@pytest.mark.parametrize("state", STUDIES)
def test_columns_have_the_same_types_whatever_the_state(state, complete):
    study, config = example(state)
    for frame in (runs, curves):
        assert frame(study).dtypes.to_dict() == frame(complete[0]).dtypes.to_dict()
    for frame in (generations, parts):
        assert frame(study, config).dtypes.to_dict() == frame(*complete).dtypes.to_dict()


def test_a_trial_has_its_parameters_and_tasks_as_columns(complete):
    frame = trials(*complete)
    trial = complete[0].trials[5]
    row = frame[frame["number"] == 5].iloc[0]
    assert {name: row[name] for name in trial.params} == trial.params
    assert row["fitness:digits"] == keys.ours(trial)[keys.FITNESS_PREFIX + "digits"]
    assert row["parents"] == tuple(keys.ours(trial)[keys.PARENTS])
    assert row["formula"] == keys.ours(trial)[keys.FORMULA]


def test_counted_trials_are_one_a_slot():
    study, config = search(failures=2)
    frame = trials(study, config)
    counted = frame[frame["counted"]]
    assert len(counted) == config.n_trials
    assert not counted.duplicated(["generation", "slot"]).any()
    assert set(frame.loc[~frame["counted"], "state"]) == {"FAIL"}


def test_a_trial_that_came_late_does_not_count():
    study, config = search()
    known = study.trials[0]
    late = create_trial(
        state=TrialState.COMPLETE,
        value=9.0,
        params=known.params,
        distributions=known.distributions,
        user_attrs=known.user_attrs,
        system_attrs={**known.system_attrs, keys.LATE: True},
    )
    study.add_trial(late)
    frame = trials(study, config)
    assert not frame.iloc[-1]["counted"]
    assert best(frame, 1)["fitness"].iloc[0] < 9


def test_a_failed_trial_tells_its_error_and_no_fitness():
    frame = trials(*search(n_trials=0, failures=1))
    assert frame["error"].tolist() == ["RuntimeError: no <b>luck</b>"]
    assert frame["fitness"].isna().all()


def test_text_out_of_a_database_can_be_printed(complete):
    study, config = search(n_trials=1)
    tamper(study, 0, keys.FORMULA, "a\x1b[2J\nb\ud800")
    formula = trials(study, config)["formula"].iloc[0]
    assert formula.isprintable()


def test_a_curve_lies_in_the_middle_of_the_tenths(complete):
    frame = curves(complete[0])
    one = frame[(frame["trial"] == 0) & (frame["task"] == "digits") & (frame["seed"] == 0)]
    assert one["step"].tolist() == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0, 17.0, 19.0]
    assert one["loss"].tolist() == run("digits", 0, 0.0)["losses"]


def test_the_curve_of_a_diverged_run_stops_where_it_did():
    study, _ = example("all pruned")
    frame = curves(study)
    assert set(frame["step"]) == {1.0}


@pytest.mark.parametrize(("own", "step"), [(30, 1.0), (10, 1.0), (4, 2.5)])
def test_curves_of_equal_operations_lie_on_the_steps_of_adamw(own: int, step: float):
    """Twenty steps with AdamW: whatever a candidate's own number, its curve ends where the others do."""
    changes = {"steps": own, "losses": [1.0] * min(own, 10)}
    study, _ = search(
        lambda trial, settings: evaluate(trial, settings, lambda *said: run(*said, **changes)),
        n_trials=1,
        evaluation={**EVALUATION, "budget": "flops"},
    )
    frame = curves(study)
    assert frame["step"].min() == step
    assert frame["step"].max() == 20 - step


def test_a_generation_is_its_population_with_the_elites(complete):
    study, config = complete
    frame = generations(study, config)
    assert frame["generation"].tolist() == [0, 1, 2]
    assert frame["n"].tolist() == [6, 6, 6]
    populations = study.sampler.slot_table(study).populations
    assert frame["best"].tolist() == [populations[g][0].value for g in range(3)]
    assert frame["best_so_far"].is_monotonic_increasing


def test_steps_add_up_over_the_generations(complete):
    study, config = complete
    frame = generations(study, config)
    assert frame["cumulative_steps"].iloc[-1] == cost(study).steps
    assert cost(study).steps == 80 * config.n_trials


def test_a_generation_in_progress_says_so():
    frame = generations(*example("unfinished"))
    assert frame["finished"].tolist() == [True, False]
    assert frame["n"].tolist() == [6, 2]


def test_parts_count_what_the_population_uses(complete):
    study, config = complete
    frame = parts(study, config)
    members = study.sampler.slot_table(study).populations[2]
    last = frame[frame["generation"] == 2]
    assert last["count"].sum() == sum(m.params["n_terms"] for m in members)
    assert set(last["members"]) == {len(members)}
    sign = sum(m.params[f"term_{i}"] == "SIGN_GRAD" for m in members for i in range(m.params["n_terms"]))
    assert last.loc[last["part"] == "SIGN_GRAD", "count"].tolist() == [sign]


def test_generations_tell_how_different_their_members_are(complete):
    study, config = complete
    members, space = study.sampler.slot_table(study).populations[2], config.make_space()
    last = generations(study, config).iloc[-1]
    terms = {frozenset(m.params[f"term_{i}"] for i in range(m.params["n_terms"])) for m in members}
    assert last["part_sets"] == len(terms) / len(members)
    sizes = [math.log10(space.candidate(m.params).step_size()) for m in members]
    assert last["step_size_sd"] == pytest.approx(statistics.stdev(sizes))


def test_a_sweep_has_no_parts():
    assert parts(*example("grid")).empty
    assert generations(*example("grid"))["part_sets"].isna().all()


def test_lineage_goes_back_to_trials_without_parents(complete):
    study, _ = complete
    frame = lineage(study, 13)
    assert frame["trial"].iloc[0] == 13
    first = frame[frame["parent"].isna()]
    assert set(first["generation"]) == {0}
    assert set(frame["parent"].dropna()) <= set(frame["trial"])


def test_lineage_ends_where_parents_go_in_circles():
    study, _ = search(n_trials=2)
    for number in (0, 1):
        tamper(study, number, keys.PARENTS, [1 - number])
    assert sorted(lineage(study, 0)["trial"]) == [0, 1]


def test_best_names_no_optimizer_twice(complete):
    frame = trials(*complete)
    top = best(frame, 100)
    assert top["fitness"].is_monotonic_decreasing
    assert not top["canonical"].duplicated().any()
    assert set(top["state"]) == {"COMPLETE"}


def test_the_cost_counts_measuring_again_once():
    study, _ = search(n_trials=1)
    alone = cost(study)
    again = [run("digits", seed, 0.5) for seed in (5, 6)]
    study.set_user_attr(f"{keys.RERUN}:abc:seeds 5-6", again)
    study.set_user_attr(keys.RERUN, {"settings": {}, "winner": 0, "rows": [{"runs": again}]})
    assert cost(study).steps == alone.steps + 40
    assert cost(study).hours == pytest.approx(alone.hours + 1 / 3600)
    assert cost(study, rerun=False) == alone


def test_a_lost_trial_costs_what_it_lived():
    study, config = search(n_trials=1)
    start = datetime.datetime(2026, 1, 1, 12)
    beat = (start + datetime.timedelta(seconds=30)).astimezone().isoformat()
    lost = create_trial(state=TrialState.FAIL, system_attrs={keys.LOST: "gone", keys.BEAT: [3, beat]})
    lost.datetime_start, lost.datetime_complete = start, start + datetime.timedelta(days=3)
    study.add_trial(lost)
    assert trials(study, config)["seconds"].iloc[-1] == 30


def test_step_sizes_are_rate_times_factor_times_weights(complete):
    study, config = complete
    frame = schedules(study, config, [1])
    params = study.trials[1].params  # adam: one term of weight 1, a constant rate
    assert frame["step"].tolist() == list(range(20))
    assert set(frame["factor"]) == {1.0}
    assert frame["step_size"].iloc[0] == pytest.approx(params["lr"] * abs(params["alpha_0"]))


def test_the_schedule_of_a_sweep_is_its_space_s():
    space = {"kind": "adamw", "schedule": "warmup_cosine", "lr": [1e-3], "weight_decay": [0.0, 0.1]}
    study, config = search(space=space, sampler={"kind": "grid"})
    factor = schedules(study, config, [0])["factor"]
    assert factor.iloc[0] < 1
    assert factor.iloc[-1] < 0.1
    assert math.isclose(factor.max(), 1.0, abs_tol=0.1)


def test_an_error_of_many_lines_is_told_by_its_last():
    study, config = search(fail, n_trials=0, failures=1)
    assert "\n" not in trials(study, config)["error"].iloc[0]
