"""Studies copied between storages, and brought up from older versions."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from postgres import PASSWORD, Postgres
from typer.testing import CliRunner

from optevo import keys
from optevo.cli.storage import app
from optevo.errors import UserError
from optevo.liveness import lost
from optevo.liveness import status as workers
from optevo.liveness.lost import worker_identity
from optevo.samplers.sections import GeneticSection
from optevo.storage import copying as transfer
from optevo.storage.copying import copy_studies, upgrade
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, load_study

_LONG = 120  # seconds that nothing takes but a hang


def configuration(name: str = "one") -> StudyConfig:
    data = {
        "name": name,
        "sampler": {"kind": "genetic", "population_size": 6, "n_generations": 3},
        "evaluation": {"tasks": ["digits"]},
    }
    return parse_config(data, "test")


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def made(url: str, name: str = "one", *, worker: dict[str, Any] | None = None) -> optuna.Study:
    """A study with trials of every state and all that a trial may hold; the last is running."""
    study = create_or_resume(configuration(name), open_storage(url, create=True), "cpu", {"digits": 7})
    study.set_user_attr("a note", {"winner": 2, "ünïcode": [1.5, None]})
    study._storage.set_study_system_attr(study._study_id, "dashboard:note", "a note")
    space = configuration(name).make_space()
    for n in range(7):
        trial = study.ask()
        space.suggest(trial)
        trial.suggest_categorical("another", ["g", "m", None, True, 3])
        trial.set_user_attr(keys.CANONICAL, f"form {n}")
        trial.set_user_attr("anything", [{"task": "digits", "metric": 0.1 + 0.2, "loss": float("inf")}])
        for step, value in ((1, float("-inf")), (10, float("nan")), (100, 0.5)):
            trial.report(value, step)
        if n < 3:
            study.tell(trial, 0.1 * n)
        elif n < 5:
            study.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[n - 3])
    study.enqueue_trial({"another": None})
    dead = {**worker_identity(), "started": -1.0}
    for number in (5, 6):
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        study._storage.set_trial_user_attr(trial_id, keys.WORKER, worker or dead)
    return study


def content(url: str, name: str = "one") -> tuple[Any, ...]:
    """All of a study, with the trials that run as a copy has them."""
    storage = open_storage(url)
    study_id = storage.get_study_id_from_name(name)
    attrs = storage.get_study_user_attrs(study_id)
    attrs.pop(keys.COPY_OF, None)
    trials = storage.get_all_trials(study_id)
    return (
        storage.get_study_directions(study_id),
        attrs,
        storage.get_study_system_attrs(study_id),
        [_as_copied(trial) for trial in trials],
    )


def _as_copied(trial: FrozenTrial) -> str:
    state, ended = trial.state, trial.datetime_complete
    if state == TrialState.RUNNING or keys.LOST in trial.system_attrs:
        state, ended = TrialState.FAIL, None
    system = {key: value for key, value in trial.system_attrs.items() if key != keys.LOST}
    fields = (trial.number, state, trial.values, trial.params, trial.distributions, trial.user_attrs)
    return repr((*fields, system, trial.intermediate_values, trial.datetime_start, ended))


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
    study, config = load_study(open_storage(target), "one")
    assert config == configuration()
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "FAIL", "FAIL", "FAIL", "WAITING"]
    assert create_or_resume(config, open_storage(target), "cpu").user_attrs == study.user_attrs


@pytest.mark.slow
@pytest.mark.postgres
def test_a_copy_to_postgresql_and_back_keeps_everything(tmp_path: Path, postgres: Postgres):
    first, middle, last = url_of(tmp_path / "a.db"), postgres.fresh_url(), url_of(tmp_path / "b.db")
    made(first)
    copied(first, middle)
    lines = copied(middle, last)
    assert content(first) == content(middle) == content(last)
    assert lines == ["study 'one': 8 trials copied"]
    assert PASSWORD not in str(open_storage(last).get_all_studies())


def test_a_copy_can_come_from_a_proxy_and_go_to_one(tmp_path: Path):
    proxy = pytest.importorskip("optevo.storage.proxy")
    made(url_of(tmp_path / "a.db"))
    urls, servers = [], []
    try:
        for name in ("a.db", "b.db"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            storage = open_storage(url_of(tmp_path / name), create=True)
            servers.append(proxy.start_server(storage, "127.0.0.1", port))
            urls.append(f"grpc://127.0.0.1:{port}")
        copied(*urls)
        first, second = (content(url) for url in urls)
        assert first[:3] == second[:3]
        assert len(first[3]) == len(second[3]) == 8
    finally:
        for server in servers:
            server.stop(None).wait()


def test_all_studies_of_ours_are_copied_and_only_those_asked_for(tmp_path: Path):
    source = url_of(tmp_path / "a.db")
    for name in ("one", "two", "three"):
        made(source, name)
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
        made(source, name)
    create_or_resume(configuration(), open_storage(target, create=True), "cpu")
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
def test_a_study_with_live_workers_is_copied_by_force_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker
):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    made(source, worker=worker(monkeypatch))
    with pytest.raises(UserError, match=r"worked on \(trials 5, 6\).*--force"):
        copied(source, target)
    assert not (tmp_path / "b.db").exists()
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
        pytest.param("set_study_user_attr", 0, marks=pytest.mark.slow),
        pytest.param("create_new_trial", 0, marks=pytest.mark.slow),
        ("create_new_trial", 4),
        pytest.param("set_study_system_attr", 1, marks=pytest.mark.slow),
        pytest.param("set_study_user_attr", 3, marks=pytest.mark.slow),
        pytest.param("set_study_user_attr", 6, marks=pytest.mark.slow),  # all but the fingerprint
    ],
)
def test_a_copy_that_was_killed_is_no_study_and_is_made_anew(
    tmp_path: Path, method: str, calls: int, caplog: pytest.LogCaptureFixture
):
    source, target = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    study = made(source)
    assert len(study.user_attrs) == 6  # so that seven are written, with that of the copy
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_copy_and_die, args=(source, target, method, calls))
    process.start()
    process.join(_LONG)
    assert process.exitcode == -signal.SIGKILL
    (half,) = open_storage(target).get_all_studies()
    assert keys.FINGERPRINT not in half.user_attrs
    if half.user_attrs:  # else it is empty, and nothing to be taken for anything
        with pytest.raises(UserError):
            create_or_resume(configuration(), open_storage(target), "cpu")
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


# Upgrades


def as_version(study: optuna.Study, version: int) -> None:
    """Make a study look as an older optevo left it."""
    storage, study_id = study._storage, study._study_id
    config = dict(study.user_attrs[keys.CONFIG])
    config["sampler"] = {k: v for k, v in config["sampler"].items() if k != "asynchronous"}
    if version == 1:
        new = ("precision", "gate", "pruner", "batch_candidates")
        config["evaluation"] = {k: v for k, v in config["evaluation"].items() if k not in new}
        with closing(storage._backend.engine.raw_connection()) as connection:  # type: ignore[attr-defined]
            key = keys.COSTS
            connection.cursor().execute(f"DELETE FROM study_user_attributes WHERE key = '{key}'")
            connection.commit()
    storage.set_study_user_attr(study_id, keys.CONFIG, config)
    storage.set_study_user_attr(study_id, keys.FINGERPRINT, "0" * 16)
    storage.set_study_user_attr(study_id, keys.SCHEMA, version)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_study_goes_on_as_it_was_evaluated(tmp_path: Path, version: int):
    url = url_of(tmp_path / "a.db")
    study = made(url)
    as_version(study, version)
    trials = repr(study.trials)
    with pytest.raises(UserError, match="schema version"):
        load_study(open_storage(url), "one")
    lines = list(upgrade(url))
    assert f"study 'one': schema version {version} → {keys.SCHEMA_VERSION}" in lines
    upgraded, config = load_study(open_storage(url), "one")
    assert repr(upgraded.trials) == trials
    assert upgraded.user_attrs[keys.FINGERPRINT] == config.fingerprint()
    assert upgraded.user_attrs[keys.COSTS] == ({} if version == 1 else {"digits": 7})
    new = config.evaluation
    if version == 1:
        assert (new.precision, new.gate, new.pruner, new.batch_candidates) == ("float32", False, "none", 1)
    else:
        assert new == configuration().evaluation
    assert isinstance(config.sampler, GeneticSection)
    assert config.sampler.asynchronous is False
    create_or_resume(config, open_storage(url), "cpu")
    assert lines[1:] != list(upgrade(url))[1:] == [f"study 'one': schema version {keys.SCHEMA_VERSION}"]


def test_every_version_has_a_way_to_this_one():
    assert sorted(transfer.MIGRATIONS) == list(range(1, keys.SCHEMA_VERSION))


@pytest.mark.parametrize("calls", [0, 3])
def test_an_upgrade_that_was_cut_off_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int):
    url = url_of(tmp_path / "a.db")
    as_version(made(url), 1)
    real, left = optuna.Study.set_user_attr, [calls]

    def dying(self: optuna.Study, key: str, value: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", dying)
        with pytest.raises(KeyboardInterrupt):
            list(upgrade(url))
    list(upgrade(url))
    _, config = load_study(open_storage(url), "one")
    assert config.evaluation.pruner == "none"


@pytest.mark.parametrize("version", [keys.SCHEMA_VERSION + 1, 0, None, "2"])
def test_a_study_of_another_optevo_is_refused(tmp_path: Path, version: Any):
    url = url_of(tmp_path / "a.db")
    study = made(url)
    study.set_user_attr(keys.SCHEMA, version)
    with pytest.raises(UserError, match=f"schema version {version}"):
        list(upgrade(url))


def test_studies_of_others_are_left_as_they_are(tmp_path: Path):
    url = url_of(tmp_path / "a.db")
    study = optuna.create_study(study_name="theirs", storage=open_storage(url, create=True))
    assert "left as it is" in list(upgrade(url))[1]
    assert study.user_attrs == {}


def test_optunas_tables_of_an_older_version_are_upgraded(tmp_path: Path):
    url = url_of(tmp_path / "a.db")
    made(url)
    storage = optuna.storages.RDBStorage(url)
    head, versions = storage.get_head_version(), storage.get_all_versions()
    before = versions[versions.index(head) + 1]
    storage._version_manager._set_alembic_revision(before)  # an empty step back is enough to be refused
    with pytest.raises(UserError, match="optevo storage upgrade"):
        open_storage(url)
    assert storage.get_current_version() == before
    lines = list(upgrade(url))
    assert lines[0] == f"Optuna's tables: {before} → {head}"
    open_storage(url)


def test_optunas_tables_of_a_newer_version_are_refused(tmp_path: Path):
    url = url_of(tmp_path / "a.db")
    storage = made(url)._storage
    with closing(storage._backend.engine.raw_connection()) as connection:  # type: ignore[attr-defined]
        connection.cursor().execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        connection.commit()
    with pytest.raises(UserError, match="install a newer Optuna"):
        list(upgrade(url))


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


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_server_ends_cleanly(tmp_path: Path, signum: int):
    pytest.importorskip("grpc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from optevo.cli.storage import app; app()"
    command = [sys.executable, "-c", code, "serve", "--port", str(port)]
    env = {**os.environ, "OPTEVO_STORAGE": url_of(tmp_path / "a.db")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f"grpc://127.0.0.1:{port}" in process.stdout.readline()
        storage = open_storage(f"grpc://127.0.0.1:{port}")
        assert storage.get_all_studies() == []
        process.send_signal(signum)
        _, errors = process.communicate(timeout=_LONG)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_a_proxy_of_a_proxy_is_refused(tmp_path: Path):
    proxy = pytest.importorskip("optevo.storage.proxy")
    with pytest.raises(UserError, match="not another proxy"):
        proxy.start_server(optuna.storages.InMemoryStorage(), "127.0.0.1", 1)
