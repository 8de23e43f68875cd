"""Studies kept as text files: nothing is lost, nothing is believed, and nothing half done is left."""

from __future__ import annotations

import copy
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from postgres import Postgres
from small_studies import config, create, dead_worker, finish, fitness
from typer.testing import CliRunner

from optevo import keys
from optevo.cli import main as cli
from optevo.errors import UserError
from optevo.liveness.lost import worker_identity
from optevo.storage import study_file as dump
from optevo.storage import study_format
from optevo.storage.copying import copy_studies
from optevo.storage.opening import open_storage
from optevo.study.check import check_study
from optevo.study.studies import create_or_resume, is_complete
from optevo.study.studies import load_study as load_stored

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def made(url: str, *, worker: dict[str, Any] | None = None) -> optuna.Study:
    """A study with trials of every state and all that a trial may hold: two are running, one waits."""
    study = create(url)
    study.set_user_attr("a note", {"winner": 2, "ünïcode": [1.5, None, "\ud800", "\u2028"], "a": {}})
    study.set_user_attr("not finite", [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 2**70])
    study._storage.set_study_system_attr(study._study_id, "dashboard:note", "a\nnote")
    space = config().make_space()
    for n in range(7):
        trial = study.ask()
        space.suggest(trial)
        if n % 2:
            trial.suggest_categorical("another", ["g", "m", None, True, 3])
        trial.set_user_attr(keys.CANONICAL, f"form {n}")
        trial.set_user_attr("anything", [{"task": "digits", "metric": 0.1 + 0.2, "loss": float("inf")}])
        for step, value in ((1, float("-inf")), (10, float("nan")), (100, 0.5)):
            trial.report(value, step)
        if n < 3:
            study.tell(trial, 0.1 * n)
        elif n < 5:
            study.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[n - 3])
    for n in (5, 6):
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, n)
        study._storage.set_trial_user_attr(trial_id, keys.WORKER, worker or dead_worker())
    study.enqueue_trial({"another": None})
    return study


def content(url: str, name: str = "one") -> list[str]:
    """All of a study, a trial an entry, with those that run as a copy has them."""
    storage = open_storage(url)
    study_id = storage.get_study_id_from_name(name)
    attrs = storage.get_study_user_attrs(study_id)
    attrs.pop(keys.COPY_OF, None)
    system = storage.get_study_system_attrs(study_id)
    entries = [repr((storage.get_study_directions(study_id), sorted(attrs.items()), sorted(system.items())))]
    for trial in storage.get_all_trials(study_id):
        if trial.state == TrialState.RUNNING or keys.LOST in trial.system_attrs:
            trial.state, trial.datetime_complete = TrialState.FAIL, None
            trial.system_attrs.pop(keys.LOST, None)
        tables = (trial.params, trial.distributions, trial.user_attrs, trial.system_attrs)
        times = (trial.datetime_start, trial.datetime_complete, sorted(trial.intermediate_values.items()))
        plain = [sorted(table.items()) for table in tables]
        entries.append(repr((trial.number, trial.state, trial.values, *plain, *times)))
    return entries


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "one.json"


@pytest.fixture
def second(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'b.db'}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a file of `made` holds."""
    folder = tmp_path_factory.mktemp("saved")
    made(f"sqlite:///{folder}/a.db")
    dump.save_study(f"sqlite:///{folder}/a.db", "one", folder / "a.json")
    return json.loads((folder / "a.json").read_text("utf-8"))


# What is kept


def test_a_file_keeps_everything_and_fails_what_was_running(url: str, second: str, file: Path):
    made(url)
    before = content(url)
    said = dump.save_study(url, "one", file)
    assert said.startswith(f"wrote {file}: study 'one', 8 trials, ")
    assert said.endswith("2 of them were running and are failed ones")
    assert dump.load_file(file, second).endswith(", 2 of them were running and have failed now")
    assert content(url) == before == content(second)
    study, stored = load_stored(open_storage(second), "one")
    assert stored == config()
    assert study.metric_names == ["fitness"]
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "FAIL", "FAIL", "FAIL", "WAITING"]
    assert study.user_attrs[keys.COPY_OF] == str(file)


def test_a_study_goes_on_from_its_file_as_it_would_have(url: str, second: str, file: Path):
    study = create(url)
    study.optimize(fitness, n_trials=8)
    dump.save_study(url, "one", file)
    dump.load_file(file, second)
    again = create_or_resume(config(), open_storage(second), "cpu")
    assert finish(study) == finish(again)
    dump.save_study(second, "one", file)
    dump.load_file(file, second.replace("b.db", "c.db"))
    assert is_complete(load_stored(open_storage(second.replace("b.db", "c.db")), "one")[0])


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql_takes_and_gives_the_same_file(url: str, file: Path, postgres: Postgres):
    made(url)
    dump.save_study(url, "one", file)
    elsewhere = postgres.fresh_url()
    dump.load_file(file, elsewhere)
    assert content(elsewhere) == content(url)
    dump.save_study(elsewhere, "one", file.with_name("2.json"))
    dump.load_file(file.with_name("2.json"), url.replace("a.db", "c.db"))
    assert content(url.replace("a.db", "c.db")) == content(url)


def test_the_same_study_gives_the_same_bytes(url: str, second: str, file: Path):
    finish(create(url))
    dump.save_study(url, "one", file)
    first = file.read_bytes()
    dump.save_study(url, "one", file)
    assert file.read_bytes() == first
    dump.load_file(file, second)
    dump.save_study(second, "one", file)
    assert file.read_bytes() == first
    assert keys.COPY_OF.encode() not in first


def test_a_file_is_read_without_a_database(url: str, file: Path):
    made(url)
    dump.save_study(url, "one", file)
    study, stored = load_stored(dump.read_study(file), None)
    assert stored == config()
    theirs = optuna.load_study(study_name="one", storage=open_storage(url)).trials
    assert [(t.number, t.state, t.values, t.params) for t in study.trials] == [
        (t.number, t.state, t.values, t.params) for t in theirs
    ]


def test_a_trial_is_a_line_and_distributions_are_written_once(url: str, file: Path):
    finish(create(url))
    dump.save_study(url, "one", file)
    lines = file.read_text("utf-8").split("\n")
    trials = lines[lines.index('"trials":[') + 1 : -3]
    assert [json.loads(line.rstrip(","))["number"] for line in trials] == [*range(len(trials))]
    assert all(isinstance(json.loads(line.rstrip(","))["params"], list) for line in trials)
    assert "Distribution" not in "".join(trials)
    json.loads(file.read_text("utf-8"), parse_constant=pytest.fail)  # no NaN: any JSON reader takes it


def test_a_trial_with_other_parameters_or_ranges_keeps_them(url: str, second: str, file: Path):
    study = create(url)
    study.add_trial(create_trial(state=TrialState.FAIL))
    for high in (1.0, 2.0, 1.0):
        study.add_trial(
            create_trial(
                state=TrialState.FAIL,
                params={"x": 0.1 + 0.2},
                distributions={"x": FloatDistribution(0, high)},
            )
        )
    dump.save_study(url, "one", file)
    dump.load_file(file, second)
    assert content(second) == content(url)
    assert file.read_text("utf-8").count("FloatDistribution") == 2


def test_any_float_comes_back_to_the_last_bit(url: str, second: str, file: Path):
    study, rng = create(url), random.Random(0)
    values = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(500)]
    study.set_user_attr("floats", values)
    dump.save_study(url, "one", file)
    dump.load_file(file, second)
    assert optuna.load_study(study_name="one", storage=open_storage(second)).user_attrs["floats"] == values


def test_a_study_without_trials_is_kept(url: str, second: str, file: Path):
    create(url)
    assert "0 trials" in dump.save_study(url, "one", file)
    dump.load_file(file, second)
    assert content(second) == content(url)


# Saving


def test_what_could_not_be_read_back_is_not_written(url: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    """A text with a loss, were there a fault of ours."""
    made(url)
    row = study_format._row
    monkeypatch.setattr(study_format, "_row", lambda *given: {**row(*given), "intermediate": []})
    with pytest.raises(UserError, match=r"without a loss: .*optevo storage copy"):
        dump.save_study(url, "one", file)
    assert not file.exists()


def test_attributes_of_others_that_are_nested_too_deeply_are_not_written(url: str, file: Path):
    study, deep = create(url), []
    for _ in range(study_format.DEEPEST):
        deep = [deep]
    study.set_user_attr("theirs", deep)
    with pytest.raises(UserError, match="without a loss: it nests"):
        dump.save_study(url, "one", file)


@pytest.mark.parametrize("name", ["two", "theirs"])
def test_only_studies_of_ours_are_saved(url: str, file: Path, name: str):
    create(url)
    optuna.create_study(study_name="theirs", storage=open_storage(url))
    with pytest.raises(UserError, match=r"no study 'two'.*one|not made by optevo"):
        dump.save_study(url, name, file)
    assert not file.exists()


def test_a_study_with_live_workers_is_saved_by_force_only(url: str, second: str, file: Path):
    made(url, worker=worker_identity())
    with pytest.raises(UserError, match=r"worked on \(trials 5, 6\).*--force"):
        dump.save_study(url, "one", file)
    assert not file.exists()
    dump.save_study(url, "one", file, force=True)
    dump.load_file(file, second)
    assert content(second) == content(url)


def test_a_database_that_is_not_there_is_not_made(url: str, file: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no database"):
        dump.save_study(url, "one", file)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_over_whole_or_not_at_all(url: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    create(url)
    file.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            dump.save_study(url, "one", file)
    assert file.read_text() == "before"
    assert [path.name for path in file.parent.glob("*json*")] == [file.name]
    link = file.with_name("link.json")
    link.symlink_to(file)
    dump.save_study(url, "one", link)
    assert link.is_symlink()
    assert file.read_text("utf-8").startswith('{\n"format":"optevo study"')
    fresh = file.with_name("fresh")
    fresh.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)


def test_a_place_where_no_file_can_be_is_told(url: str, tmp_path: Path):
    create(url)
    with pytest.raises(UserError, match="is no file"):
        dump.save_study(url, "one", tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        dump.save_study(url, "one", tmp_path / "nowhere" / "a.json")


# Loading


def test_a_study_that_is_there_is_never_written_over(url: str, second: str, file: Path):
    made(url)
    dump.save_study(url, "one", file)
    before = content(url)
    with pytest.raises(UserError, match="has a study 'one' already"):
        dump.load_file(file, url)
    assert content(url) == before
    theirs = optuna.create_study(study_name="one", storage=open_storage(second, create=True))
    theirs.ask()
    with pytest.raises(UserError, match="already"):
        dump.load_file(file, second)
    assert len(theirs.trials) == 1


@pytest.mark.parametrize(
    "where",
    [
        ("create_new_trial", 4),
        pytest.param(("create_new_trial", 0), marks=pytest.mark.slow),
        pytest.param(("set_study_user_attr", 4), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_load_that_was_cut_off_is_no_study_and_is_made_anew(
    url: str, second: str, file: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[str, int]
):
    made(url)
    dump.save_study(url, "one", file)
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
            dump.load_file(file, second)
    (half,) = open_storage(second).get_all_studies()
    assert keys.FINGERPRINT not in half.user_attrs
    with pytest.raises(UserError):
        load_stored(open_storage(second), "one")
    with pytest.raises(UserError):
        create_or_resume(config(), open_storage(second), "cpu")
    dump.load_file(file, second)
    assert content(second) == content(url)
    assert len(open_storage(second).get_all_studies()) == 1


def test_what_the_database_refuses_is_told(
    url: str, second: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    made(url)
    dump.save_study(url, "one", file)

    def refusing(self: Any, *given: Any, **named: Any) -> Any:
        raise optuna.exceptions.StorageInternalError("out of range")

    monkeypatch.setattr(type(open_storage(second, create=True)), "create_new_trial", refusing)
    with pytest.raises(UserError, match=r"can't hold study 'one' .*out of range"):
        dump.load_file(file, second)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, second: str):
    text = '{\n"format":"optevo study","version":1,"trials":[' + "[" * 100_000
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "no file of"),
        "text": (b"hello", "no file of"),
        "list": (b"[1]", "no file of"),
        "other": (b'{"format": "another"}', "no file of"),
        "binary": (b"SQLite format 3\0\xff\xfe", "no text"),
        "deep": (text.encode(), "nests"),
        "newer": (b'{"format":"optevo study","version":2,"new":1}', "version 2.*install a newer one"),
        "none": (b'{"format":"optevo study"}', "version is None.*last good version"),
        "true": (b'{"format":"optevo study","version":true}', "version is True"),
        "bare": (b'{"format":"optevo study","version":1}', "can't be read"),
        "digits": (b'{"format":' + b"9" * 5000 + b"}", "no JSON"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=said) as caught:
            dump.load_file(tmp_path / name, second)
        assert str(tmp_path / name) in str(caught.value)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            dump.load_file(missing, second)
    assert not (tmp_path / "b.db").exists()


def test_a_file_that_was_cut_off_anywhere_is_refused(url: str, second: str, file: Path):
    made(url)
    dump.save_study(url, "one", file)
    whole = file.read_bytes()
    for length in range(2, len(whole) - 2, 97):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"perhaps cut off|is no text"):
            dump.read_study(file)
    assert not (file.parent / "b.db").exists()


WRONG: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("number", lambda d: d["trials"][2].update(number=3), "trial 2.*number 3"),
    ("gap", lambda d: d["trials"].pop(1), "trial 1"),
    ("state", lambda d: d["trials"][1].update(state="DONE"), "trial 1"),
    ("value", lambda d: d["trials"][1].update(values=["x"]), "trial 1"),
    ("no value", lambda d: d["trials"][1].pop("values"), "trial 1"),
    ("two values", lambda d: d["trials"][1].update(values=[1.0, 2.0]), "trial 1"),
    ("nan", lambda d: d["trials"][1].update(values=[float("nan")]), "trial 1"),
    ("time", lambda d: d["trials"][1].update(start="yesterday"), "trial 1"),
    ("zone", lambda d: d["trials"][1].update(start="2024-01-01T00:00:00+00:00"), "time zone"),
    ("no end", lambda d: d["trials"][1].pop("complete"), "trial 1"),
    ("params", lambda d: d["trials"][1].update(params=[1]), "trial 1"),
    ("names", lambda d: d["trials"][1].update(params={"nothing": 1}), "trial 1"),
    ("domain", lambda d: d["trials"][0]["params"].update(lr=1e9), "trial 0"),
    ("steps", lambda d: d["trials"][1].update(intermediate=[["a", 1.0]]), "trial 1"),
    ("large step", lambda d: d["trials"][1].update(intermediate=[[2**63, 1.0]]), "trial 1"),
    ("step", lambda d: d["trials"][1].update(intermediate=3), "trial 1"),
    ("row", lambda d: d["trials"].__setitem__(1, []), "trial 1"),
    ("attrs", lambda d: d["trials"][1].update(user_attrs=[]), "trial 1"),
    ("slot", lambda d: d["trials"][1]["user_attrs"].update({keys.SLOT: -1}), "trial 1.*slot"),
    ("claim", lambda d: d["trials"][1]["system_attrs"].update({keys.CLAIM: "x"}), "trial 1"),
    ("trials", lambda d: d.update(trials={}), "the trials"),
    (
        "distribution",
        lambda d: d["distributions"].update(lr={"name": "Evil", "attributes": {}}),
        "distributions",
    ),
    ("arguments", lambda d: d["distributions"]["lr"]["attributes"].update(low="x"), "distributions"),
    ("direction", lambda d: d.update(directions=["MINIMIZE"]), "directions"),
    ("directions", lambda d: d.update(directions=[]), "directions"),
    ("name", lambda d: d.update(name=None), "the study"),
    ("no attrs", lambda d: d.pop("user_attrs"), "the study"),
    ("config", lambda d: d["user_attrs"].pop(keys.CONFIG), keys.CONFIG),
    ("fingerprint", lambda d: d["user_attrs"].pop(keys.FINGERPRINT), keys.FINGERPRINT),
    ("costs", lambda d: d["user_attrs"].update({keys.COSTS: 3}), keys.COSTS),
    ("escape", lambda d: d["trials"][1].update(state="\x1b[2J"), r"\\x1b"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_file_with_a_wrong_value_is_refused_with_its_place(
    saved: dict[str, Any], file: Path, second: str, change: Callable[[dict[str, Any]], Any], said: str
):
    data = copy.deepcopy(saved)
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match=said) as caught:
        dump.load_file(file, second)
    assert str(file) in str(caught.value)
    assert not (file.parent / "b.db").exists()


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_a_spoilt_file_is_read_or_refused_and_what_is_read_is_in_order(saved: dict[str, Any], file: Path):
    rng = random.Random(0)
    junk = [None, True, -1, 1.5, float("nan"), 2**64, "x", "", [], {}, [None], {"a": 1}, [[1]]]
    refused = 0
    for _ in range(300):
        data = copy.deepcopy(saved)
        place: Any = data
        while True:
            key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.2:
                break
            place = place[key]
        place[key] = rng.choice(junk)
        file.write_text(json.dumps(data))
        try:
            storage = dump.read_study(file)
        except UserError:
            refused += 1
        else:
            check_study(optuna.load_study(study_name=None, storage=storage))
    assert 100 < refused < 300


def test_an_attribute_of_any_depth_is_read_or_refused(saved: dict[str, Any], file: Path, second: str):
    for depth in (10, study_format.DEEPEST - 3, study_format.DEEPEST, 300, 900, 5000):
        text = json.dumps({**saved, "user_attrs": {**saved["user_attrs"], "deep": 0}})
        file.write_text(text.replace('"deep": 0', '"deep": ' + "[" * depth + "]" * depth))
        if depth < study_format.DEEPEST - 2:
            dump.load_file(file, second.replace("b.db", f"{depth}.db"))
        else:
            with pytest.raises(UserError, match="nests"):
                dump.load_file(file, second)


# Commands


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    return done.exit_code, done.output


def test_the_commands_save_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTEVO_STORAGE", raising=False)
    finish(create("sqlite:///optevo.db"))
    status, text = run("storage", "save", "one", "--output", "one.json")
    assert (status, "wrote one.json: study 'one'" in text) == (0, True)
    status, text = run("storage", "load", "one.json", "--storage", "sqlite:///b.db")
    assert (status, "trials loaded into sqlite:///b.db" in text) == (0, True)
    status, text = run("storage", "load", "one.json")
    assert (status, "already" in text) == (2, True)
    status, text = run("storage", "load", "missing.json")
    assert (status, "cannot read missing.json" in text) == (2, True)
    first, other = (run(*command.split()) for command in ("show best", "show best --storage sqlite:///b.db"))
    assert first == other
    assert first[0] == 0
    first, other = (run(*command.split()) for command in ("status", "status --storage sqlite:///b.db"))
    assert first == other
    assert "complete" in first[1]
    assert list(copy_studies("sqlite:///b.db", "sqlite:///c.db")) == [
        f"study 'one': {len(load_stored(open_storage('sqlite:///b.db'), 'one')[0].trials)} trials copied"
    ]
