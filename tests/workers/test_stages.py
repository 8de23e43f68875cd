"""A search's best in stages: the same who fall and with the same scores, whoever works and is killed."""

from __future__ import annotations

from typing import Any

import pytest
import staging
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_studies import config, create, dead_worker, finish
from staging import STAGES, Far, outcome, pipeline, searched, train, worker

from optevo import keys
from optevo.errors import UserError
from optevo.liveness.lost import LivenessMonitor, fail_lost_trials
from optevo.optuna_private import set_trial_user_attr, storage_of
from optevo.reporting.frames import cost, trials
from optevo.reporting.progress import SearchProgress
from optevo.samplers import sampler_of
from optevo.storage.copying import copy_into
from optevo.storage.counting import count
from optevo.storage.opening import open_storage
from optevo.storage.study_file import load_file, save_study
from optevo.study.check import check_study
from optevo.study.promotion import begin_stages, staged_study
from optevo.study.studies import best_trials, counted, is_complete, load_study


def staged_outcome() -> set[tuple[Any, ...]]:
    study = searched()
    train(study)
    return outcome(study)


def test_the_best_of_each_stage_enter_the_next():
    study = searched()
    entered = [trial.number for trial in best_trials(study, 5)]
    train(study)
    found = outcome(study)
    first = {source: value for stage, _, source, value in found if stage == 0}
    assert [source for stage, _, source, _ in sorted(found) if stage == 0] == entered
    best = sorted(first, key=lambda source: (-first[source], entered.index(source)))[:3]
    assert [source for stage, _, source, _ in sorted(found) if stage == 1] == best
    assert best != entered[:3]  # else keeping the order would do
    staged, _ = worker(study, config())
    assert [len(each) for each in sampler_of(staged).slot_table(staged).populations.values()] == [5, 3]


def test_trials_of_stages_are_those_of_the_candidates():
    study = searched()
    train(study)
    for trial in study.trials:
        attrs = keys.ours(trial)
        if keys.STAGE in attrs:
            source = study.trials[attrs[keys.PROMOTED_FROM]]
            assert trial.params == source.params
            assert attrs[keys.CANONICAL] == keys.ours(source)[keys.CANONICAL]
            steps = 7 if attrs[keys.STAGE] == 1 else 20
            assert {run["steps"] for run in attrs[keys.RUNS]} == {steps}
            assert len(attrs[keys.RUNS]) == attrs[keys.STAGE]  # one seed, then two


def test_two_workers_find_what_one_finds():
    study = searched()
    train(study, workers=2)
    assert outcome(study) == staged_outcome()


@pytest.mark.parametrize("before", range(0, 8, 3))
def test_stages_that_were_killed_end_as_the_unbroken_ones(before: int):
    study = searched()
    train(study, most=before)
    staged, _ = worker(study, config())
    lost = staged.ask()  # and its process dies
    set_trial_user_attr(study, lost, keys.WORKER, dead_worker())
    assert fail_lost_trials(study, LivenessMonitor()) == [lost.number]
    train(study)
    assert outcome(study) == staged_outcome()


def test_who_diverges_falls(monkeypatch: pytest.MonkeyPatch):
    study = searched()
    entered = [trial.number for trial in best_trials(study, 5)]
    lrs = [study.trials[number].params["lr"] for number in entered]
    monkeypatch.setattr(Far, "diverges", staticmethod(lambda c, steps: c.lr in lrs[:3]))
    train(study)
    assert {source for stage, _, source, _ in outcome(study) if stage == 1} <= set(entered[3:])
    monkeypatch.setattr(Far, "diverges", staticmethod(lambda c, steps: True))
    study = searched()
    train(study)
    assert is_complete(worker(study, config())[0])
    assert {stage for stage, *_ in outcome(study)} == {0}


def test_equals_keep_their_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Far, "score", lambda self, candidate, seed, steps: 0.5)
    study = searched()
    entered = [trial.number for trial in best_trials(study, 5)]
    train(study)
    assert [source for stage, _, source, _ in sorted(outcome(study)) if stage == 1] == entered[:3]


def test_readers_of_the_search_see_nothing_of_stages():
    study, one = searched(), config()

    def seen() -> list[Any]:
        progress = SearchProgress(study, one)
        told = [progress.counted, progress.pruned, progress.running, len(progress.failed)]
        frame = trials(study, one).to_json()
        best = [trial.number for trial in best_trials(study, 5)]
        return [told, frame, best, counted(study), count(study), cost(study), is_complete(study)]

    before = seen()
    train(study, most=6)
    worker(study, one)[0].ask()
    assert seen() == before
    assert len(study.trials) == 14 + 7


def test_counts_of_a_database_leave_stages_out(tmp_path):
    study = searched()
    before = count(study)
    train(study, most=2)
    database = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    copy_into(storage_of(study), study, study.trials, database, None)
    assert count(load_study(database, "one")[0]) == before


def test_a_stored_study_with_stages_passes_its_check_and_damage_does_not():
    study = searched()
    train(study)
    assert check_study(study) == config()
    last = study.get_trials(deepcopy=False)[-1]
    for claim, fault in (([1, 3], "expected a place"), ([2, 0], "expected a place"), ([0], "wrong")):
        last.system_attrs[keys.STAGE_CLAIM] = claim
        with pytest.raises(UserError, match=fault):
            check_study(study)
    last.system_attrs[keys.STAGE_CLAIM] = [1, 0]
    last.user_attrs[keys.PROMOTED_FROM] = 99
    with pytest.raises(UserError, match="promoted_from"):
        check_study(study)


@pytest.mark.slow
def test_a_saved_study_has_its_stages(tmp_path):
    url, other = (f"sqlite:///{tmp_path / name}.db" for name in "ab")
    study = searched(open_storage(url, create=True))
    train(study, most=3)
    save_study(url, "one", tmp_path / "one.json")
    load_file(tmp_path / "one.json", other)
    loaded, _ = load_study(open_storage(other), "one")
    train(loaded)
    assert outcome(loaded) == staged_outcome()


def test_other_stages_are_refused_once_they_have_begun():
    study, one = searched(), config()
    longer, longest = STAGES["stages"]
    begin_stages(study, one, pipeline(promote=4))
    begin_stages(study, one, pipeline())  # nothing had begun
    train(study, most=1)
    for changes, said in (
        ({"promote": 4, "stages": [longer]}, "promote: 5 → 4"),
        ({"stages": [{**longer, "steps": 8}, longest]}, "stages.0.steps: 7 → 8"),
        ({"stages": [{**longer, "seeds": [3]}, longest]}, r"stages.0.seeds: absent → \[3\]"),
    ):
        with pytest.raises(UserError, match=said):
            begin_stages(study, one, pipeline(**changes))
    train(study, stages=[{**longer, "keep": 2}, longest])
    assert sorted(place for stage, place, *_ in outcome(study) if stage == 1) == [0, 1]
    with pytest.raises(UserError, match=r"stages\.0\.keep: 2 → 3"):
        begin_stages(study, one, pipeline())
    more = [{**longer, "keep": 2}, {**longest, "keep": 2}, {**longest, "name": "more", "steps": 30}]
    train(study, stages=more)
    assert sorted(stage for stage, *_ in outcome(study)) == [0] * 5 + [1, 1, 2, 2]


def test_a_sweep_of_a_baseline_has_stages_too():
    space = {"kind": "adamw"}
    sweep = {"kind": "grid"}
    changes = {"space": space, "sampler": sweep, "evaluation__pruner": "none"}
    one = config(**changes)
    study = create(InMemoryStorage(), **changes)

    def fitness(trial) -> float:
        candidate = one.make_space().candidate(one.make_space().suggest(trial))
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        return -candidate.lr

    while not is_complete(study):
        study.optimize(fitness, n_trials=1)
    stages = pipeline(promote=3, stages=[{"name": "all", "keep": 1}])
    begin_stages(study, one, stages)
    staged = staged_study(study, one, stages)
    while not is_complete(staged):
        staged.optimize(fitness, n_trials=1)
    best = [trial.number for trial in best_trials(study, 3)]
    assert [source for _, _, source, _ in sorted(outcome(study))] == best


def test_a_trial_without_a_slot_is_none_of_the_search():
    study = searched()
    train(study)
    staged, objective = worker(study, config())
    with pytest.raises(Exception, match="no open slot"):
        staged.optimize(objective, n_trials=1)
    surplus = study.trials[-1]
    assert surplus.state == TrialState.FAIL
    assert surplus.system_attrs[keys.STAGE_CLAIM] is None
    assert count(study) == count(searched())


def test_one_stage_is_loaded_at_a_time(monkeypatch: pytest.MonkeyPatch):
    made = []
    make = staging.make_bench
    monkeypatch.setattr(
        staging, "make_bench", lambda one, *rest: made.append(one.evaluation.steps) or make(one, *rest)
    )
    train(searched())
    assert made == [7, 20]


def test_an_unfinished_search_is_promoted_by_nobody():
    study = create(InMemoryStorage())
    with pytest.raises(UserError, match="no complete trial yet"):
        staged_study(study, config(), pipeline())
    assert finish(study)
