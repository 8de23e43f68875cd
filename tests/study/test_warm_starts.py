"""Searches that begin with what other studies have found."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from baseline_studies import complete, sweep
from command_line import said, write
from optuna.storages import BaseStorage, InMemoryStorage
from small_studies import GENETIC, RANDOM, TPE, config, create, finish, fitness

from optevo import keys
from optevo.errors import UserError
from optevo.optim.baselines.registry import TunedBaseline
from optevo.spaces import GraphSpace, TermSpace
from optevo.spaces.sections import WarmStart
from optevo.storage.opening import open_storage
from optevo.storage.study_file import load_file, save_study
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import best_trials, create_or_resume, load_study, resolved


@pytest.fixture
def memory() -> InMemoryStorage:
    return InMemoryStorage()


def searched(storage: BaseStorage, name: str = "one") -> optuna.Study:
    study = create(storage, name=name)
    finish(study)
    return study


def swept(storage: BaseStorage, name: str = "swept", **space: Any) -> optuna.Study:
    """A sweep of AdamW, of which the greatest rate and the least decay are the best."""
    values = {"lr": [1e-3, 1e-2], "weight_decay": [1e-3, 1e-2], **space}
    one = sweep(**values).model_copy(update={"name": name})
    study = create_or_resume(one, storage, "cpu")
    complete(study, one)
    return study


def warm(*presets: Any, **changes: Any) -> StudyConfig:
    return config(**{"name": "two", "space": {"presets": list(presets)}, **changes})


def begun(storage: BaseStorage, *presets: Any, **changes: Any) -> optuna.Study:
    return create_or_resume(warm(*presets, **changes), storage, "cpu")


def refused(storage: BaseStorage, *presets: Any, **changes: Any) -> str:
    before = [study.study_name for study in storage.get_all_studies()]
    with pytest.raises(UserError) as caught:
        begun(storage, *presets, **changes)
    assert [study.study_name for study in storage.get_all_studies()] == before
    return str(caught.value)


@pytest.mark.parametrize("sampler", [GENETIC, RANDOM, TPE], ids=lambda sampler: sampler["kind"])
def test_a_search_begins_with_presets_then_with_what_another_study_has_found(
    memory: InMemoryStorage, sampler: dict[str, Any]
):
    (best,) = best_trials(searched(memory), 1)
    study = begun(memory, {"study": "one"}, "adam", sampler=sampler)
    study.optimize(fitness, n_trials=2)
    assert [trial.params for trial in study.trials] == [TermSpace().presets()["adam"], best.params]
    stored = load_study(memory, "two")[1].warm_starts
    assert stored == (WarmStart(study="one", trial=best.number, params=best.params),)


def test_a_sweep_begins_a_search_of_the_modern_catalogue(memory: InMemoryStorage):
    swept(memory, schedule="warmup_linear")
    begun(memory, space={"catalogue": "modern", "presets": [{"study": "swept"}]})
    ((start,), space) = (loaded := load_study(memory, "two")[1]).warm_starts, loaded.make_space()
    expected = TunedBaseline("adamw", 1e-2, 1e-3, "warmup_linear")
    assert start.params == space.express(expected, 5)
    genome = space.candidate(start.params)
    assert genome.formula() == "Δ = 1·m̂/(√v̂ + 1e-08)"
    assert (genome.lr, genome.weight_decay, genome.warmup, genome.decay) == (1e-2, 1e-3, 0.1, "linear")


def test_the_winner_on_fresh_seeds_goes_before_the_best_trial(memory: InMemoryStorage):
    study = searched(memory)
    first, second = best_trials(study, 2)
    run = {"task": "digits", "seed": 9, "fitness": 0.5, "metric": 0.5, "loss": 1.0, "losses": [], "steps": 5}
    run |= {"seconds": 0.1, "diverged_at": None}
    row = {"name": f"trial {second.number}", "search": second.value, "runs": [run, {**run, "seed": 10}]}
    settings = {"candidates": 3, "seeds": 2}
    study.set_user_attr(keys.RERUN, {"settings": settings, "winner": second.number, "rows": [row]})
    begun(memory, {"study": "one"})
    (start,) = load_study(memory, "two")[1].warm_starts
    assert (start.trial, start.params) == (second.number, second.params)
    assert second.params != first.params


def test_a_sweeps_winner_becomes_a_genome(memory: InMemoryStorage):
    swept(memory, schedule="warmup_cosine")
    begun(memory, "sgd", {"study": "swept"}, evaluation__steps=50)
    space = load_study(memory, "two")[1].make_space()
    assert list(space.starts()) == ["sgd", "study swept"]
    genome = space.candidate(space.starts()["study swept"])
    assert (genome.terms, genome.lr, genome.weight_decay) == (("ADAM_TERM",), 1e-2, 1e-3)
    assert (genome.warmup, genome.warmup_steps, genome.cosine_decay) == (True, 5, True)


def test_a_study_resumes_when_the_other_has_changed_or_is_gone(memory: InMemoryStorage):
    searched(memory)
    study = begun(memory, {"study": "one"})
    before = dict(study.user_attrs)
    study.optimize(fitness, n_trials=3)
    again = create(memory, name="one", sampler=GENETIC)
    again.set_user_attr("other", 1)
    assert begun(memory, {"study": "one"}).user_attrs == before
    optuna.delete_study(study_name="one", storage=memory)
    resumed = begun(memory, {"study": "one"})
    assert resumed.user_attrs == before
    assert before[keys.FINGERPRINT] == resolved(warm({"study": "one"}), memory).fingerprint()
    finish(resumed)
    whole = InMemoryStorage()
    searched(whole)
    unbroken = begun(whole, {"study": "one"})
    finish(unbroken)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in unbroken.trials]


def test_a_changed_warm_start_is_a_changed_study(memory: InMemoryStorage):
    searched(memory)
    searched(memory, "other")
    begun(memory, {"study": "one"})
    for presets in (({"study": "other"},), ({"study": "one"}, {"study": "other"}), ("adam",)):
        assert "space.presets: " in refused(memory, *presets)


def test_a_stored_configuration_is_read_back_as_it_was(memory: InMemoryStorage):
    searched(memory)
    begun(memory, "adam", {"study": "one"})
    stored = load_study(memory, "two")[1]
    again = parse_config(stored.to_dict(), "stored")
    assert (again, again.to_dict(), again.fingerprint()) == (stored, stored.to_dict(), stored.fingerprint())
    assert not again.awaited


def test_another_storage_needs_no_other_study(tmp_path):
    url, file, elsewhere = (
        f"sqlite:///{tmp_path}/a.db",
        tmp_path / "two.jsonl",
        f"sqlite:///{tmp_path}/b.db",
    )
    storage = open_storage(url, create=True)
    searched(storage)
    begun(storage, {"study": "one"}).optimize(fitness, n_trials=2)
    save_study(url, "two", file)
    load_file(file, elsewhere)
    copied = open_storage(elsewhere)
    assert [study.study_name for study in copied.get_all_studies()] == ["two"]
    ours, theirs = load_study(storage, "two")[0], load_study(copied, "two")[0]
    for study in (ours, theirs, begun(copied, {"study": "one"})):
        study.optimize(fitness, n_trials=1)
    assert [t.params for t in theirs.trials][:3] == [t.params for t in ours.trials]


def test_what_cannot_be_had_is_told(memory: InMemoryStorage):
    assert "study 'fair': there is no study 'fair' here" in refused(memory, {"study": "fair"})
    create(memory, name="young")
    assert "study 'young': study 'young' has no complete trial yet" in refused(memory, {"study": "young"})
    swept(memory, "lion", kind="lion")
    assert "study 'lion': lion is no sum of terms" in refused(memory, {"study": "lion"})
    swept(memory, "heavy", weight_decay=[0.1])
    assert "Invalid weight_decay: 0.1, expected in [0, 0.01]" in refused(memory, {"study": "heavy"})
    graph = {"kind": "graph", "presets": [{"study": "heavy"}]}
    told = refused(memory, space=graph, evaluation__steps=1000, evaluation__rates={})
    assert "the space 'graph' takes no TunedBaseline of another space" in told


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ({"study": 3}, 'space.presets.0: expected { study = "…" }; study = 3: '),
        ({"stud": "one"}, "expected { study = "),
        ({}, "expected { study = "),
        ({"study": ""}, "study = '': "),
        ({"study": "one", "params": {"lr": 3.0}}, "space.presets: study one: "),
        ({"study": "one", "params": {"lr": 3e-3}}, "n_terms"),
        (3, "unknown preset 3"),
    ],
    ids=str,
)
def test_a_preset_that_is_none_is_refused_with_its_place(preset: Any, words: str):
    with pytest.raises(UserError) as caught:
        warm(preset)
    assert words in str(caught.value)


def test_a_study_is_named_once_and_has_a_place():
    with pytest.raises(UserError, match="'study one' is named twice"):
        warm({"study": "one"}, {"study": "one"})
    with pytest.raises(UserError, match=r"space\.presets names 2, the sampler has 1 places"):
        warm("sgd", {"study": "one"}, sampler={"kind": "random", "n_trials": 1})


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("adam", {}, "decoupled, that of adam is added to the gradient: 0.01"),
        ("adamw", {"schedule_name": "warmup_linear"}, "the schedule 'warmup_linear'"),
        ("rmsprop", {"weight_decay": 0.0, "options": {"momentum": 0.9}}, "momentum of rmsprop: 0.9"),
        ("adamw", {"options": {"eps": 1e-2}}, "Invalid eps"),
        ("muon", {}, "muon is no sum of terms"),
    ],
)
def test_a_baseline_that_is_no_genome_is_refused(name: str, more: dict[str, Any], words: str):
    tuned = TunedBaseline(**{"name": name, "lr": 1e-3, "weight_decay": 0.01, **more})
    with pytest.raises(ValueError, match=words):
        TermSpace().express(tuned, 100)


def test_a_genome_beyond_what_a_search_varies_is_refused():
    tuned = TunedBaseline("adamw", 1e-3, 0.01, "warmup_cosine")
    assert TermSpace().express(tuned, 10_000)["warmup_steps"] == 1000
    with pytest.raises(
        ValueError, match="Invalid warmup_steps: 1200, the nearest that the space has is 1000"
    ):
        TermSpace().express(tuned, 12_000)


def test_a_graph_space_takes_equations_of_the_same_schedule():
    space, other = GraphSpace(presets=("nesterov g",)), GraphSpace(warmup=0.2)
    candidate = space.candidate(space.presets()["nesterov g"])
    assert space.candidate(space.express(candidate, 100)) == candidate
    with pytest.raises(ValueError, match=r"its warmup and hold are 0\.1 and 0"):
        other.express(candidate, 100)


FIRST = """
name = "first"

[space]
kind = "adamw"
lr = [1e-3]
weight_decay = [1e-3]

[sampler]
kind = "grid"

[evaluation]
tasks = ["digits"]
steps = 3
seeds = [0]

[rerun]
candidates = 1
seeds = 2
"""


SPACE = 'presets = ["adam", { study = "first" }]\n'
SECOND = (
    FIRST.replace("first", "second")
    .replace('"grid"', '"random"\nn_trials = 2')
    .replace('kind = "adamw"\nlr = [1e-3]\nweight_decay = [1e-3]\n', SPACE)
)


def test_the_command_tells_a_study_that_is_missing(optevo):
    said(optevo("run", write(SECOND)), "optevo.db")
    searched(open_storage("sqlite:///optevo.db", create=True), "other")
    said(optevo("run", write(SECOND)), "space.presets", "'first'")


@pytest.mark.slow
def test_the_command_run_twice_is_one_study(optevo):
    assert optevo("run", write(FIRST)).status == 0
    answer = optevo("run", write(SECOND))
    assert answer.status == 0, answer
    assert "study first" in answer.out
    study, stored = load_study(open_storage("sqlite:///optevo.db"), "second")
    fingerprint = study.user_attrs[keys.FINGERPRINT]
    again = optevo("run", write(SECOND))
    assert (again.status, "is complete" in again.out) == (0, True)
    study, after = load_study(open_storage("sqlite:///optevo.db"), "second")
    assert (after, study.user_attrs[keys.FINGERPRINT]) == (stored, fingerprint)
    assert "study first" in optevo("show", "1", "--study", "second").out
