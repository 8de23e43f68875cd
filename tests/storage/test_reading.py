"""Trials of a database as optevo reads them: what Optuna's own storage says, in fewer statements, and later."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from small_studies import config, create, finish
from stored_studies import made

from optevo import keys
from optevo.errors import UserError
from optevo.optuna_private import all_trials, database_of, trials_in, user_attr_of
from optevo.storage import reading
from optevo.storage.copying import copy_studies
from optevo.storage.counting import count, count_trials
from optevo.storage.database import Database
from optevo.storage.opening import open_storage
from optevo.storage.reading import StoredTrial
from optevo.study.studies import load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")

STATES: list[Any] = [
    None,
    (),
    (TrialState.RUNNING,),
    (TrialState.COMPLETE, TrialState.FAIL),
    list(TrialState),
]


@pytest.fixture(params=["whole", "later"])
def lazy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether finished trials are read when asked for, two at a time."""
    later: bool = request.param == "later"
    if later:
        monkeypatch.setattr(reading, "LAZY_FROM", 1)
        monkeypatch.setattr(reading, "_CHUNK", 2)
    return later


def as_optuna_reads_them(url: str) -> None:
    """All of a study's trials, and some of them, are those of Optuna's own storage."""
    ours, theirs = open_storage(url), RDBStorage(url)
    study_id = theirs.get_study_id_from_name("one")
    for states in STATES:
        assert ours.get_all_trials(study_id, states=states) == theirs.get_all_trials(study_id, states=states)
    for trial in theirs.get_all_trials(study_id):
        mine = ours.get_trial(trial._trial_id)
        assert mine == trial
        assert [*mine.params] == [*trial.params]  # in the order in which they were suggested
        assert str(mine.intermediate_values) == str(trial.intermediate_values)  # with what is not finite
    finished = {t._trial_id for t in theirs.get_all_trials(study_id)[:3]}
    assert [t.number for t in ours._get_trials(study_id, None, finished, 4)] == [  # type: ignore[attr-defined]
        t.number for t in theirs._get_trials(study_id, None, finished, 4)
    ]


def test_every_trial_is_read_as_optuna_reads_it(url: str, lazy: bool):
    made(url)
    as_optuna_reads_them(url)
    with pytest.raises(KeyError):
        open_storage(url).get_all_trials(99)
    with pytest.raises(KeyError):
        open_storage(url).get_trial(99)


@pytest.mark.postgres
def test_every_trial_of_postgresql_is_read_as_optuna_reads_it(url: str, lazy: bool, postgres: Any):
    made(url)
    there = postgres.fresh_url()
    list(copy_studies(url, there))
    as_optuna_reads_them(there)
    study = optuna.load_study(study_name="one", storage=open_storage(there))
    assert count(study) == count_trials(study.trials)


def test_a_trial_that_is_read_later_is_like_another(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "LAZY_FROM", 1)
    made(url)
    database = open_storage(url)
    study_id = database.get_study_id_from_name("one")
    expected = RDBStorage(url).get_all_trials(study_id)[0]

    def fresh() -> FrozenTrial:
        trial = database.get_all_trials(study_id, deepcopy=False)[0]
        assert isinstance(trial, StoredTrial)
        assert "_params" not in vars(trial)
        return trial

    for made_of_it in (copy.copy, copy.deepcopy, lambda trial: pickle.loads(pickle.dumps(trial))):
        copied: FrozenTrial = made_of_it(fresh())
        assert type(copied) is FrozenTrial
        assert copied == expected == fresh()
    assert fresh() == expected != database.get_all_trials(study_id, deepcopy=False)[1]
    assert hash_of(fresh()) == hash_of(expected)
    assert repr(fresh()) == repr(expected)
    assert fresh() != "a trial"
    with pytest.raises(AttributeError, match="nothing"):
        fresh().nothing  # type: ignore[attr-defined]  # noqa: B018
    added = optuna.load_study(study_name="one", storage=database)
    added.add_trial(fresh())  # within a transaction of the same database
    assert added.trials[-1].params == expected.params


def hash_of(trial: FrozenTrial) -> Any:
    """Its hash, or why it has none, as a trial with a list in it."""
    try:
        return hash(trial)
    except TypeError as error:
        return str(error)


def test_a_trial_that_was_deleted_before_it_was_read_is_no_empty_one(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "LAZY_FROM", 1)
    study = made(url)
    trial = all_trials(study)[0]
    optuna.delete_study(study_name="one", storage=open_storage(url))
    with pytest.raises(KeyError, match="deleted"):
        trial.params  # noqa: B018


@pytest.mark.parametrize(
    ("table", "change", "ask"),
    [
        ("trial_user_attributes", f"value_json = '3' WHERE key = '{keys.RUNS}'", "user_attrs"),
        ("trial_user_attributes", f"value_json = '{{' WHERE key = '{keys.CANONICAL}'", "user_attrs"),
        ("trial_params", "param_value = 1e9 WHERE param_name = 'lr'", "params"),
        ("trial_params", "distribution_json = '[]' WHERE param_name = 'lr'", "params"),
    ],
    ids=["an attribute's shape", "no JSON", "a value", "a distribution"],
)
def test_what_is_read_later_passes_the_gate(
    url: str, monkeypatch: pytest.MonkeyPatch, table: str, change: str, ask: str
):
    study = create(url)
    finish(study)
    study._storage.set_trial_user_attr  # noqa: B018
    database = database_of(study)
    assert isinstance(database, Database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
            f"SELECT trial_id, '{keys.RUNS}', '[]' FROM trials"
        )
        connection.exec_driver_sql(f"UPDATE {table} SET {change}")
    monkeypatch.setattr(reading, "LAZY_FROM", 1)
    opened, _ = load_study(open_storage(url), "one", trials="heads")  # which reads neither
    trial = all_trials(opened)[0]
    for _ in range(2):  # it is as wrong at the second time
        with pytest.raises(UserError, match=r"is damaged|is wrong|can't be read"):
            getattr(trial, ask)
    with pytest.raises(UserError, match=r"is damaged|is wrong|can't be read"):
        load_study(open_storage(url), "one")


@pytest.mark.parametrize("place", ["sqlite", "memory"])
def test_one_attribute_of_all_trials(place: str, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "LAZY_FROM", 1)
    study = create(url if place == "sqlite" else InMemoryStorage())
    finish(study)
    trials = all_trials(optuna.load_study(study_name="one", storage=study._storage))
    forms = [trial.user_attrs[keys.CANONICAL] for trial in study.trials]
    assert user_attr_of(study, keys.CANONICAL, trials) == forms
    fresh = optuna.load_study(study_name="one", storage=database_of(study))
    assert user_attr_of(fresh, keys.CANONICAL, all_trials(fresh)[3:5]) == forms[3:5]
    assert user_attr_of(fresh, "no such", all_trials(fresh)) == [None] * len(forms)


def test_all_trials_are_a_list_in_order(url: str):
    study = made(url)
    for one in (study, optuna.create_study()):
        one.enqueue_trial({"another": None})
        trials, expected = all_trials(one), one.get_trials(deepcopy=False)
        assert [*trials] == expected
        assert trials[-1] == expected[-1]
        assert trials[1:] == expected[1:]
        with pytest.raises(IndexError):
            trials[len(expected)]
    memory = optuna.create_study()
    assert [t.number for t in all_trials(memory)] == []


@pytest.mark.parametrize("place", ["sqlite", "memory"])
@pytest.mark.parametrize("make", [made, None], ids=["all states", "finished"])
def test_counts_are_those_of_the_trials(place: str, make: Callable[..., Any] | None, url: str):
    study = create(url) if make is None else make(url)
    if make is None:
        assert count(study).best is None
        finish(study)
    for key, state in ((keys.ERROR, TrialState.FAIL), (keys.ERROR, TrialState.COMPLETE)):
        study.add_trial(optuna.trial.create_trial(state=state, value=_value(state), user_attrs={key: "x"}))
    lost = {keys.LOST: "gone", keys.CLAIM: [0, 1]}
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, system_attrs=lost))
    late = {keys.CLAIM: [0, 0], keys.LATE: True}
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, system_attrs=late))
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.COMPLETE, value=-7.0, system_attrs={keys.CLAIM: None})
    )
    for generation in (2, 10, 9):
        attrs = {keys.GENERATION: generation, keys.SLOT: 0}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))
    expected = count_trials(study.trials)
    assert (expected.errors, expected.generation) == (1, 10)
    if place == "memory":
        copied = optuna.create_study(direction="maximize")
        copied.add_trials(study.get_trials(states=[s for s in TrialState if s.is_finished()]))
        assert count(copied).decided == expected.decided
        assert count(copied).best == expected.best
    else:
        assert count(study) == expected


def _value(state: TrialState) -> float | None:
    return -9.0 if state == TrialState.COMPLETE else None


def statements(study: optuna.Study) -> list[str]:
    """The statements that its database is given from now on."""
    seen: list[str] = []
    engine = database_of(study).engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    return seen


def test_what_an_ask_reads_does_not_grow_with_the_history(url: str, monkeypatch: pytest.MonkeyPatch):
    made_of: list[int] = []
    real = reading.read_part

    def counting(connection: Any, part: Any, ids: Any) -> Any:
        made_of.append(len(ids))
        return real(connection, part, ids)

    for module in ("reading", "database"):
        monkeypatch.setattr(f"optevo.storage.{module}.read_part", counting)
    study, space = create(url), config().make_space()
    costs = []
    seen = statements(study)
    for n in range(10):  # of the generation's first trials to those of a later one
        del seen[:], made_of[:]
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 0.1 * n)
        costs.append((len(seen), sum(made_of)))
    assert len(set(costs[1:6])) == 1
    assert costs[9] == costs[1]


def test_trials_of_a_state_are_read_alone(url: str):
    study = made(url)
    opened = optuna.load_study(study_name="one", storage=open_storage(url))
    seen = statements(opened)
    assert [t.number for t in trials_in(opened, TrialState.RUNNING)] == [5, 6]
    assert len(seen) == 6  # a table each
    assert [t.number for t in trials_in(study, TrialState.WAITING)] == [7]
    assert trials_in(optuna.create_study(), TrialState.RUNNING) == []
