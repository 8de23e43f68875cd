"""What a database holds, checked as a study is opened: any other shape is named, none is met later."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter, ValidationError

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.study.check import check_study
from optevo.study.config import parse_config
from optevo.study.schema import STUDY, STUDY_MANY, SYSTEM, TRIAL, TRIAL_MANY
from optevo.study.schema import Run as StoredRun
from optevo.study.studies import create_or_resume
from optevo.training.run import Run
from tests.chaos.databases import CONFIG, evaluate

WRONG: list[Any] = [None, True, -1, 1.5, float("nan"), float("inf"), 2**64, 10**400, "x", "", [], {}, [None]]
WRONG += [["a"], [-1], [0, 1, 2], {"a": 1}, [[]], [{}], [True, True], [99]]


def fits(shape: TypeAdapter[Any], value: Any) -> bool:
    try:
        shape.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


class Stored:
    """As much of a study as is checked, and all of it can be changed."""

    def __init__(self, study: optuna.Study) -> None:
        self.study_name, self.directions = study.study_name, [StudyDirection.MAXIMIZE]
        self.user_attrs, self.trials = json.loads(json.dumps(study.user_attrs)), copy.deepcopy(study.trials)
        for trial in self.trials:
            trial.user_attrs = json.loads(json.dumps(trial.user_attrs))

    def get_trials(self, deepcopy: bool) -> list[FrozenTrial]:
        assert not deepcopy
        return self.trials

    def refusal(self) -> str:
        with pytest.raises(UserError) as caught:
            check_study(self)  # type: ignore[arg-type]
        return str(caught.value)


@pytest.fixture(scope="module")
def finished() -> optuna.Study:
    """A finished study, in memory, that was measured again."""
    config = parse_config(CONFIG, "test")
    study = create_or_resume(config, optuna.storages.InMemoryStorage(), "cpu", {"digits": 5})
    study.optimize(evaluate, n_trials=7)
    runs = tuple(Run("digits", seed, 0.5, 0.5, 1.0, (2.0,), 3, 0.1, None) for seed in (2, 3))
    store_result(study, config, Result(0, (Row("sgd", 0.5, runs), Row("trial 0", None, runs))))
    study.set_user_attr(f"{keys.RERUN}:abc:seeds 2-3", [dataclasses.asdict(run) for run in runs])  # older
    return study


@pytest.fixture
def study(finished: optuna.Study) -> Stored:
    return Stored(finished)


def test_what_optevo_writes_is_accepted(study):
    check_study(study)


def test_other_peoples_attributes_are_theirs(study):
    study.trials[0].user_attrs["mine"] = study.trials[0].system_attrs["mine"] = object()
    study.user_attrs["mine"] = [None]
    check_study(study)


def test_a_study_that_optevo_did_not_make_passes(study):
    del study.user_attrs[keys.CONFIG]
    study.trials[0].user_attrs[keys.RUNS] = "theirs"
    check_study(study)


def test_another_schema_is_left_to_whoever_knows_it(study):
    study.user_attrs[keys.SCHEMA] += 1
    study.trials[0].user_attrs[keys.RUNS] = "of the future"
    check_study(study)


def test_every_field_of_a_run_has_a_shape():
    assert {*StoredRun.__annotations__} == {field.name for field in dataclasses.fields(Run)}


def test_every_attribute_that_optevo_writes_has_a_shape():
    names = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    beginnings = {keys.FRESH, keys.FINAL, keys.ABLATION}  # of names; LINES is a file's alone
    others = {keys.PREFIX, keys.SCHEMA, keys.LINES, keys.OBJECTIVE_NAMES}  # the last is the dashboard's
    assert names - {*others, *beginnings} == {
        *(STUDY.keys() | STUDY_MANY.keys() - {f"{keys.RERUN}:"}),
        *SYSTEM,
        *(TRIAL | TRIAL_MANY),
    }


@pytest.mark.parametrize("key", sorted({*STUDY, keys.SCHEMA} - {keys.CONFIG, keys.SCHEMA}))
def test_a_studys_attribute_of_another_shape_is_named(key, study):
    for value in WRONG:
        if not fits(STUDY[key], value):
            study.user_attrs[key] = value
            message = study.refusal()
            assert "'one'" in message
            assert repr(key) in message
            assert "use a copy" in message


@pytest.mark.parametrize("key", [keys.ENVIRONMENT, keys.COSTS, keys.FINGERPRINT])
def test_a_study_with_trials_lacks_nothing(key, study):
    del study.user_attrs[key]
    assert f"'{key}' is missing" in study.refusal()
    study.trials = []
    study.user_attrs = {name: study.user_attrs[name] for name in (keys.SCHEMA, keys.CONFIG)}
    check_study(study)  # its creation was cut off


@pytest.mark.parametrize("key", sorted({*TRIAL, *TRIAL_MANY, *SYSTEM}))
def test_a_trials_attribute_of_another_shape_is_named(key, study):
    of_users = key in TRIAL | TRIAL_MANY
    where, refused = (study.trials[3].user_attrs if of_users else study.trials[3].system_attrs), 0
    for value in WRONG:
        if not fits((TRIAL | TRIAL_MANY | SYSTEM)[key], value):
            where[key] = value
            message = study.refusal()
            assert "study 'one', trial 3: " in message
            assert repr(key) in message
            refused += 1
    assert refused >= 14


@pytest.mark.parametrize("field", [*StoredRun.__annotations__])
def test_a_run_with_a_wrong_field_is_refused_with_its_place(field, study):
    run, refused = keys.ours(study.trials[1])[keys.RUNS][1], 0
    right = run.get(field)
    for value in WRONG:
        run[field] = value
        if not fits(TRIAL[keys.RUNS], [run]):
            message = study.refusal()
            assert f"trial 1: {keys.RUNS!r} is wrong at 1" in message
            refused += 1
    assert refused >= 12
    run[field] = right
    check_study(study)
    del run[field]
    if getattr(Run, field, "required") == "required":
        assert f"{keys.RUNS!r} is wrong at 1.{field}: " in study.refusal()
    else:
        check_study(study)


@pytest.mark.parametrize("key", [keys.PARENTS, keys.CANONICAL])
def test_a_complete_trial_lacks_nothing_that_is_read_of_it(key, study):
    del study.trials[2].user_attrs[key]
    assert re.search(f"trial 2: '{key}' is missing", study.refusal())


@pytest.mark.parametrize("name", ["n_terms", "term_0", "alpha_3", "lr", "warmup", "warmup_steps"])
def test_a_parameter_outside_the_space_is_named(name, study):
    trial = study.trials[2]
    params = dict(trial._params)
    for value in [None, "x", -1e9, 1e9, float("nan"), 10**6, [], {}]:
        trial._params = {**params, name: value}
        assert f"trial 2: '{name}' is wrong" in study.refusal()
    trial._params = {key: value for key, value in params.items() if key != name}
    assert f"trial 2: '{name}' is missing" in study.refusal()


@pytest.mark.parametrize("values", [None, [], [float("nan")], [float("inf")], [1.0, 2.0]])
def test_a_complete_trial_has_one_finite_value(values, study):
    study.trials[0].values = None
    study.trials[0]._values = values
    assert "trial 0: 'value'" in study.refusal()


def test_a_pruned_trial_may_have_ended_before_it_had_a_value(study):
    trial = study.trials[6]
    assert trial.state == TrialState.PRUNED
    trial._values, trial._params = None, {}
    del trial.user_attrs[keys.CANONICAL]
    check_study(study)


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING])
def test_a_trial_may_be_cut_off_at_any_moment(state, study):
    trial = study.trials[6]
    written = list(trial.user_attrs.items())
    trial.state, trial._values, trial._params = state, None, {}
    for n in range(len(written)):
        trial.user_attrs = dict(written[:n])
        check_study(study)


@pytest.mark.parametrize("key", [keys.PARENTS, keys.ATTEMPTS])
def test_a_trial_that_is_not_there_is_nobodys_parent(key, study):
    study.trials[2].user_attrs[key] = [0, 7]
    assert f"'{key}'" in study.refusal()


@pytest.mark.parametrize("key", [1, None, b"runs", 2.5])
def test_a_name_that_is_no_text_is_refused(key, study):
    study.trials[2].user_attrs[key] = 1
    assert "study 'one', trial 2: an attribute is called" in study.refusal()
    del study.trials[2].user_attrs[key]
    study.user_attrs[key] = 1
    assert "study 'one': an attribute is called" in study.refusal()


def test_a_lost_row_of_the_trials_is_noticed(study):
    del study.trials[4]
    assert "lost its trial 4" in study.refusal()


@pytest.mark.parametrize("winner", [6, 7, 10**9, -1, 0.0, "0", None])
def test_a_winner_that_is_no_complete_trial_is_refused(winner, study):
    study.user_attrs[keys.RERUN]["winner"] = winner
    assert keys.RERUN in study.refusal()


def test_a_candidate_that_was_measured_on_other_seeds_than_the_rest_is_refused(study):
    row = study.user_attrs[keys.RERUN]["rows"][1]
    right = copy.deepcopy(row["runs"])
    for runs in ([right[0], right[0]], right[:1], [], [*right, {**right[0], "task": "other"}]):
        row["runs"] = runs
        assert "at rows.1: " in study.refusal()
    row["runs"] = [right[0], {**right[1], "metric": None}]
    assert "at rows.1.runs.1: " in study.refusal()
    row["runs"] = [right[0], {**right[1], "metric": None, "diverged_at": 2}]
    check_study(study)


@pytest.mark.parametrize("time", ["2024-01-01T00:00:00", "now", "\x1b[2J", 7])
def test_a_heartbeat_has_a_time_with_its_zone(time, study):
    study.trials[0].system_attrs[keys.BEAT] = [1, "2024-01-01T00:00:00+00:00"]
    check_study(study)
    study.trials[0].system_attrs[keys.BEAT] = [1, time]
    message = study.refusal()
    assert f"{keys.BEAT!r} is wrong at 1: " in message
    assert message.isprintable()


@pytest.mark.parametrize("directions", [[], [StudyDirection.MINIMIZE], [StudyDirection.MAXIMIZE] * 2])
def test_a_study_of_ours_maximizes_one_thing(directions, study):
    study.directions = directions
    assert "MAXIMIZE" in study.refusal()


@pytest.mark.parametrize("error", [ValueError("x"), KeyError(1), RecursionError(), LookupError("\x1b[2J")])
def test_rows_that_optuna_cannot_read_are_a_message(error, study):
    def get_trials(deepcopy: bool) -> list[FrozenTrial]:
        raise error

    study.get_trials = get_trials
    message = study.refusal()
    assert "the trials of study 'one' can't be read" in message
    assert type(error).__name__ in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Δ = 1·m̂/(√v̂ + 1e-08)", "Δ = 1·m̂/(√v̂ + 1e-08)"),
        ("\x1b[2J\x07\r\n\t\0", "\\x1b[2J\\x07\\r\\n\\t\\x00"),
        ("\u202eabc\u2028\ud800\x9b", "\\u202eabc\\u2028\\ud800\\x9b"),
        ("探索 🧬 [red]", "探索 🧬 [red]"),
    ],
)
def test_plain_keeps_what_is_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_plain_cuts_what_is_very_long():
    assert len(printable("x" * 10**6)) < 2100
