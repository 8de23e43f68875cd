"""A user's own data in a study file: what is read and refused, and that changed data are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from small_studies import config

from optevo import keys
from optevo.errors import UserError
from optevo.study.config import parse_config
from optevo.study.studies import check_environment, create_or_resume
from optevo.training.benches import make_bench

TABLE = {"kind": "table", "name": "wine", "path": "wine.csv", "options": {"target": "y", "sizes": [8, 8]}}


def test_names_and_kinds_may_stand_in_one_list():
    one = config(evaluation__tasks=["digits", TABLE, {"name": "mnist", "options": {"train_examples": 9}}])
    assert [task.kind for task in one.evaluation.tasks] == [None, "table", None]
    assert one.evaluation.tasks[1].path == "wine.csv"
    assert one.evaluation.tasks[1].options["sizes"] == [8, 8]
    assert parse_config(one.to_dict(), "stored") == one
    stored = one.to_dict()["evaluation"]["tasks"]
    assert stored[0] == {"name": "digits", "options": {}}  # as before there were kinds
    assert str(one.evaluation.tasks[1]) == "wine kind=table path=wine.csv target=y sizes=[8, 8]"
    assert str(one.evaluation.tasks[2]) == "mnist train_examples=9"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "tabel"}, "kind = \"tabel\": unknown kind of data: did you mean 'table'"),
        ({"path": None}, "data of the kind 'table' have a path"),
        ({"kind": None}, "unknown task 'wine'"),
        ({"kind": None, "name": "digits"}, "say with kind what lies there: images, table, text"),
        ({"name": "digits"}, "not the name of a built-in task"),
        ({"name": "a:b"}, "expected letters, digits"),
        ({"pth": "x"}, "did you mean 'evaluation.tasks.0.path'"),
        (
            {"target": "y"},
            "unknown key 'evaluation.tasks.0.target': options belong in 'evaluation.tasks.0.options'",
        ),
        ({"options": {"target": {"a": 1}}}, "expected text, a finite number"),
    ],
)
def test_what_is_wrong_is_named(task: dict[str, Any], said: str):
    given = {key: value for key, value in {**TABLE, **task}.items() if value is not None}
    with pytest.raises(UserError) as told:
        config(evaluation__tasks=[given])
    assert "evaluation.tasks.0" in str(told.value)
    assert said in str(told.value)


def test_other_data_are_other_surroundings_and_may_be_accepted():
    one, storage = config(evaluation__tasks=[TABLE]), InMemoryStorage()
    study = create_or_resume(one, storage, "cpu", data={"wine": "aaa"})
    assert study.user_attrs[keys.ENVIRONMENT]["data"] == {"wine": "aaa"}
    create_or_resume(one, storage, "cpu", data={"wine": "aaa"})
    for resume in (
        lambda: create_or_resume(one, storage, "cpu", data={"wine": "bbb"}),
        lambda: check_environment(study, {"wine": "bbb"}),
    ):
        with pytest.raises(UserError, match="data of wine: aaa → bbb"):
            resume()
    check_environment(study)  # of who has no data
    create_or_resume(one, storage, "cpu", data={"wine": "bbb"}, accept_environment=True)
    check_environment(study, {"wine": "bbb"})
    check_environment(study, {"wine": "aaa"})
    with pytest.raises(UserError, match="data of wine: aaa → ccc"):
        check_environment(study, {"wine": "ccc"})


def test_a_study_without_such_data_compares_none():
    storage = InMemoryStorage()
    study = create_or_resume(config(), storage, "cpu", data={})
    assert "data" not in study.user_attrs[keys.ENVIRONMENT]
    check_environment(study, {"wine": "aaa"})


def test_a_bench_tells_the_identity_of_data_that_have_one(tmp_path: Path):
    (tmp_path / "wine.csv").write_text("x,y\n" + "".join(f"{i % 7},{'ab'[i % 2]}\n" for i in range(200)))
    bench = make_bench(config(evaluation__tasks=["digits", TABLE]), "cpu", tmp_path)
    assert [*bench.identities()] == ["wine"]
    first = bench.identities()
    (tmp_path / "wine.csv").write_text((tmp_path / "wine.csv").read_text() + "1,a\n")
    again = make_bench(config(evaluation__tasks=["digits", TABLE]), "cpu", tmp_path)
    assert again.identities() != first
