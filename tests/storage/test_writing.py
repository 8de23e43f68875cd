"""What is written of a trial in one transaction: all of it, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import TrialState
from small_studies import config, create
from storages import failing

from optevo import keys
from optevo.optuna_private import add_together, database_of, written_together
from optevo.storage.opening import open_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def outcome(trial: optuna.Trial) -> None:
    """What is to be written."""
    trial.set_user_attr("a", [1, {"b": None}])
    trial.set_user_attr("a", [2])
    trial.report(0.25, 3)
    trial.report(float("inf"), 4)
    trial.study._storage.set_trial_system_attr(trial._trial_id, "s", "t")


def commits(study: optuna.Study) -> list[Any]:
    """The transactions from now on."""
    seen: list[Any] = []
    sqlalchemy.event.listen(database_of(study).engine, "commit", seen.append)  # type: ignore[attr-defined]
    return seen


def stored(study: optuna.Study) -> tuple[Any, ...]:
    """The last trial as another process sees it."""
    backend = database_of(study)
    other = RDBStorage(backend.url) if isinstance(backend, RDBStorage) else backend
    trial = other.get_all_trials(study._study_id)[-1]
    tables = (trial.params, trial.user_attrs, trial.system_attrs, trial.intermediate_values)
    return trial.state, trial.values, *tables


WRITTEN = ({"a": [2]}, {"s": "t"}, {3: 0.25, 4: float("inf")})


@pytest.fixture(params=["sqlite", "memory", pytest.param("postgresql", marks=pytest.mark.postgres)])
def study(request: pytest.FixtureRequest, url: str) -> optuna.Study:
    if request.param == "memory":
        return optuna.create_study()
    place = url if request.param == "sqlite" else request.getfixturevalue("postgres").fresh_url()
    return optuna.create_study(storage=open_storage(place, create=True))


@pytest.mark.parametrize("with_state", [False, True])
def test_what_is_written_together_is_written(study: optuna.Study, with_state: bool):
    trial = study.ask()
    with written_together(study, with_state=with_state):
        outcome(trial)
    own = study._storage.get_trial(trial._trial_id)
    assert (own.user_attrs, own.system_attrs, own.intermediate_values) == WRITTEN  # its own process sees it
    assert study.trials[-1] == own
    with written_together(study, with_state=with_state):
        trial.set_user_attr("later", 0)
    trial.set_user_attr("later", 1)
    study.tell(trial, 0.5)
    assert stored(study) == (TrialState.COMPLETE, [0.5], {}, {**WRITTEN[0], "later": 1}, *WRITTEN[1:])


@pytest.mark.parametrize("with_state", [False, True])
def test_it_is_one_transaction(url: str, with_state: bool):
    study = optuna.create_study(storage=open_storage(url, create=True))
    trial = study.ask()
    seen = commits(study)
    with written_together(study, with_state=with_state):
        outcome(trial)
        assert not seen
    assert len(seen) == (not with_state)
    assert stored(study)[3:] == (({}, {}, {}) if with_state else WRITTEN)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    assert len(seen) == 1 + (not with_state)
    assert stored(study) == (TrialState.COMPLETE, [0.5], {}, *WRITTEN)


def test_parameters_are_written_together(study: optuna.Study):
    distributions: dict[str, Any] = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a", None])}
    for _ in range(2):  # for the second one the distributions are known
        trial = study.ask()
        with written_together(study):
            for name, distribution in distributions.items():
                trial._suggest(name, distribution)
            with pytest.raises(ValueError, match="dynamic value space"):
                study._storage.set_trial_param(trial._trial_id, "c", 0.0, CategoricalDistribution(["b"]))
        assert stored(study)[2] == trial.params
        assert [*stored(study)[2]] == ["x", "c"]
        assert study._storage.get_trial(trial._trial_id).distributions == distributions
        study.tell(trial, 1.0)


@pytest.mark.parametrize("with_state", [False, True])
def test_a_trial_that_somebody_else_has_finished_gets_nothing(study: optuna.Study, with_state: bool):
    trial = study.ask()
    database = database_of(study)
    other = open_storage(f"{database.url}") if isinstance(database, RDBStorage) else database
    kept = written_together(study, with_state=with_state)
    kept.__enter__()
    if not isinstance(database, InMemoryStorage):  # which writes at once
        outcome(trial)
    other.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    if isinstance(database, InMemoryStorage):
        with pytest.raises(UpdateFinishedTrialError):
            outcome(trial)
        return
    if with_state:
        kept.__exit__(None, None, None)
        with pytest.raises(UpdateFinishedTrialError):
            study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    else:
        with pytest.raises(UpdateFinishedTrialError):
            kept.__exit__(None, None, None)
    assert stored(study) == (TrialState.FAIL, None, {}, {}, {}, {})
    assert study.trials[-1].user_attrs == {}


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("after", [False, True], ids=["lost", "acknowledgement lost"])
def test_an_outage_doubles_and_loses_nothing(url: str, after: bool):
    study = optuna.create_study(storage=open_storage(url, create=True))
    trial = study.ask()
    with written_together(study, with_state=True):
        outcome(trial)
    failed = failing(database_of(study), 1, OSError("gone"), after=after)  # type: ignore[arg-type]
    study.tell(trial, 0.5)
    assert failed
    assert stored(study) == (TrialState.COMPLETE, [0.5], {}, *WRITTEN)


def test_an_error_within_the_block_loses_nothing_that_was_set_before(study: optuna.Study):
    trial = study.ask()

    def fail() -> None:
        outcome(trial)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), written_together(study):
        fail()
    assert stored(study)[3:] == WRITTEN


def test_what_is_no_json_is_told_at_once(study: optuna.Study):
    if isinstance(database_of(study), InMemoryStorage):
        pytest.skip("a storage in memory takes any object")
    trial = study.ask()
    with pytest.raises(TypeError), written_together(study):
        trial.set_user_attr("a", object())


def test_a_trial_of_a_search_takes_six_transactions(url: str):
    """Created, named, claimed, its lineage, its parameters, its outcome with its state."""
    study, space = create(url), config().make_space()

    def evaluate(trial: optuna.Trial) -> float:
        with written_together(study):
            space.suggest(trial)
            trial.set_user_attr(keys.CANONICAL, "form")
        with written_together(study, with_state=True):
            outcome(trial)
        return 0.5

    study.optimize(evaluate, n_trials=1)
    seen = commits(study)
    study.optimize(evaluate, n_trials=2)
    assert len(seen) == 2 * 6


SPACE = {"x": FloatDistribution(0.1, 1, log=True), "c": CategoricalDistribution(["a", None, True])}


def finished(x: float, **changes: Any) -> optuna.trial.FrozenTrial:
    """A trial to be added."""
    whole: dict[str, Any] = {
        "state": TrialState.PRUNED,
        "value": -0.25,
        "params": {"x": x, "c": None},
        "distributions": SPACE,
        "user_attrs": {"a": [1, {"b": None}]},
        "system_attrs": {"s": "t"},
        "intermediate_values": {3: 0.25, 4: float("nan"), 5: float("-inf")},
    }
    return optuna.trial.create_trial(**{**whole, **changes})


def seen_by_another(study: optuna.Study) -> list[dict[str, Any]]:
    """Every trial as another process sees it, but for the number that the storage gave it."""
    backend = database_of(study)
    other = RDBStorage(backend.url) if isinstance(backend, RDBStorage) else backend
    trials = other.get_all_trials(study._study_id)
    return [{key: value for key, value in vars(t).items() if key != "_trial_id"} for t in trials]


def test_a_trial_that_is_added_is_what_optuna_makes_of_it(study: optuna.Study, tmp_path: Path):
    optunas = optuna.create_study(storage=RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}"))
    nothing: dict[str, Any] = {"params": {}, "distributions": {}, "user_attrs": {}, "intermediate_values": {}}
    added = [
        *(finished(0.1), finished(1.0, state=TrialState.COMPLETE), finished(0.5, value=None, **nothing)),
        finished(0.5, state=TrialState.RUNNING, value=None, intermediate_values={}),
    ]
    for one in (study, optunas):
        one.add_trials(added)
    assert repr(seen_by_another(study)) == repr(seen_by_another(optunas))  # NaN does not equal itself


def test_trials_are_added_together_or_none_of_them(study: optuna.Study):
    seen = [] if isinstance(database_of(study), InMemoryStorage) else commits(study)
    add_together(study, [finished(0.1), finished(0.2)])
    add_together(study, [finished(0.3), finished(0.4)])
    assert len(seen) in {0, 2}
    assert [(t.number, t.params["x"]) for t in study.trials] == list(enumerate([0.1, 0.2, 0.3, 0.4]))
    half = finished(0.6)
    half.distributions = {}
    with pytest.raises(ValueError, match="distributions"):
        add_together(study, [finished(0.5), half])
    if seen:  # others add one after the other
        with pytest.raises(TypeError):
            add_together(study, [finished(0.5), finished(0.6, user_attrs={"a": object()})])
        assert len(seen_by_another(study)) == 4


def test_an_added_trial_is_whole_or_not_there(study: optuna.Study):
    if isinstance(database_of(study), InMemoryStorage):
        pytest.skip("a storage in memory takes any object")
    study.add_trial(finished(0.1))
    with pytest.raises(TypeError):
        study.add_trial(finished(0.2, user_attrs={"a": object()}))
    study.add_trial(finished(0.3))
    assert [t["_params"]["x"] for t in seen_by_another(study)] == [0.1, 0.3]


def test_an_added_trial_with_other_choices_is_refused(study: optuna.Study):
    if isinstance(database_of(study), InMemoryStorage):
        pytest.skip("a storage in memory compares nothing")
    other = finished(0.1, distributions={**SPACE, "c": CategoricalDistribution([None])})
    for trial in (finished(0.1), finished(0.2)):
        study.add_trial(trial)
    with pytest.raises(ValueError, match="CategoricalDistribution"):
        study.add_trial(other)
    assert len(seen_by_another(study)) == 2


@pytest.fixture
def statements(study: optuna.Study) -> list[str]:
    """What the storage's database was asked, to be cleared."""
    seen: list[str] = []
    if not isinstance(database_of(study), InMemoryStorage):
        sqlalchemy.event.listen(
            database_of(study).engine,  # type: ignore[attr-defined]
            "before_cursor_execute",
            lambda *args: seen.append(args[2]),
        )
    return seen


def test_the_statements_of_an_added_trial_do_not_grow_with_it(study: optuna.Study, statements: list[str]):
    counts = []
    space = {f"x{i}": FloatDistribution(0, 1) for i in range(20)}
    many = {"params": dict.fromkeys(space, 0.5), "distributions": space}
    many["user_attrs"] = {f"a{i}": i for i in range(20)}
    study.add_trials([finished(0.1), finished(0.1, **many)])  # distributions that are new are compared
    for trial in (finished(0.2), finished(0.2, **many)):
        statements.clear()
        study.add_trial(trial)
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_trials_that_are_added_together_are_what_optuna_makes_of_them(
    study: optuna.Study, statements: list[str], tmp_path: Path
):
    optunas = optuna.create_study(storage=RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}"))
    nothing: dict[str, Any] = {"params": {}, "distributions": {}, "user_attrs": {}, "intermediate_values": {}}
    whole = finished(0.2, state=TrialState.COMPLETE, value=float("inf"))
    others = [finished(0.3), finished(0.5, value=None, **nothing), whole]
    counts = []
    for added in ([finished(0.1)], others, [finished(0.4), *others]):
        statements.clear()
        add_together(study, added)
        counts.append(len(statements))
        optunas.add_trials(added)
    assert repr(seen_by_another(study)) == repr(seen_by_another(optunas))  # NaN does not equal itself
    assert counts[2] <= counts[1] + 1  # SQLite says the number of one new row only


def test_trials_that_are_added_together_with_new_distributions_are_compared(study: optuna.Study):
    if isinstance(database_of(study), InMemoryStorage):
        pytest.skip("a storage in memory compares nothing")
    other = finished(0.1, distributions={**SPACE, "c": CategoricalDistribution([None])})
    with pytest.raises(ValueError, match="CategoricalDistribution"):
        add_together(study, [finished(0.1), finished(0.2), other])
    assert seen_by_another(study) == []
    add_together(study, [finished(0.1)])
    add_together(study, [])
    assert len(seen_by_another(study)) == 1
