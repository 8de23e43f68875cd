"""One gate for all who read a study: what one refuses, no other takes, and none ends in a traceback."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_studies import GENETIC, config
from stored_studies import content, made

from optevo import keys
from optevo.errors import UserError
from optevo.storage import study_file
from optevo.storage.copying import copy_studies
from optevo.storage.migrations import upgrade
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")
DEEP = "[" * 3000 + "]" * 3000
Change = Callable[[sqlite3.Connection], object]


def _study(key: str, text: str) -> Change:
    command = "UPDATE study_user_attributes SET value_json = ? WHERE key = ?"
    return lambda connection: connection.execute(command, (text, key))


def _trial(number: int, key: str, text: str, table: str = "trial_user_attributes") -> Change:
    def change(connection: sqlite3.Connection) -> None:
        row = (number + 1, key)
        connection.execute(f"DELETE FROM {table} WHERE trial_id = ? AND key = ?", row)
        connection.execute(f"INSERT INTO {table} (trial_id, key, value_json) VALUES (?, ?, ?)", (*row, text))

    return change


def _slot(number: int, generation: int, index: int) -> Change:
    """The claim and the lineage of a trial, which agree."""
    parts = (
        _trial(number, keys.CLAIM, json.dumps([generation, index]), "trial_system_attributes"),
        _trial(number, keys.GENERATION, str(generation)),
        _trial(number, keys.SLOT, str(index)),
    )
    return lambda connection: [part(connection) for part in parts]


def _configured(**changes: Any) -> str:
    return json.dumps({**config().to_dict(), **changes})


WRONG: dict[str, Change] = {
    "a worker that is a text": _trial(5, keys.WORKER, '"abc"'),
    "a worker without a host": _trial(5, keys.WORKER, '{"pid": 1}'),
    "a beat": _trial(5, keys.BEAT, "[1, 2]", "trial_system_attributes"),
    "runs": _trial(0, keys.RUNS, "[[]]"),
    "a value": lambda connection: connection.execute("UPDATE trial_values SET value_type = 'INF_POS'"),
    "a state": lambda connection: connection.execute("UPDATE trials SET state = 'DONE' WHERE number = 1"),
    "a time": lambda connection: connection.execute("UPDATE trials SET datetime_start = 'now'"),
    "no trial": lambda connection: connection.execute("UPDATE trials SET number = 99 WHERE number = 1"),
    "config is a list": _study(keys.CONFIG, "[]"),
    "config is null": _study(keys.CONFIG, "null"),
    "config is deep": _study(keys.CONFIG, DEEP),
    "config is empty": _study(keys.CONFIG, "{}"),
    "a population of a billion": _study(
        keys.CONFIG, _configured(sampler={**GENETIC, "population_size": 10**9})
    ),
    "a billion steps": _study(
        keys.CONFIG, _configured(evaluation={**config().to_dict()["evaluation"], "steps": 10**9})
    ),
    "schema is true": _study(keys.SCHEMA, "true"),
    "schema is a float": _study(keys.SCHEMA, f"{keys.SCHEMA_VERSION}.0"),
    "schema is huge": _study(keys.SCHEMA, "9" * 400),
    "schema is a list": _study(keys.SCHEMA, "[1]"),
    "schema is of the future": _study(keys.SCHEMA, str(keys.SCHEMA_VERSION + 1)),
    "costs are not finite": _study(keys.COSTS, '{"digits": NaN}'),
    "fingerprint is a number": _study(keys.FINGERPRINT, "7"),
    "fingerprint is no JSON": _study(keys.FINGERPRINT, "{"),
    "a slot a billion slots on": _slot(0, 0, 10**9),
    "a generation a billion generations on": _slot(0, 10**9, 0),
    "a slot beyond the population": _slot(4, 0, GENETIC["population_size"]),
    "two genomes that count in one slot": _slot(1, 0, 0),
    "a slot that another claimed": _trial(1, keys.SLOT, "0"),
}


@pytest.fixture
def database(url: str) -> str:
    """A study in a database that may be changed."""
    made(url)
    return url


def damaged(url: str, change: Change) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        change(connection)


def readers(url: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way to read a study."""
    other, file = f"sqlite:///{folder}/other.db", folder / "one.json"
    return {
        "load_study": lambda: load_study(open_storage(url), "one"),
        "resume": lambda: create_or_resume(config(), open_storage(url), "cpu"),
        "save": lambda: study_file.save_study(url, "one", file, force=True),
        "copy": lambda: list(copy_studies(url, other, force=True)),
        "copy by name": lambda: list(copy_studies(url, other, ["one"], force=True)),
        "upgrade": lambda: list(upgrade(url)),
    }


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_every_reader_refuses_what_is_no_study_of_ours(database: str, tmp_path: Path, change: Change):
    damaged(database, change)
    reading = readers(database, tmp_path)
    del reading["copy by name"]  # the same
    for name, read in reading.items():
        with pytest.raises(UserError) as caught:
            read()
        assert re.search("'one'|list of studies|is damaged", str(caught.value)), name
        assert not (tmp_path / "one.json").exists()
        assert not (tmp_path / "other.db").exists()


def test_every_reader_takes_what_is_in_order(database: str, tmp_path: Path):
    for read in readers(database, tmp_path).values():
        read()
        (tmp_path / "other.db").unlink(missing_ok=True)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"sampler": []}', '{"evaluation": 3, "sampler": {}}', DEEP]
)
def test_an_older_study_that_is_damaged_is_not_upgraded(database: str, version: str, text: str):
    damaged(database, _study(keys.SCHEMA, version))
    damaged(database, _study(keys.CONFIG, text))
    with pytest.raises(UserError, match=r"study 'one'|list of studies"):
        list(upgrade(database))
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        stored = connection.execute(
            "SELECT value_json FROM study_user_attributes WHERE key = ?", (keys.SCHEMA,)
        )
        assert stored.fetchall() == [(version,)]


def test_a_copy_that_was_cut_off_is_called_so_by_every_reader(database: str, tmp_path: Path):
    damaged(
        database,
        lambda connection: connection.executescript(
            f"DELETE FROM study_user_attributes WHERE key IN ('{keys.FINGERPRINT}', '{keys.CONFIG}');"
            "INSERT INTO study_user_attributes (study_id, key, value_json)"
            f"VALUES (1, '{keys.COPY_OF}', '\"sqlite:///a.db\"')"
        ),
    )
    reading = readers(database, tmp_path)
    for name in ("load_study", "resume", "save", "copy by name"):
        with pytest.raises(UserError, match="copy that was cut off"):
            reading[name]()
    assert "copy that was cut off; left as it is" in "".join(upgrade(database))
    lines = []
    with pytest.raises(UserError, match="holds no study"):
        lines += copy_studies(database, f"sqlite:///{tmp_path}/other.db")


def test_a_twin_that_an_outage_made_counts_once_and_is_kept(database: str, tmp_path: Path):
    study, _ = load_study(open_storage(database), "one")
    study.add_trial(study.get_trials(deepcopy=True)[0])
    study_file.save_study(database, "one", tmp_path / "one.json")
    again = study_file.read_study(tmp_path / "one.json")
    assert content(again) == content(database)
    load_study(again, "one")


def test_a_study_that_was_begun_and_cut_off_is_no_study_yet(url: str, tmp_path: Path):
    storage = open_storage(url, create=True)
    study = optuna.create_study(study_name="one", storage=storage, direction="maximize")
    study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)
    for key in (keys.SCHEMA, keys.CONFIG):
        study.set_user_attr(key, keys.SCHEMA_VERSION if key == keys.SCHEMA else config().to_dict())
        for name in ("load_study", "save", "copy by name"):
            with pytest.raises(UserError, match="its creation was cut off: `optevo run`"):
                readers(url, tmp_path)[name]()
    create_or_resume(config(), storage, "cpu")
    load_study(storage, "one")


# Files


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("saved")
    made(f"sqlite:///{folder}/a.db")
    study_file.save_study(f"sqlite:///{folder}/a.db", "one", folder / "one.json", force=True)
    return (folder / "one.json").read_text("utf-8")


def forged(text: str, change: Callable[[list[dict[str, Any]]], object]) -> str:
    """A file that was changed by somebody who knows how its digest is made."""
    lines = [json.loads(line) for line in text.splitlines()]
    (place,) = [n for n, line in enumerate(lines) if keys.LINES in line.get("system_attr", ())]
    del lines[place]
    change(lines)
    *others, last = [json.dumps(line, separators=(",", ":")) for line in lines]
    return signed([*others, last])


def signed(lines: list[str]) -> str:
    *others, last = lines
    return "\n".join([*others, study_file._digest_line(others), last, ""])


def _of(key: str, value: Any) -> Callable[[list[dict[str, Any]]], object]:
    def change(lines: list[dict[str, Any]]) -> None:
        (line,) = [line for line in lines if key in line.get("user_attr", ())]
        line["user_attr"][key] = value

    return change


def _moved(lines: list[dict[str, Any]]) -> None:
    attrs = lines[2]["user_attrs"]
    attrs[keys.GENERATION], attrs[keys.SLOT] = lines[2]["system_attrs"][keys.CLAIM] = [0, 0]


def test_a_file_that_is_forged_without_a_change_is_the_file(saved: str):
    assert forged(saved, lambda lines: None) == saved


@pytest.mark.parametrize(
    "change",
    [
        _of(keys.CONFIG, {**config().to_dict(), "sampler": {**GENETIC, "population_size": 10**9}}),
        _of(keys.CONFIG, []),
        _of(keys.CONFIG, {}),
        _of(keys.SCHEMA, True),
        _of(keys.SCHEMA, keys.SCHEMA_VERSION + 1),
        _of(keys.SCHEMA, None),
        _moved,
        lambda lines: lines[3]["system_attrs"].update({keys.CLAIM: [10**9, 0]}),
        lambda lines: lines[6]["user_attrs"].update({keys.WORKER: "abc"}),
    ],
)
def test_what_show_would_refuse_is_not_loaded(
    saved: str, tmp_path: Path, change: Callable[[list[dict[str, Any]]], object]
):
    (tmp_path / "one.json").write_text(forged(saved, change), "utf-8")
    with pytest.raises(UserError, match="one"):
        study_file.load_file(tmp_path / "one.json", f"sqlite:///{tmp_path}/b.db")
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize(
    ("name", "twice"),
    [
        ("value", '"value":0.1,"value":'),
        (keys.SLOT, f'"{keys.SLOT}":1,"{keys.SLOT}":'),
        ("op_code", '"op_code":4,"op_code":'),
    ],
)
def test_a_name_that_stands_twice_in_one_table_is_refused(saved: str, tmp_path: Path, name: str, twice: str):
    lines = [line for line in saved.splitlines() if keys.LINES not in line]
    lines[2] = lines[2].replace(f'"{name}":', twice, 1)
    (tmp_path / "one.json").write_text(signed(lines), "utf-8")
    with pytest.raises(UserError, match=f"'{name}' stands twice"):
        study_file.read_study(tmp_path / "one.json")
