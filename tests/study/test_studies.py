"""Studies in a storage: created, resumed and refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from small_studies import GENETIC, RANDOM, TPE, config, create, finish, fitness, slots

from optevo import keys
from optevo.errors import UserError
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import (
    best_trials,
    check_environment,
    counted,
    create_or_resume,
    is_complete,
    load_study,
    make_sampler,
)

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture
def memory() -> InMemoryStorage:
    """Where no database is meant."""
    return InMemoryStorage()


def refused(url: str, **changes: Any) -> str:
    before = stored(url)
    with pytest.raises(UserError) as caught:
        create(url, **changes)
    assert stored(url) == before
    return str(caught.value)


def stored(url: str) -> list[Any]:
    storage = open_storage(url)
    return [
        (s.study_name, s.user_attrs, s.system_attrs, s.directions, storage.get_n_trials(s._study_id))
        for s in storage.get_all_studies()
    ]


# Created, resumed, refused


def test_a_new_study_keeps_schema_configuration_fingerprint_and_environment(url: str):
    attrs = create(url).user_attrs
    assert attrs[keys.SCHEMA] == keys.SCHEMA_VERSION
    assert parse_config(attrs[keys.CONFIG], "stored") == config()
    assert attrs[keys.FINGERPRINT] == config().fingerprint()
    assert {"optevo", "torch", "optuna", "python", "device", "git_commit"} <= set(attrs[keys.ENVIRONMENT])


def test_the_same_configuration_resumes_the_same_study(url: str):
    first = create(url)
    first.optimize(fitness, n_trials=2)
    again = create(url)
    assert again._study_id == first._study_id
    assert len(again.trials) == 2


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 4}, "seed: 3 → 4"),
        ({"evaluation__steps": 6}, "evaluation.steps: 5 → 6"),
        ({"evaluation__seeds": [1]}, "evaluation.seeds: [0] → [1]"),
        ({"sampler__n_generations": 2}, "sampler.n_generations: 3 → 2"),
        ({"space__presets": ["adam", "sgd"]}, "space.presets"),
        ({"sampler": TPE}, "sampler.kind"),
        ({"evaluation__tasks": ["mnist"]}, "evaluation.tasks"),
    ],
)
def test_a_changed_configuration_is_refused_with_the_keys_that_differ(
    url: str, change: dict[str, Any], key: str
):
    create(url)
    message = refused(url, **change)
    assert key in message
    assert "another name" in message
    assert message.count("→") == (1 if change != {"sampler": TPE} else message.count("sampler."))


def test_a_study_of_the_same_name_with_trials_of_another_program_is_refused(url: str):
    study = optuna.create_study(
        study_name="one", storage=open_storage(url, create=True), direction="maximize"
    )
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "another name" in refused(url)


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]], ids=["minimize", "two"])
def test_an_empty_study_of_the_same_name_that_is_not_maximised_is_refused(url: str, directions: list[str]):
    optuna.create_study(study_name="one", storage=open_storage(url, create=True), directions=directions)
    assert "another name" in refused(url)


def test_an_empty_study_with_attributes_of_another_program_is_left_alone(url: str):
    study = optuna.create_study(
        study_name="one", storage=open_storage(url, create=True), direction="maximize"
    )
    study.set_user_attr("theirs", 1)
    refused(url)


@pytest.mark.parametrize("version", [0, 1, 2, keys.SCHEMA_VERSION + 1, None])
def test_a_study_of_another_schema_version_is_refused_for_running_and_reading(url: str, version: Any):
    create(url).set_user_attr(keys.SCHEMA, version)
    assert "schema version" in refused(url)
    with pytest.raises(UserError, match="or use the optevo that made it"):
        load_study(open_storage(url), "one")


def test_a_study_whose_creation_was_cut_off_is_created_by_the_next_run(url: str):
    create(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute(
            "DELETE FROM study_user_attributes WHERE key IN (?, ?)", (keys.FINGERPRINT, keys.CONFIG)
        )
    assert create(url).user_attrs[keys.FINGERPRINT] == config().fingerprint()


def test_a_study_that_is_not_there_is_named_with_those_that_are(url: str):
    create(url)
    with pytest.raises(UserError, match=r"'two'.*there is one"):
        load_study(open_storage(url), "two")


def test_an_empty_database_holds_no_study(url: str):
    open_storage(url, create=True)
    with pytest.raises(UserError, match="no study"):
        load_study(open_storage(url), None)


def test_several_studies_need_a_name(url: str):
    create(url)
    create(url, name="two")
    with pytest.raises(UserError, match=r"one, two.*--study"):
        load_study(open_storage(url), None)
    assert load_study(open_storage(url), "two")[1].name == "two"


def test_a_study_of_another_program_is_not_read(url: str):
    optuna.create_study(study_name="theirs", storage=open_storage(url, create=True))
    with pytest.raises(UserError, match="not made by optevo"):
        load_study(open_storage(url), "theirs")


def test_two_studies_in_one_database_do_not_mix(memory: InMemoryStorage):
    alone = finish(create(InMemoryStorage()))
    first, second = create(memory), create(memory, name="two", seed=4)
    while not is_complete(first):
        first.optimize(fitness, n_trials=1)
        second.optimize(fitness, n_trials=1)
    assert slots(first) == alone
    assert slots(second) != alone


# Samplers by name


def test_a_genetic_study_has_exactly_as_many_trials_as_it_says(memory: InMemoryStorage):
    study = create(memory)
    finish(study)
    assert counted(study) == config().n_trials == 6 + 2 * 4


@pytest.mark.parametrize("n", [2, 3, 15])
def test_a_random_study_has_exactly_as_many_trials_as_it_says(memory: InMemoryStorage, n: int):
    changes = {"sampler": {"kind": "random", "n_trials": n}, "space__presets": ["sgd"]}
    study = create(memory, **changes)
    while not is_complete(study):
        study.optimize(fitness, n_trials=1)
    assert counted(study) == n


@pytest.mark.parametrize("sampler", [GENETIC, RANDOM, TPE], ids=lambda sampler: sampler["kind"])
def test_presets_come_first_whatever_the_sampler(memory: InMemoryStorage, sampler: dict[str, Any]):
    study = create(memory, sampler=sampler)
    study.optimize(fitness, n_trials=2)
    presets = list(config().make_space().presets().values())
    assert [trial.params for trial in study.trials] == presets


def test_a_random_study_is_the_generation_0_of_a_genetic_one(memory: InMemoryStorage):
    study = create(memory, sampler=RANDOM)
    study.optimize(fitness, n_trials=15)
    other = create(memory, name="two", sampler={**GENETIC, "population_size": 15})
    other.optimize(fitness, n_trials=15)
    assert slots(study) == slots(other)
    assert {keys.ours(trial)[keys.ORIGIN] for trial in study.trials} == {"preset", "random"}


@pytest.mark.parametrize("sampler", [RANDOM, TPE], ids=lambda sampler: sampler["kind"])
def test_a_resumed_study_proposes_what_the_unbroken_one_would(url: str, sampler: dict[str, Any]):
    unbroken = create(InMemoryStorage(), sampler=sampler)
    unbroken.optimize(fitness, n_trials=14)
    for n_trials in (5, 6, 3):
        create(url, sampler=sampler).optimize(fitness, n_trials=n_trials)
    resumed = create(url, sampler=sampler).trials
    assert [trial.params for trial in resumed] == [trial.params for trial in unbroken.trials]
    assert len({str(trial.params) for trial in resumed}) == 14


def test_a_tpe_study_proposes_the_same_in_another_process(url: str, tmp_path: Path):
    study = create(url, sampler=TPE)
    study.optimize(fitness, n_trials=13)
    copy_ = tmp_path / "copy.db"
    with sqlite3.connect(url.removeprefix("sqlite:///")) as a, sqlite3.connect(copy_) as b:
        a.backup(b)
    program = (
        "import sys, json\n"
        "from optevo.storage.opening import open_storage\n"
        "from optevo.study.studies import load_study\n"
        "study, config = load_study(open_storage(sys.argv[1]), 'one')\n"
        "trial = study.ask()\n"
        "print(json.dumps(config.make_space().suggest(trial)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{copy_}"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == config().make_space().suggest(study.ask())


def test_tpe_learns_from_the_trials_that_have_finished(memory: InMemoryStorage):
    study = create(memory, sampler=TPE)
    study.optimize(fitness, n_trials=12)
    before = config().make_space().suggest(study.ask())
    again = create(memory, name="two", sampler=TPE)
    again.optimize(lambda trial: -fitness(trial), n_trials=12)
    assert config().make_space().suggest(again.ask()) != before


def test_every_sampler_of_the_configuration_can_be_made():
    for sampler in (GENETIC, RANDOM, TPE):
        assert make_sampler(config(sampler=sampler))


# The best


def test_the_best_trials_are_distinct_optimizers_best_first(memory: InMemoryStorage):
    study = create(memory)
    finish(study)
    best = best_trials(study, 5)
    assert [t.value for t in best] == sorted((t.value for t in best), reverse=True)
    assert len({keys.ours(t)[keys.CANONICAL] for t in best}) == 5
    assert best[0].value == study.best_value


def test_a_study_without_a_complete_trial_has_no_best(memory: InMemoryStorage):
    with pytest.raises(UserError, match="no complete trial"):
        best_trials(create(memory), 1)


@pytest.mark.parametrize("sampler", [GENETIC, RANDOM, TPE], ids=lambda sampler: sampler["kind"])
def test_a_trial_knows_its_lineage_while_it_runs(memory: InMemoryStorage, sampler: dict[str, Any]):
    # A worker counts failures by slot, which it reads from the trial at hand.
    def objective(trial: optuna.Trial) -> float:
        assert {keys.GENERATION, keys.SLOT, keys.PARENTS, keys.ORIGIN} <= set(trial.user_attrs)
        return fitness(trial)

    study = create(memory, sampler=sampler)
    study.optimize(objective, n_trials=4)
    assert [keys.ours(trial)[keys.SLOT] for trial in study.trials] == [0, 1, 2, 3]


def test_equally_fit_trials_rank_by_slot_whichever_trial_evaluated_them(memory: InMemoryStorage):
    # A trial that failed leaves its slot to one with a higher number, as any other worker might.
    study = create(memory)
    study.optimize(lambda trial: 1 / 0, n_trials=1, catch=ZeroDivisionError)
    space = config().make_space()

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr(keys.CANONICAL, space.candidate(space.suggest(trial)).canonical())
        return 0.5

    study.optimize(objective, n_trials=6)
    ranked = best_trials(study, 6)
    assert [keys.ours(trial)[keys.SLOT] for trial in ranked] == list(range(6))
    assert [trial.number for trial in ranked] != sorted(trial.number for trial in ranked)


# Another environment


def begun_with(url: str, **versions: str) -> optuna.Study:
    """A study that was begun with other versions than those installed."""
    study = create(url)
    study.set_user_attr(keys.ENVIRONMENT, {**study.user_attrs[keys.ENVIRONMENT], **versions})
    return study


@pytest.mark.parametrize(("package", "version"), [("optevo", "0.0.1"), ("torch", "1.13.0")])
def test_a_worker_with_another_version_is_refused_with_the_difference(url: str, package: str, version: str):
    study = begun_with(url, **{package: version})
    with pytest.raises(UserError, match=rf"{package}: {version} → \d"):
        check_environment(study)
    assert f"{package}: {version} → " in refused(url)


def test_a_worker_that_reads_the_configuration_otherwise_is_refused(url: str):
    study = create(url)
    study.set_user_attr(keys.FINGERPRINT, "0123456789abcdef")
    with pytest.raises(UserError, match="fingerprint: 0123456789abcdef → "):
        check_environment(study)


def test_builds_of_torch_for_cpu_and_cuda_go_together(url: str):
    study = create(url)
    version = study.user_attrs[keys.ENVIRONMENT]["torch"].partition("+")[0]
    check_environment(begun_with(url, torch=f"{version}+cu999"))


def test_an_accepted_environment_is_on_record_and_holds_for_all_workers(url: str):
    begun_with(url, torch="1.13.0")
    study = create_or_resume(config(), open_storage(url), "cpu", accept_environment=True)
    attrs = study.user_attrs
    assert attrs[keys.ENVIRONMENT]["torch"] == "1.13.0"
    (accepted,) = (attrs[key] for key in attrs if key.startswith(keys.ACCEPTED))
    assert accepted["fingerprint"] == config().fingerprint()
    check_environment(load_study(open_storage(url), "one")[0])
    create(url)  # once is enough
