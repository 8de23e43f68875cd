"""What optuna-dashboard is given of a study: its note, its charts, the best trials' notes and files."""

from __future__ import annotations

import io
import json
import logging
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from example_studies import Loaded, evaluate, grid, search
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note
from optuna_dashboard._app import create_app
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._named_objectives import get_objective_names
from optuna_dashboard._note import get_note_from_system_attrs
from optuna_dashboard.artifact._backend import list_trial_artifacts
from small_studies import create

from optevo import keys
from optevo.cli.dashboard import artifact_store
from optevo.optuna_private import trial_id
from optevo.reporting.dashboard import board as boards
from optevo.reporting.dashboard.artifacts import FOLDER, artifact_folder
from optevo.reporting.dashboard.board import Board
from optevo.reporting.dashboard.notes import MARK
from optevo.samplers import sampler_of
from optevo.storage.copying import copy_studies
from optevo.storage.opening import open_storage
from optevo.study.studies import best_trials, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def attributes(study) -> dict:
    return study._storage.get_study_system_attrs(study._study_id)


def files(study, trial) -> list[dict]:
    return list_trial_artifacts(attributes(study), trial.system_attrs, trial)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "files"))
    return tmp_path / "files"


@pytest.fixture
def loaded(folder: Path) -> Loaded:
    return search(n_trials=10, storage=InMemoryStorage())


# The values that everybody reads


def test_a_study_s_frame_calls_the_fitness_value_and_the_dashboard_calls_it_fitness():
    study, _ = search(n_trials=4)
    assert "value" in study.trials_dataframe().columns
    assert get_objective_names(attributes(study)) == ["fitness"]


def test_a_stored_study_that_optuna_knows_a_metric_of_goes_on_and_keeps_its_column():
    study = create(storage := InMemoryStorage())
    study.set_metric_names(["fitness"])  # as those begun by earlier versions have
    again = create(storage)
    assert again.metric_names == ["fitness"]
    assert load_study(storage, "one")[0].study_name == "one"


# The note


def test_the_note_says_what_the_study_is_at(loaded: Loaded):
    study, config = loaded
    Board(study, config).refresh()
    note, best = get_note(study), best_trials(study, 1)[0]
    assert keys.ours(best)[keys.FORMULA] in note
    assert f"optevo export {best.number} --study one --output evolved.py" in note
    assert "| generations | 2 of 3 finished |" in note
    assert "| trials | 10 of 14 |" in note
    assert "| cost so far | 800 training steps, 20 seconds of workers |" in note


def test_a_note_without_a_complete_trial_says_so(folder: Path):
    study, config = search(n_trials=0)
    Board(study, config).refresh()
    assert "has no complete trial yet" in get_note(study)
    assert not folder.exists()


def test_what_people_write_in_the_note_stays(loaded: Loaded):
    study, config = loaded
    save_note(study, "my own words")
    board = Board(study, config)
    board.refresh()
    save_note(study, get_note(study) + "\n\nmore of them")
    board.refresh()
    above, below = get_note(study).split(MARK)
    assert below == "\n\nmy own words\n\nmore of them"
    assert "## The best so far" in above


# Charts and files


def test_charts_are_attached_and_written_again_only_where_they_changed(loaded: Loaded):
    study, config = loaded
    board = Board(study, config)
    board.refresh()
    drawn = get_plotly_graph_objects(attributes(study))
    assert drawn.keys() >= {f"optevo-{name}" for name in ("generations", "parts", "tasks")}
    # A best trial that is a preset has no ancestors.
    assert ("optevo-lineage" in drawn) == bool(keys.ours(best_trials(study, 1)[0])[keys.PARENTS])
    layouts = [json.loads(figure)["layout"] for figure in drawn.values()]
    assert all(layout["title"]["text"] for layout in layouts)
    assert {layout["modebar"]["bgcolor"] for layout in layouts} == {"rgba(0,0,0,0)"}  # it lies on the figure
    before = attributes(study)
    board.refresh()
    assert attributes(study) == before


def test_the_best_trials_have_note_source_and_learning_curves(loaded: Loaded, folder: Path):
    study, config = loaded
    Board(study, config).refresh()
    for trial in best_trials(study, boards.N_BEST):
        note = get_note_from_system_attrs(attributes(study), trial_id(trial))["body"]
        assert f"trial {trial.number} of study 'one'" in note
        source, picture, table = files(study, trial)
        assert source["filename"] == f"trial_{trial.number}.py"
        assert "class Evolved" in (folder / source["artifact_id"]).read_text("utf-8")
        svg = ET.fromstring((folder / picture["artifact_id"]).read_text("utf-8"))
        assert len(svg.findall("{*}polyline")) == 4  # two tasks, two seeds
        lines = (folder / table["artifact_id"]).read_text("utf-8").splitlines()
        assert lines[0] == "trial,task,seed,step,loss"
        assert len(lines) == 41
    worst = min(study.get_trials(states=[TrialState.COMPLETE]), key=lambda trial: trial.value)
    assert files(study, worst) == []


def test_a_sweep_has_a_note_and_its_files_have_no_source(folder: Path):
    study, config = grid()
    Board(study, config).refresh()
    assert "optevo export" in get_note(study) or config.make_space().not_exportable()
    assert "optevo-trials" in get_plotly_graph_objects(attributes(study))


def test_a_copy_of_a_study_in_a_database_of_others_has_its_trials_notes(tmp_path: Path, folder: Path):
    first, second = (f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db"))
    create(open_storage(second, create=True), name="other").ask()
    study, config = search(n_trials=3, storage=open_storage(first, create=True))
    Board(study, config).refresh()
    list(copy_studies(first, second))
    copy, _ = load_study(open_storage(second), "one")
    for trial in best_trials(copy, 3):
        note = get_note_from_system_attrs(attributes(copy), trial_id(trial))["body"]
        assert f"trial {trial.number} " in note
        assert f"trial_{trial.number}.py" in [one["filename"] for one in files(copy, trial)]


# It costs little and fails nothing


def test_it_is_refreshed_when_a_generation_has_ended_and_not_on_every_look(monkeypatch: pytest.MonkeyPatch):
    study, config = search(n_trials=5)
    told, now = [], [100.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now[0])
    board = Board(study, config)
    monkeypatch.setattr(board, "refresh", lambda: told.append(now[0]))
    board.tend()
    assert told == []  # a search of seconds is shown when it has ended
    for now[0] in (121.0, 121.1, 125.0, 200.0):
        board.tend()
    assert told == [121.0]
    while sampler_of(study).slot_table(study).generation == 0:  # another has ended
        study.optimize(lambda trial: evaluate(trial, config), n_trials=1)
    for now[0] in (202.0, 202.5, 210.0):
        board.tend()
    assert told == [121.0, 202.0]


@pytest.mark.parametrize("broken", ["a file is in the way", "read-only"])
def test_a_folder_that_cannot_be_written_is_told_once_and_the_rest_is_shown(
    broken: str, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    study, config = search(n_trials=6)
    folder.write_text("")
    if broken == "read-only":
        monkeypatch.setenv(FOLDER, "/proc/nothing/can/be/made/here")
    board = Board(study, config)
    with caplog.at_level(logging.WARNING, "optevo"):
        board.refresh()
        board.refresh()
    (record,) = caplog.records
    assert "will lack the study's files" in record.getMessage()
    assert "## The best so far" in get_note(study)
    assert len(get_plotly_graph_objects(attributes(study))) >= 2


def test_where_files_lie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FOLDER, raising=False)
    assert artifact_folder("sqlite:///a/b.db") == Path("a/b.db.artifacts")
    assert artifact_folder("sqlite:////a/b.db") == Path("/a/b.db.artifacts")
    for url in ("sqlite://", "sqlite:///:memory:", "postgresql+psycopg://u:p@h/d", "grpc://h:1", None):
        assert artifact_folder(url) is None
    monkeypatch.setenv(FOLDER, "/there")
    assert artifact_folder("postgresql+psycopg://u@h/d") == Path("/there")


def test_the_dashboard_serves_a_file_and_bears_a_folder_that_is_elsewhere(loaded: Loaded, folder: Path):
    study, config = loaded
    Board(study, config).refresh()
    trial = best_trials(study, 1)[0]
    source = files(study, trial)[0]["artifact_id"]
    path = f"/artifacts/{study._study_id}/{trial_id(trial)}/{source}"

    def status(store, path: str) -> tuple[str, bytes]:
        said: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.errors": io.StringIO()}
        app = create_app(study._storage, store)
        body = b"".join(app(environ, lambda status, headers, *rest: said.append(status)))
        return said[0], body

    assert status(artifact_store(folder), path) == ("200 OK", (folder / source).read_bytes())
    assert status(artifact_store(None), path)[0].startswith("400")
    (folder / source).unlink()
    assert not status(artifact_store(folder), path)[0].startswith("200")
    assert status(artifact_store(folder), f"/api/studies/{study._study_id}")[0] == "200 OK"
    Board(study, config).refresh()  # whoever goes on there has it again
    assert status(artifact_store(folder), path)[0] == "200 OK"
