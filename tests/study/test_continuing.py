"""A stored search that goes on with more generations or trials is the one that was begun with as many."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import optuna
import pytest
import small_studies
from measuring import Memory
from small_studies import RANDOM, TPE, finish, fitness
from staging import train

from optevo import keys
from optevo.errors import UserError
from optevo.measurement.fresh_seeds import Result, Row, store_result, stored_result
from optevo.reporting.dashboard import notes
from optevo.reporting.progress import SearchProgress
from optevo.samplers.individuals import params_of
from optevo.samplers.slots import claimed
from optevo.storage.copying import copy_into
from optevo.study.check import check_study, checked
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import check_environment, create_or_resume, is_complete, load_study
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")

GENETIC = {"kind": "genetic", "population_size": 4, "n_generations": 3, "n_elites": 1}
PARTICLE = {"kind": "particle", "initial_size": 6, "n_particles": 2, "n_steps": 1, "n_mutations": 2}
KNOWN: dict[str, dict[Any, Any]] = {}
ASYNCHRONOUS = {**GENETIC, "asynchronous": True}  # repeats with one worker


def config(**changes: Any) -> StudyConfig:
    return small_studies.config(**{"sampler": GENETIC, **changes})


def create(memory: Memory, **changes: Any) -> optuna.Study:
    return create_or_resume(config(**changes), memory, "cpu")


def further(sampler: dict[str, Any], by: int, **changes: Any) -> dict[str, Any]:
    key = {"genetic": "n_generations", "particle": "n_steps"}.get(sampler["kind"], "n_trials")
    return {**sampler, key: sampler[key] + by, **changes}


def written_out(sampler: dict[str, Any], by: int) -> dict[str, Any]:
    """As for a new study: with the span of what it was begun with."""
    span = {"anneal_over": sampler["n_generations"]} if sampler["kind"] == "genetic" else {}
    return further(sampler, by, **span)


def individuals(study: optuna.Study) -> dict[Any, Any]:
    """By slot what must not depend on when the search was made longer."""
    slot_of = {trial.number: claimed(trial) for trial in study.trials}
    return {
        slot_of[trial.number]: (
            params_of(trial),
            trial.state,
            trial.value,
            [slot_of[number] for number in keys.ours(trial)[keys.PARENTS]],
            keys.ours(trial)[keys.ORIGIN],
        )
        for trial in study.trials
        if trial.state.is_finished() and slot_of[trial.number] is not None
    }


def begun(sampler: dict[str, Any]) -> dict[Any, Any]:
    """The individuals of a search begun so; worked out once."""
    key = json.dumps(sampler)
    if key not in KNOWN:
        study = create(Memory(), sampler=sampler)
        finish(study)
        KNOWN[key] = individuals(study)
    return KNOWN[key]


@pytest.mark.parametrize(
    "sampler",
    [GENETIC, ASYNCHRONOUS, PARTICLE, RANDOM, TPE],
    ids=["genetic", "asynchronous", "particle", "random", "tpe"],
)
def test_a_finished_search_that_goes_on_is_the_one_begun_with_the_larger_number(sampler: dict[str, Any]):
    memory = Memory()
    finish(create(memory, sampler=sampler))
    study = create(memory, sampler=further(sampler, 3))
    assert not is_complete(study)
    finish(study)
    assert individuals(study) == begun(written_out(sampler, 3))


def test_one_that_was_stopped_or_goes_on_twice_is_the_same_too():
    memory = Memory()
    create(memory).optimize(fitness, n_trials=9)
    longer = create(memory, sampler=further(GENETIC, 1))
    longer.optimize(fitness, n_trials=2)
    finish(longer)
    study = create(memory, sampler=further(GENETIC, 3))
    finish(study)
    assert individuals(study) == begun(written_out(GENETIC, 3))
    assert individuals(study) != begun(further(GENETIC, 3))  # whose mutation weakens over all of it


def test_workers_of_the_shorter_search_and_of_the_longer_make_one():
    memory = Memory()
    short = create(memory)
    short.optimize(fitness, n_trials=7)
    here, there = create(memory, sampler=further(GENETIC, 3)), load_study(memory, "one")[0]
    while not is_complete(here):
        for worker in (here, there, short):
            if not is_complete(worker):
                worker.optimize(fitness, n_trials=1)
    assert is_complete(short)
    assert individuals(here) == begun(written_out(GENETIC, 3))


def test_progress_and_note_tell_of_the_new_total():
    memory = Memory()
    finish(create(memory))
    study, one = create(memory, sampler=further(GENETIC, 1)), config(sampler=written_out(GENETIC, 1))
    progress = SearchProgress(study, one)
    assert (progress.counted, progress.total, progress.last_generation) == (10, 13, 3)
    rows = dict(notes._rows(study, one))
    assert rows["trials"] == "10 of 13"
    assert rows["generations"] == "3 of 4 finished"


def test_what_a_study_was_begun_with_stays_as_it_was_stored():
    memory = Memory()
    before = create(memory).user_attrs
    study = create(memory, sampler=further(GENETIC, 1))
    assert study.user_attrs == {**before, f"{keys.EXTENT}4": 4}
    assert load_study(memory, "one")[1] == config(sampler=written_out(GENETIC, 1))
    create(memory, sampler=written_out(GENETIC, 1))
    create(memory, sampler=further(GENETIC, 1))
    create(memory, sampler=further(GENETIC, 3))
    assert load_study(memory, "one")[1] == config(sampler={**written_out(GENETIC, 3), "anneal_over": 3})


def test_a_span_that_is_not_the_stored_one_is_refused():
    memory = Memory()
    create(memory)
    with pytest.raises(UserError, match=r"(?m)sampler\.anneal_over: 3 → 5$"):
        create(memory, sampler=further(GENETIC, 2, anneal_over=5))
    with pytest.raises(UserError, match=r"(?m)sampler\.anneal_over: absent → 2$"):
        create(memory, sampler={**GENETIC, "anneal_over": 2})


def test_of_two_who_go_on_at_once_the_one_that_goes_further_has_its_way():
    memory = Memory()
    study = create(memory)
    for number in (9, 6):
        study.set_user_attr(f"{keys.EXTENT}{number}", number)
    assert load_study(memory, "one")[1].sampler == config(sampler=written_out(GENETIC, 6)).sampler


def test_a_smaller_number_is_refused_and_says_what_to_do():
    memory = Memory()
    create(memory)
    create(memory, sampler=further(GENETIC, 2))
    with pytest.raises(UserError) as caught:
        create(memory)
    said = str(caught.value)
    assert "sampler.n_generations: 5 → 3" in said
    assert "gets no shorter. Undo the change" in said
    assert said.count("→") == 1


def test_everything_else_must_match_and_nothing_is_written_where_it_does_not():
    memory = Memory()
    before = create(memory).user_attrs
    with pytest.raises(UserError) as caught:
        create(memory, sampler=further(GENETIC, 2), seed=4)
    assert "seed: 3 → 4" in str(caught.value)
    assert "n_generations" not in str(caught.value)
    with pytest.raises(UserError, match=r"sampler\.kind"):
        create(memory, sampler={"kind": "random", "n_trials": 100})
    assert load_study(memory, "one")[0].user_attrs == before


def test_a_grid_has_no_number_to_go_on_with():
    grid = {"kind": "adamw", "lr": [1e-3, 1e-2], "weight_decay": [0.1]}
    memory = Memory()
    create(memory, space=grid, sampler={"kind": "grid"})
    with pytest.raises(UserError, match=r"unknown key 'sampler\.n_trials'"):
        config(space=grid, sampler={"kind": "grid", "n_trials": 3})
    with pytest.raises(UserError, match=r"(?s)space\.lr.*another name"):
        create(memory, space={**grid, "lr": [1e-3, 1e-2, 0.1]}, sampler={"kind": "grid"})


def test_a_study_whose_best_have_gone_into_stages_does_not_go_on():
    memory = Memory()
    study = create(memory)
    finish(study)
    train(study, most=0)
    study = create(memory, sampler=further(GENETIC, 1))  # nobody has begun them
    finish(study)
    train(study, most=1)
    with pytest.raises(UserError, match=r"gone into stages.*sampler\.n_generations"):
        create(memory, sampler=further(GENETIC, 2))


def result_of(study: optuna.Study, one: StudyConfig) -> Result:
    runs = tuple(Run("digits", seed, 0.5, 0.5, 1.0, (2.0,), 3, 0.1, None) for seed in (1, 2))
    return Result(study.best_trial.number, (Row("sgd", 0.5, runs), Row("trial", None, runs)))


def test_a_result_holds_for_the_search_that_it_was_measured_of():
    memory = Memory()
    short = create(memory)
    finish(short)
    result = result_of(short, config())
    store_result(short, config(), result)
    assert stored_result(short, config()) == result
    study, one = create(memory, sampler=further(GENETIC, 1)), config(sampler=written_out(GENETIC, 1))
    assert stored_result(study, one) is None
    store_result(study, one, result)
    assert stored_result(study, one) == result
    store_result(short, config(), dataclasses.replace(result, rows=()))  # by who has not heard of it
    assert stored_result(study, one) == result
    create(memory, sampler=further(GENETIC, 2))
    assert stored_result(study, config(sampler={**written_out(GENETIC, 2)})) is None


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_command_that_is_killed_between_writes_leaves_one_or_the_other(
    whole: int, monkeypatch: pytest.MonkeyPatch
):
    memory, longer = Memory(), {"sampler": further(GENETIC, 1), "rerun": {"candidates": 1}}
    finish(create(memory))
    write, written = optuna.Study.set_user_attr, []

    def killed(study: optuna.Study, key: str, value: Any) -> None:
        if len(written) == whole:
            raise KeyboardInterrupt
        written.append(key)
        write(study, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", killed)
        if whole < 2:
            with pytest.raises(KeyboardInterrupt):
                create(memory, **longer)
        else:
            create(memory, **longer)
            assert written == [f"{keys.EXTENT}4", keys.CONFIG]
    study, one = load_study(memory, "one")
    assert one.sampler == config(sampler=written_out(GENETIC, 1) if whole else GENETIC).sampler
    assert is_complete(study) == (whole == 0)
    check_environment(study)
    study = create(memory, **longer)
    finish(study)
    assert individuals(study) == begun(written_out(GENETIC, 1))
    assert load_study(memory, "one")[1].rerun.candidates == 1


def test_whoever_reads_a_study_while_another_goes_on_with_it_finds_it_whole(monkeypatch: pytest.MonkeyPatch):
    memory = Memory()
    study = create(memory)
    finish(study)
    get_trials = optuna.Study.get_trials

    def late(self: optuna.Study, **options: Any) -> Any:
        monkeypatch.setattr(optuna.Study, "get_trials", get_trials)
        create(memory, sampler=further(GENETIC, 1)).optimize(fitness, n_trials=2)
        return self.get_trials(**options)

    monkeypatch.setattr(optuna.Study, "get_trials", late)
    assert check_study(study) == config(sampler=written_out(GENETIC, 1))


def test_an_accepted_environment_stays_accepted():
    memory = Memory()
    study = create(memory)
    study.set_user_attr(keys.ENVIRONMENT, {**study.user_attrs[keys.ENVIRONMENT], "torch": "1.13.0"})
    create_or_resume(config(), memory, "cpu", accept_environment=True)
    check_environment(create(memory, sampler=further(GENETIC, 1)))


def test_a_copy_goes_as_far():
    memory, other = Memory(), Memory()
    finish(create(memory))
    study = create(memory, sampler=further(GENETIC, 1))
    finish(study)
    copy_into(memory, study, study.trials, other, "elsewhere")
    copied, one = load_study(other, "one")
    assert one == config(sampler=written_out(GENETIC, 1))
    assert is_complete(copied)


@pytest.mark.parametrize("value", [0, True, 3.5, "4", 10**6, None, [4]])
def test_a_number_of_another_shape_is_named(value: Any):
    study = create(Memory())
    study.set_user_attr(f"{keys.EXTENT}4", value)
    with pytest.raises(UserError, match=rf"{keys.EXTENT}4.*use a copy"):
        checked(study)


def test_a_file_without_a_span_is_stored_without_one():
    assert "anneal_over" not in config().to_dict()["sampler"]
    again = parse_config(config(sampler=written_out(GENETIC, 1)).to_dict(), "stored")
    assert again.sampler.anneal_over == 3
