"""Study files of strangers: what is read is in order, what is refused says why, and no half study is left."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_studies import config, create
from stored_studies import content, made

from optevo import keys
from optevo.errors import UserError
from optevo.storage import study_file
from optevo.storage.opening import open_storage
from optevo.study.check import check_study
from optevo.study.studies import create_or_resume, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")
EARLIER = Path(__file__).parents[1] / "data" / "study_file_of_version_1.json"
JUNK = [None, True, -1, 1.5, float("nan"), 2**64, "x", "", [], {}, [None], {"a": 1}, [[1]]]


@pytest.fixture
def second(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'b.db'}"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a study of `made` lies, not to be changed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('made')}/a.db"
    made(url)
    return url


@pytest.fixture(scope="module")
def saved(database: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of that study, not to be changed."""
    path = tmp_path_factory.mktemp("saved") / "a.json"
    study_file.save_study(database, "one", path)
    return path


@pytest.fixture
def file(saved: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    path = tmp_path / "one.json"
    path.write_bytes(saved.read_bytes())
    return path


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in records), "utf-8")


# Loading


def test_a_study_that_is_there_is_never_written_over(url: str, second: str, file: Path):
    create(url)
    before = content(url)
    with pytest.raises(UserError, match="has a study 'one' already"):
        study_file.load_file(file, url)
    assert content(url) == before
    theirs = optuna.create_study(study_name="one", storage=open_storage(second, create=True))
    theirs.ask()
    with pytest.raises(UserError, match="already"):
        study_file.load_file(file, second)
    assert len(theirs.trials) == 1


@pytest.mark.parametrize(
    "where", [("create_new_trial", 0), ("create_new_trial", 4), ("set_study_user_attr", 4)], ids=str
)
def test_a_load_that_was_cut_off_is_no_study_and_is_made_anew(
    database: str, second: str, file: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[str, int]
):
    kind, (method, calls) = type(open_storage(second, create=True)), where
    real, left = getattr(kind, method), [calls]

    def dying(self: Any, *given: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, dying)
        with pytest.raises(KeyboardInterrupt):
            study_file.load_file(file, second)
    (half,) = open_storage(second).get_all_studies()
    assert keys.FINGERPRINT not in half.user_attrs
    with pytest.raises(UserError):
        load_study(open_storage(second), "one")
    with pytest.raises(UserError):
        create_or_resume(config(), open_storage(second), "cpu")
    study_file.load_file(file, second)
    assert content(second) == content(database)
    assert len(open_storage(second).get_all_studies()) == 1


def test_what_the_database_refuses_is_told(second: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    def refusing(self: Any, *given: Any, **named: Any) -> Any:
        raise optuna.exceptions.StorageInternalError("out of range")

    monkeypatch.setattr(type(open_storage(second, create=True)), "create_new_trial", refusing)
    with pytest.raises(UserError, match=r"can't hold study 'one' .*out of range"):
        study_file.load_file(file, second)


# What is no study of ours


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, second: str):
    earlier = '{\n"format":"optevo study","version":1,"trials":['
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "no file of"),
        "text": (b"hello", "no file of"),
        "list": (b"[1]", "no file of"),
        "other": (b'{"format": "another"}', "no file of"),
        "binary": (b"SQLite format 3\0\xff\xfe", "no text"),
        "deep": ((earlier + "[" * 100_000).encode(), "Recursion.*last good version"),
        "newer": (b'{"format":"optevo study","version":2,"directions":["MAXIMIZE"]}', "version is 2"),
        "none": (b'{"format":"optevo study"}', "version"),
        "bare": (b'{"format":"optevo study","version":1}', "can't be read"),
        "digits": (b'{"format":' + b"9" * 5000 + b"}", "can't be read"),
        "a line": (b'{"op_code":0,"study_name":"one","directions":[2]}\n', "lacks .*cut off"),
        "deep line": (b'{"op_code":0,"a":' + b"[" * 100_000 + b"\n", "Recursion.*last good version"),
        "no line": (b'{"op_code":0}\n', "can't be read"),
        "no study": (b'{"op_code":1,"study_id":0,"worker_id":""}\n', "can't be read"),
        "no code": (b'{"op_code":99}\n', "can't be read"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=said) as caught:
            study_file.load_file(tmp_path / name, second)
        assert str(tmp_path / name) in str(caught.value)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            study_file.load_file(missing, second)
    assert not (tmp_path / "b.db").exists()


def test_a_journal_of_several_studies_or_of_another_program_is_refused(file: Path):
    lines = records(file)
    write(file, [*lines, {**lines[0], "study_name": "two"}])
    with pytest.raises(UserError, match="can't be read"):
        study_file.read_study(file)
    write(file, [line for line in lines if "user_attr" not in line])
    with pytest.raises(UserError, match="is not optevo's"):
        study_file.read_study(file)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_file_that_was_cut_off_anywhere_is_refused(file: Path, earlier: bool):
    whole = (EARLIER if earlier else file).read_bytes()
    lines = [i + 1 for i, byte in enumerate(whole[:-3]) if byte == ord("\n")]
    for length in sorted(
        {*range(2, len(whole) - 3, 997), *lines, len(whole) - 3, len(whole) - (1 + earlier)}
    ):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut off|is no text|no file of"):
            study_file.read_study(file)


def _trial(n: int, **changes: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[n + 1].update(changes)  # the first line makes the study


def _attr(key: str, value: Any) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        (line,) = [line for line in lines if key in line.get("user_attr", ())]
        line["user_attr"] = value if isinstance(value, dict) else {key: value}

    return change


WRONG: list[tuple[str, Callable[[list[Any]], Any], str]] = [
    ("state", _trial(1, state="DONE"), "can't be read"),
    ("value", _trial(1, value="x"), "can't be read|trial 1"),
    ("no value", _trial(1, value=None), "can't be read"),
    ("two values", _trial(1, value=None, values=[1.0, 2.0]), "trial 1"),
    ("nan", _trial(1, value=float("nan")), "can't be read"),
    ("time", _trial(1, datetime_start="yesterday"), "can't be read"),
    ("no end", lambda lines: lines[2].pop("datetime_complete"), "can't be read"),
    ("params", _trial(1, params=[1]), "can't be read"),
    ("names", _trial(1, params={"nothing": 1}), "can't be read"),
    ("domain", lambda lines: lines[2]["params"].update(lr=1e9), "can't be read"),
    ("range", lambda lines: _far(lines[2]), "trial 1: 'lr'"),
    ("steps", _trial(1, intermediate_values={"a": 1.0}), "can't be read"),
    ("step", _trial(1, intermediate_values=3), "can't be read"),
    ("report", _trial(1, intermediate_values={"1": "x"}), "can't be read"),
    ("attrs", _trial(1, user_attrs=[]), "can't be read"),
    ("system attrs", _trial(1, system_attrs=3), "can't be read"),
    ("slot", lambda lines: lines[2]["user_attrs"].update({keys.SLOT: -1}), "trial 1.*slot"),
    ("claim", lambda lines: lines[2]["system_attrs"].update({keys.CLAIM: "x"}), "trial 1"),
    (
        "distribution",
        lambda lines: lines[2]["distributions"].update(lr='{"name": "Evil", "attributes": {}}'),
        "can't be read",
    ),
    ("no distribution", lambda lines: lines[2]["distributions"].pop("lr"), "can't be read"),
    ("direction", lambda lines: lines[0].update(directions=[1]), "MAXIMIZE"),
    ("directions", lambda lines: lines[0].update(directions=[]), "MAXIMIZE"),
    ("name", lambda lines: lines[0].update(study_name=None), "can't be read"),
    ("config", _attr(keys.CONFIG, {"other": 1}), keys.CONFIG),
    ("costs", _attr(keys.COSTS, 3), keys.COSTS),
    ("line", lambda lines: lines.__setitem__(2, []), "can't be read"),
    ("escape", _attr(keys.SCHEMA, {"\x1b[2J": [1]}), keys.SCHEMA),
]


def _far(line: dict[str, Any]) -> None:
    line["params"]["lr"] = 1e9
    line["distributions"]["lr"] = line["distributions"]["lr"].replace("0.1", "1e12")


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_file_with_a_wrong_value_is_refused(
    file: Path, second: str, change: Callable[[list[dict[str, Any]]], Any], said: str
):
    lines = records(file)
    change(lines)
    write(file, lines)
    with pytest.raises(UserError, match=said) as caught:
        study_file.load_file(file, second)
    assert str(file) in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not (file.parent / "b.db").exists()


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
@pytest.mark.parametrize("earlier", [False, True])
def test_a_spoilt_file_is_read_or_refused_and_what_is_read_is_in_order(file: Path, earlier: bool):
    rng, whole = random.Random(0), json.loads(EARLIER.read_text("utf-8")) if earlier else records(file)
    refused, n = 0, 150
    for _ in range(n):
        data = copy.deepcopy(whole)
        place: Any = data
        while True:
            key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.2:
                break
            place = place[key]
        place[key] = rng.choice(JUNK)
        if earlier:
            file.write_text(json.dumps(data))
        else:
            write(file, data)
        try:
            storage = study_file.read_study(file)
        except UserError:
            refused += 1
        else:
            check_study(optuna.load_study(study_name=None, storage=storage))
    assert n / 4 < refused < n


def test_an_attribute_of_any_depth_is_read_or_refused(file: Path):
    text = file.read_text("utf-8")
    for depth, fits in {10: True, 100: True, 600: False, 900: False, 5000: False}.items():
        deep = "[" * depth + "]" * depth
        file.write_text(text.replace('"winner":2', f'"winner":{deep}'))
        with pytest.raises(UserError, match="was changed" if fits else "Recursion"):
            study_file.read_study(file)


LOST, MOVED, TWICE = "lost", "moved", "twice"


def changed(lines: list[str], place: int, how: str) -> list[str]:
    """Whole lines that are lost, that change places with the next, or that stand twice."""
    before, after = lines[:place], lines[place + 1 :]
    return {
        LOST: [*before, *after],
        MOVED: [*before, *after[:1], lines[place], *after[1:]],
        TWICE: [*before, lines[place], lines[place], *after],
    }[how]


@pytest.mark.parametrize("how", [LOST, MOVED, TWICE])
def test_whole_lines_that_are_lost_moved_or_doubled_are_refused(file: Path, how: str):
    lines = file.read_text("utf-8").splitlines()
    for place in range(len(lines) - 1):
        file.write_text("\n".join([*changed(lines, place, how), ""]))
        with pytest.raises(UserError):
            study_file.read_study(file)


@pytest.mark.parametrize("how", [LOST, MOVED, TWICE])
def test_trials_of_an_earlier_file_that_are_lost_moved_or_doubled_are_refused(tmp_path: Path, how: str):
    data, changed_file = json.loads(EARLIER.read_text("utf-8")), tmp_path / "changed.json"
    whole = data["trials"]
    for place in range(len(whole) - 1):
        data["trials"] = changed(whole, place, how)
        changed_file.write_text(json.dumps(data))
        with pytest.raises(UserError):
            study_file.read_study(changed_file)
