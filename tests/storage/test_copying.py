"""Studies copied between storages."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial
from small_studies import config, create
from stored_studies import content, made
from typer.testing import CliRunner

from optevo import keys
from optevo.cli.storage import app
from optevo.errors import UserError
from optevo.liveness import lost
from optevo.liveness import status as workers
from optevo.liveness.lost import worker_identity
from optevo.storage.copying import copy_studies
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")
_LONG = 120  # seconds that nothing takes but a hang


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def copied(source: str, target: str, *names: str, force: bool = False) -> list[str]:
    return list(copy_studies(source, target, names, force=force))


# Copies


def test_a_copy_keeps_everything_and_fails_what_was_running(tmp_path: Path):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source)
    before = content(source)
    (line,) = copied(source, target)
    assert line == "study 'one': 8 trials copied, 2 of them running in the source and failed in the copy"
    assert content(target) == before == content(source)
    study, stored = load_study(open_storage(target), "one")
    assert stored == config()
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "FAIL", "FAIL", "FAIL", "WAITING"]
    assert create_or_resume(stored, open_storage(target), "cpu").user_attrs == study.user_attrs


def test_all_studies_of_ours_are_copied_and_only_those_asked_for(tmp_path: Path):
    source = url_of(tmp_path / "a.db")
    for name in ("one", "two", "three"):
        create(source, name=name)
    optuna.create_study(study_name="theirs", storage=open_storage(source))
    copied(source, url_of(tmp_path / "all.db"))
    copied(source, url_of(tmp_path / "some.db"), "three", "one")
    there = [s.study_name for s in open_storage(url_of(tmp_path / "all.db")).get_all_studies()]
    assert there == ["one", "two", "three"]
    there = [s.study_name for s in open_storage(url_of(tmp_path / "some.db")).get_all_studies()]
    assert there == ["three", "one"]


def test_a_study_that_is_there_is_never_written_over(tmp_path: Path):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    for name in ("new", "one"):
        create(source, name=name)
    create(target)
    before = content(target)
    with pytest.raises(UserError, match="has a study 'one' already"):
        copied(source, target)
    assert content(target) == before
    assert len(open_storage(target).get_all_studies()) == 1
    with pytest.raises(UserError, match="already"):
        copied(source, source)


def test_a_study_of_somebody_else_is_never_taken_for_half_a_copy(tmp_path: Path):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source)
    theirs = optuna.create_study(study_name="one", storage=open_storage(target, create=True))
    theirs.ask()
    with pytest.raises(UserError, match="already"):
        copied(source, target)
    assert len(theirs.trials) == 1
    with pytest.raises(UserError, match="not made by optevo"):
        copied(target, source, "one")


def test_a_study_that_is_not_there_is_told_with_those_that_are(tmp_path: Path):
    made(url_of(tmp_path / "a.db"))
    with pytest.raises(UserError, match=r"no study 'two'.*one"):
        copied(url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db"), "two")
    assert not (tmp_path / "b.db").exists()


def _frozen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(lost.psutil.Process, "status", lambda self: lost.psutil.STATUS_STOPPED)
    return worker_identity()


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {**worker_identity(), "host": "another"}


@pytest.mark.parametrize("worker", [lambda _: worker_identity(), _frozen, _elsewhere])
def test_a_study_with_live_workers_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source, worker=worker(monkeypatch))
    with pytest.raises(UserError, match=r"worked on \(trials 5, 6\).*--force"):
        copied(source, target)
    assert not (tmp_path / "b.db").exists()


def test_a_study_with_live_workers_is_copied_by_force(tmp_path: Path):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source, worker=worker_identity())
    copied(source, target, force=True)
    assert content(target) == content(source)


def test_a_worker_of_another_machine_that_has_been_silent_for_long_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made(url_of(tmp_path / "a.db"), worker=_elsewhere(monkeypatch))
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.0)
    (line,) = copied(url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db"))
    assert "2 of them running in the source and failed in the copy" in line


def _copy_and_die(source: str, target: str, method: str, calls: int) -> None:
    """Copy, and be killed in the middle."""
    storage = open_storage(target, create=True)
    real, left = getattr(type(storage), method), [calls]

    def deadly(self: Any, *args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(self, *args, **kwargs)

    setattr(type(storage), method, deadly)
    copied(source, target)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("set_study_user_attr", 0),
        ("create_new_trial", 4),
        ("set_study_system_attr", 1),
        ("set_study_user_attr", 7),  # all but the fingerprint
    ],
)
def test_a_copy_that_was_killed_is_no_study_and_is_made_anew(
    tmp_path: Path, method: str, calls: int, caplog: pytest.LogCaptureFixture
):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    study = made(source)
    assert len(study.user_attrs) == 7  # so that eight are written, with that of the copy
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_copy_and_die, args=(source, target, method, calls))
    process.start()
    process.join(_LONG)
    assert process.exitcode == -signal.SIGKILL
    (half,) = open_storage(target).get_all_studies()
    assert keys.FINGERPRINT not in half.user_attrs
    if half.user_attrs:  # else it is empty, and nothing to be taken for anything
        with pytest.raises(UserError):
            create_or_resume(config(), open_storage(target), "cpu")
    with caplog.at_level(logging.WARNING, "optevo"):
        copied(source, target)
    assert "cut off" in caplog.text
    assert content(target) == content(source)
    assert len(open_storage(target).get_all_studies()) == 1


def test_a_trial_written_twice_after_an_outage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source)
    kind = type(open_storage(source))
    real = kind.create_new_trial

    def twice(self: Any, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        real(self, study_id, template_trial)
        return real(self, study_id, template_trial)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "create_new_trial", twice)
        with pytest.raises(UserError, match="the same command makes it anew"):
            copied(source, target)
    copied(source, target)
    assert content(target) == content(source)


# Commands


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    return done.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", done.output)


def test_the_commands_copy_and_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTEVO_STORAGE", raising=False)
    made("sqlite:///optevo.db")
    status, text = run("copy", "one", "--from", "sqlite:///optevo.db", "--to", "sqlite:///b.db")
    assert (status, "8 trials copied" in text) == (0, True)
    status, text = run("copy", "--from", "sqlite:///optevo.db", "--to", "sqlite:///b.db")
    assert (status, "already" in text) == (2, True)
    status, text = run("upgrade")
    assert (status, f"study 'one': schema version {keys.SCHEMA_VERSION}" in text) == (0, True)
    status, text = run("upgrade", "--storage", "grpc://h")
    assert (status, "the database's own URL" in text) == (2, True)
