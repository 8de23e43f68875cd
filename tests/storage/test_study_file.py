"""Studies kept as text files: nothing is lost, Optuna opens them, and each is written whole or not at all."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from small_studies import config, create, finish, fitness
from stored_studies import content, made
from typer.testing import CliRunner

from optevo import keys
from optevo.cli import main as cli
from optevo.errors import UserError
from optevo.liveness.lost import worker_identity
from optevo.storage import study_file
from optevo.storage.copying import copy_studies
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")
EARLIER = Path(__file__).parents[1] / "data" / "study_file_of_version_1.json"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "one.json"


@pytest.fixture
def second(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'b.db'}"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a study of `made` lies, not to be changed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('made')}/a.db"
    made(url)
    return url


# What is kept


def test_a_file_keeps_everything_and_fails_what_was_running(database: str, second: str, file: Path):
    before = content(database)
    said = study_file.save_study(database, "one", file)
    assert said.startswith(f"wrote {file}: study 'one', 8 trials, ")
    assert said.endswith("2 of them were running and are failed ones")
    assert study_file.load_file(file, second) == f"study 'one': 8 trials loaded into {second}"
    assert content(database) == before == content(study_file.read_study(file)) == content(second)
    study, stored = load_study(open_storage(second), "one")
    assert stored == config()
    assert study._storage.get_study_system_attrs(study._study_id)[keys.OBJECTIVE_NAMES] == ["fitness"]
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "FAIL", "FAIL", "FAIL", "WAITING"]
    assert study.user_attrs[keys.COPY_OF] == str(file)


def test_a_file_is_a_journal_of_optunas_and_is_only_read(database: str, file: Path):
    """As optuna-dashboard opens it."""
    study_file.save_study(database, "one", file)
    before = file.read_bytes()
    assert content(JournalStorage(JournalFileBackend(str(file)))) == content(database)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before
    storage_of = pytest.importorskip("optuna_dashboard._storage_url").get_storage
    assert content(storage_of(str(file))) == content(database)


def test_a_study_goes_on_from_its_file_as_it_would_have(url: str, second: str, file: Path):
    study = create(url)
    study.optimize(fitness, n_trials=8)
    study_file.save_study(url, "one", file)
    study_file.load_file(file, second)
    again = create_or_resume(config(), open_storage(second), "cpu")
    assert finish(study) == finish(again)


def test_the_same_study_gives_the_same_bytes(url: str, second: str, file: Path):
    study = made(url)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    study_file.save_study(url, "one", file)
    first = file.read_bytes()
    study_file.load_file(file, second)
    study_file.save_study(second, "one", file)
    assert file.read_bytes() == first
    assert keys.COPY_OF.encode() not in first


def test_a_trial_is_a_line_after_the_earlier_ones(url: str, file: Path):
    study = create(url)
    for n in range(3):
        study.optimize(fitness, n_trials=1)
        study_file.save_study(url, "one", file)
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert ["params" in line for line in lines[1 : n + 3]] == [True] * (n + 1) + [False]
        json.loads(file.read_text("utf-8").splitlines()[1], parse_constant=pytest.fail)  # any reader takes it


def test_a_trial_with_other_parameters_or_ranges_keeps_them(url: str, file: Path):
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
    study_file.save_study(url, "one", file)
    assert content(study_file.read_study(file)) == content(url)


def test_any_float_comes_back_to_the_last_bit(url: str, file: Path):
    study, rng = create(url), random.Random(0)
    values = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(500)]
    study.set_user_attr("floats", values)
    study_file.save_study(url, "one", file)
    (again,) = study_file.read_study(file).get_all_studies()
    assert again.user_attrs["floats"] == values


def test_a_study_without_trials_is_kept(url: str, second: str, file: Path):
    create(url)
    assert "0 trials" in study_file.save_study(url, "one", file)
    study_file.load_file(file, second)
    assert content(second) == content(url)


# Files of earlier versions


def test_a_file_of_version_1_is_loaded_and_saved_anew_without_a_loss(second: str, file: Path):
    stored = json.loads(EARLIER.read_text("utf-8"))
    assert study_file.load_file(EARLIER, second).endswith(", 2 of them were running and have failed now")
    assert content(second) == content(study_file.read_study(EARLIER))
    study, kept = load_study(open_storage(second), "one")
    assert kept == config()
    attrs = {key: value for key, value in study.user_attrs.items() if key != keys.COPY_OF}
    assert repr(sorted(attrs.items())) == repr(sorted(stored["user_attrs"].items()))
    for trial, row in zip(study.trials, stored["trials"], strict=True):
        assert trial.number == row["number"]
        assert trial.state.name == row["state"].replace("RUNNING", "FAIL")
        assert trial.values == row.get("values")
        params = row.get("params", {})
        assert [*trial.params.values()] == (params if isinstance(params, list) else [*params.values()])
        assert trial.user_attrs == row.get("user_attrs", {})
        assert repr([*trial.intermediate_values.items()]) == repr([*map(tuple, row.get("intermediate", ()))])
        assert trial.datetime_start == (row.get("start") and trial.datetime_start.fromisoformat(row["start"]))
    study_file.save_study(second, "one", file)
    assert content(study_file.read_study(file)) == content(second)


# Saving


def test_what_could_not_be_read_back_is_not_written(
    database: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    """A text with a loss, were there a fault of ours."""
    real = study_file._Lines.text
    monkeypatch.setattr(study_file._Lines, "text", lambda self: real(self).replace("0.5", "0.25"))
    with pytest.raises(UserError, match=r"without a loss: .*optevo storage copy"):
        study_file.save_study(database, "one", file)
    assert not file.exists()


def test_attributes_of_others_that_are_nested_too_deeply_are_not_written(url: str, file: Path):
    study, deep = create(url), []
    for _ in range(600):
        deep = [deep]
    study._storage.set_study_user_attr(study._study_id, "theirs", deep)
    with pytest.raises(UserError, match=r"study 'one' .*Recursion"):
        study_file.save_study(url, "one", file)


@pytest.mark.parametrize("name", ["two", "theirs"])
def test_only_studies_of_ours_are_saved(url: str, file: Path, name: str):
    create(url)
    optuna.create_study(study_name="theirs", storage=open_storage(url))
    with pytest.raises(UserError, match=r"no study 'two'.*one|not made by optevo"):
        study_file.save_study(url, name, file)
    assert not file.exists()


def test_a_study_with_live_workers_is_saved_by_force_only(url: str, file: Path):
    made(url, worker=worker_identity())
    with pytest.raises(UserError, match=r"worked on \(trials 5, 6\).*--force"):
        study_file.save_study(url, "one", file)
    assert not file.exists()
    study_file.save_study(url, "one", file, force=True)
    assert content(study_file.read_study(file)) == content(url)


def test_a_database_that_is_not_there_is_not_made(url: str, file: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no database"):
        study_file.save_study(url, "one", file)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_over_whole_or_not_at_all(
    database: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    file.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            study_file.save_study(database, "one", file)
    assert file.read_text() == "before"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    link = file.with_name("link.json")
    link.symlink_to(file)
    study_file.save_study(database, "one", link)
    assert link.is_symlink()
    assert file.read_text("utf-8").startswith('{"op_code":0,')
    fresh = file.with_name("fresh")
    fresh.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)


def test_a_place_where_no_file_can_be_is_told(database: str, tmp_path: Path):
    with pytest.raises(UserError, match="is no file"):
        study_file.save_study(database, "one", tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        study_file.save_study(database, "one", tmp_path / "nowhere" / "a.json")


# Commands


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    return done.exit_code, done.output


def test_the_commands_save_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTEVO_STORAGE", raising=False)
    study = create("sqlite:///optevo.db")
    study.optimize(fitness, n_trials=7)
    status, text = run("storage", "save", "one", "--output", "one.json")
    assert (status, "wrote one.json: study 'one'" in text) == (0, True)
    status, text = run("storage", "load", "one.json", "--storage", "sqlite:///b.db")
    assert (status, "trials loaded into sqlite:///b.db" in text) == (0, True)
    status, text = run("storage", "load", "one.json")
    assert (status, "already" in text) == (2, True)
    status, text = run("storage", "load", "missing.json")
    assert (status, "cannot read missing.json" in text) == (2, True)
    for command in ("show best", "status"):
        first, other = run(*command.split()), run(*command.split(), "--storage", "sqlite:///b.db")
        assert first == other
        assert first[0] == 0
    assert list(copy_studies("sqlite:///b.db", "sqlite:///c.db")) == ["study 'one': 7 trials copied"]


def test_the_command_says_what_is_wrong_with_a_file(file: Path, second: str, database: str):
    file.write_text("hello")
    status, text = run("storage", "load", str(file), "--storage", second)
    assert (status, "no file of `optevo storage save`" in text) == (2, True)
    study_file.save_study(database, "one", file)
    file.write_bytes(file.read_bytes()[:-20])
    status, text = run("storage", "load", str(file), "--storage", second)
    assert (status, "cut off" in text) == (2, True)
    assert not Path(second.removeprefix("sqlite:///")).exists()
