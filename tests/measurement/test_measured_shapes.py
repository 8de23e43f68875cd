"""Measurements of another shape are refused, by the attribute's name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import optuna
import pytest
from measured_studies import a_run, put

from optevo import keys
from optevo.errors import UserError
from optevo.measurement.pool import form_of, run_key
from optevo.optim.terms.presets import PRESETS
from optevo.study.check import check_study
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")


class Stored:
    """As much of a study as is checked, and all of it can be changed."""

    def __init__(self, study: optuna.Study) -> None:
        self.study_name, self.directions, self.trials = "one", study.directions, study.trials
        self.user_attrs = json.loads(json.dumps(study.user_attrs))

    def get_trials(self, deepcopy: bool) -> list[Any]:
        return self.trials


@pytest.fixture
def whole(study: optuna.Study) -> Stored:
    put(study)
    study.set_user_attr(f"{keys.ABLATION}4:0123456789ab:0:2000", dataclasses.asdict(a_run(seed=2000)))
    return Stored(study)


RUN = run_key(f"{keys.FINAL}1:4:", form_of(PRESETS["adam"]), 0, 1000)


def test_what_is_written_passes_the_check(whole: Stored):
    check_study(whole)


@pytest.mark.parametrize("field", ["trial", "steps", "seeds", "environment"])
@pytest.mark.parametrize("value", [None, "x", -1, 1.5, [], [-1], [None], True], ids=str)
def test_a_header_of_another_shape_is_refused_by_name(whole: Stored, field: str, value: Any):
    whole.user_attrs[f"{keys.FINAL}1"][field] = value
    with pytest.raises(UserError, match="optevo:final:1") as caught:
        check_study(whole)
    assert "study 'one'" in str(caught.value)


@pytest.mark.parametrize("value", [None, {}, [3], [{"model": 1, "update": 2}], [{"model": -1}]], ids=str)
def test_operations_of_another_shape_are_refused_by_name(whole: Stored, value: Any):
    header = whole.user_attrs[f"{keys.FINAL}1"]
    whole.user_attrs[f"{keys.FINAL}flops1"] = {
        **header,
        "operations": [{"model": 1, "update": 2, "adamw": 3}] * 2,
    }
    check_study(whole)
    whole.user_attrs[f"{keys.FINAL}flops1"] = {**header, "operations": value}
    with pytest.raises(UserError, match=r"optevo:final:flops1.*operations"):
        check_study(whole)


@pytest.mark.parametrize("value", [None, [], "x", 3, {}], ids=str)
@pytest.mark.parametrize("key", [f"{keys.FINAL}1", RUN, f"{keys.ABLATION}4:0123456789ab:0:2000"])
def test_an_attribute_that_is_no_table_is_refused_by_name(whole: Stored, key: str, value: Any):
    whole.user_attrs[key] = value
    with pytest.raises(UserError, match=key):
        check_study(whole)


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(Run) if field.default is dataclasses.MISSING]
)
@pytest.mark.parametrize("key", [RUN, f"{keys.ABLATION}4:0123456789ab:0:2000"])
def test_a_run_that_lacks_a_field_is_refused_by_name(whole: Stored, key: str, field: str):
    del whole.user_attrs[key][field]
    with pytest.raises(UserError, match=key):
        check_study(whole)


@pytest.mark.parametrize("trial", [2, 99, 2**40])
def test_a_header_of_a_trial_that_is_not_there_is_refused(whole: Stored, trial: int):
    whole.user_attrs[f"{keys.FINAL}1"]["trial"] = trial
    with pytest.raises(UserError, match="optevo:final:1"):
        check_study(whole)


@pytest.mark.parametrize(
    "key",
    [
        f"{keys.FINAL}1:0123456789ab",
        f"{keys.FINAL}1:0123456789ab:zero:1000",
        f"{keys.FINAL}1:x:0:",
        f"{keys.FINAL}1:4:0123456789ab:0:{'9' * 5000}",
    ],
    ids=range(4),
)
def test_a_run_whose_name_says_no_task_and_seed_is_refused(whole: Stored, key: str):
    whole.user_attrs[key] = json.loads(json.dumps(dataclasses.asdict(a_run())))
    with pytest.raises(UserError, match="optevo:final"):
        check_study(whole)


@pytest.mark.parametrize("change", [{"task": "another"}, {"seed": 7}], ids=str)
def test_a_run_of_a_task_or_seed_that_was_not_measured_is_refused(whole: Stored, change: dict[str, Any]):
    whole.user_attrs[RUN] |= change
    with pytest.raises(UserError, match="optevo:final"):
        check_study(whole)
