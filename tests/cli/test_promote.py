"""`optevo promote`, and `optevo run` with stages: refused, killed, resumed, and told of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from measuring import Memory
from small_studies import create
from staging import outcome, searched, train
from study_folders import FILE, SECONDS, StudyFolder, ending
from typer.testing import CliRunner

import optevo.run
from optevo import keys
from optevo.cli.main import app
from optevo.storage import opening
from optevo.study.promotion import staged_study, stored_pipeline
from optevo.study.studies import is_complete, load_study
from optevo.workers.launcher import Launcher

STAGES = """
promote = 5
[[stages]]
name = "longer"
keep = 3
tasks = ["staging:Far"]
steps = 7
[[stages]]
name = "longest"
keep = 1
tasks = ["staging:Far"]
steps = 20
seeds = [0, 1]
"""
ON_DIGITS = """
promote = 4
[[stages]]
name = "longer"
keep = 2
steps = 60
[[stages]]
name = "two seeds"
keep = 1
steps = 90
seeds = [5, 6]
"""


class Commands:
    """The command line on a storage in memory."""

    def __init__(self, folder: Path, storage: Memory) -> None:
        self.folder, self.storage = folder, storage

    def __call__(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, f"{done.output}{done.exception or ''}"

    def promote(self, text: str = STAGES, name: str = "one") -> tuple[int, str]:
        file = self.folder / "stages.toml"
        file.write_text(text)
        return self("promote", name, str(file), "--device", "cpu")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    storage = Memory()
    for module in (opening, optevo.run):
        monkeypatch.setattr(module, "open_storage", lambda url, **options: storage)
    verbosity = optuna.logging.get_verbosity()
    monkeypatch.setattr(Launcher, "_pool", None)
    yield Commands(tmp_path, storage)
    optuna.logging.set_verbosity(verbosity)


def test_what_cannot_be_promoted_is_refused_before_anything_is_written(commands: Commands):
    study = create(commands.storage)
    assert "the search of study 'one' is not complete" in commands.promote()[1]
    searched(commands.storage)
    for text, said in (
        (STAGES.replace("keep = 3", "keep = 6"), "stages.0.keep = 6: no more than 5 enter this stage"),
        (STAGES.replace("staging:Far", "staging:Near"), "staging"),
        (STAGES.replace("promote = 5", ""), "key 'promote' is missing"),
    ):
        assert said in commands.promote(text)[1]
    assert "there is no study 'two'" in commands.promote(name="two")[1]
    assert keys.STAGES not in study.user_attrs


def test_stages_that_are_complete_are_shown_and_others_refused(commands: Commands):
    study = searched(commands.storage)
    train(study)
    status, said = commands.promote()
    assert status == 0, said
    assert "the stages of study 'one' are complete" in said
    assert "fell in longest" in said
    assert "did the ranking hold?" in said
    assert "stages.0.steps: 7 → 8" in commands.promote(STAGES.replace("steps = 7", "steps = 8"))[1]
    assert "fell in longest" in commands("show", "best")[1]


def test_status_says_which_stage_a_study_is_at(commands: Commands):
    study = searched(commands.storage)
    assert "complete, not" in commands("status")[1]
    train(study, most=5)
    assert "stage 2 of 2" in commands("status")[1]
    train(study)
    assert "stage" not in commands("status")[1]


def unbroken(folder: StudyFolder) -> set[tuple[Any, ...]]:
    """What the stages of the folder's study come to, trained by this process."""
    file = folder.file.with_name("stages.toml")
    done = CliRunner().invoke(app, ["promote", "small", str(file), "--storage", folder.url, "--workers", "1"])
    assert done.exit_code == 0, done.output
    return outcome(folder.study())


def _promote(folder: StudyFolder, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "optevo", "promote", "small", str(folder.file.with_name("stages.toml"))]
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [*command, "--storage", folder.url, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.mark.slow
def test_stages_that_were_killed_twice_and_run_by_two_end_as_the_unbroken_ones(tmp_path: Path):
    folders = []
    for name in "ab":
        (tmp_path / name).mkdir()
        folder = StudyFolder(tmp_path / name, FILE)
        folder.file.with_name("stages.toml").write_text(ON_DIGITS)
        folder.create()
        folder.work()
        folders.append(folder)
    whole, broken = folders
    expected = unbroken(whole)
    assert {stage for stage, *_ in expected} == {0, 1}
    n = len(broken.study().trials)
    for more in (1, 4):
        with ending(_promote(broken, "--workers", "1")) as process:
            broken.wait_for(n + more, process)
    with ending(_promote(broken, "--workers", "2")) as process:
        assert process.wait(SECONDS) == 0, broken.log.read_text()
    assert outcome(broken.study()) == expected


@pytest.mark.slow
def test_a_run_goes_on_with_its_stages_and_is_complete_after_them(tmp_path: Path):
    folder = StudyFolder(
        tmp_path, ON_DIGITS.partition("[[")[0] + FILE + ON_DIGITS.partition("promote = 4")[2]
    )
    with ending(folder.run("--workers", "2")) as process:
        assert process.wait(2 * SECONDS) == 0, folder.log.read_text()
    study, config = load_study(folder.study()._storage, "small")
    pipeline = stored_pipeline(study, config)
    assert pipeline == config.pipeline
    assert is_complete(staged_study(study, config, pipeline))
    said = folder.log.read_text()
    assert said.index("stage 2, two seeds: best") < said.index("measuring its best on fresh seeds")
    assert said.index("fell in longer") < said.index("2 fresh seeds")
    with ending(folder.run("--workers", "1")) as process:
        assert process.wait(SECONDS) == 0, folder.log.read_text()
    assert "study 'small' is complete" in folder.log.read_text()
