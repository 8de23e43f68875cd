"""`optevo doctor`: what is to be mended is told with what to do, and nothing of it ends in a traceback."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import stored

from optevo import keys
from optevo.cli import checkup
from optevo.cli.checkup import MEND, NOTE, OK, Finding, findings
from optevo.errors import UserError


def of(area: str, look: Any, what: str) -> Finding:
    (found,) = [one for one in findings(area, look) if one.what == what]
    return found


def test_a_machine_in_order_has_nothing_to_mend(optevo: Callable[..., Any]) -> None:
    stored(trials=1)
    answer = optevo("doctor", "--json", "--data-dir", ".")
    assert answer.status == 0, answer
    told = json.loads(answer.out)
    assert told["ok"] is True
    found = {(one["area"], one["what"]): one["found"] for one in told["findings"]}
    assert found["versions", "torch"] == importlib.metadata.version("torch")
    assert found["data", "digits"] == "there"
    assert found["data", "mnist"] == "not here"
    assert found["storage", "writing"] == "allowed"
    assert found["storage", "studies"].startswith("1, ")
    assert {area for area, _ in found} == {"versions", "devices", "compiler", "data", "storage"}


def test_a_fault_ends_in_status_1_with_what_to_do(optevo: Callable[..., Any]) -> None:
    stored("future", 1).set_user_attr(keys.SCHEMA, 99)
    answer = optevo("doctor", "--data-dir", ".")
    assert answer.status == 1, answer
    told = " ".join(answer.out.split())
    for words in ("study 'future'", "mend", "install a newer one", "1 to mend"):
        assert words in told


def test_a_database_that_is_not_there_yet_is_no_fault(here: None) -> None:
    found = findings("storage", lambda: checkup.storage("sqlite:///optevo.db"))
    assert [one.level for one in found] == [OK, OK]
    assert not Path("optevo.db").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///nowhere/a.db", "mkdir -p"),
        ("sqlite:///text.db", "not a database"),
        ("sqlite:///other.db", "not Optuna's"),
        ("nonsense", "sqlite:///optevo.db"),
        ("postgresql+psycopg://me:topsecret@127.0.0.1:1/d", "does not answer"),
        pytest.param("grpc://127.0.0.1:1", "no storage answers", marks=pytest.mark.slow),
    ],
)
def test_a_storage_that_cannot_be_used_is_told(here: None, url: str, words: str) -> None:
    Path("text.db").write_text("nothing of the kind " * 100)
    with sqlite3.connect("other.db") as connection:
        connection.execute("CREATE TABLE a (b)")
    found = findings("storage", lambda: checkup.storage(url))
    assert any(one.level == MEND and words in one.found + one.remedy for one in found), found
    assert not any("topsecret" in one.found + one.remedy for one in found)


def test_a_database_of_another_schema_is_told_with_the_command(here: None) -> None:
    stored()
    with sqlite3.connect("optevo.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v1.0.0'")
    (found,) = findings("storage", lambda: checkup.storage("sqlite:///optevo.db"))
    assert found.level == MEND
    assert "optevo storage upgrade" in found.remedy


def test_a_folder_that_cannot_be_written_is_told(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: mode != os.W_OK and real(path, mode, **more))
    folder = of("storage", lambda: checkup.storage("sqlite:///optevo.db"), "folder")
    assert (folder.level, "OPTEVO_STORAGE" in folder.remedy) == (MEND, True)
    cache = of("data", lambda: checkup.data(Path()), "cache")
    assert (cache.level, "OPTEVO_CACHE" in cache.remedy) == (NOTE, True)


def test_a_database_that_may_be_read_alone_is_told(here: None) -> None:
    if os.geteuid() == 0:
        storage = SimpleNamespace(engine=ReadOnly())
        (found,) = findings("storage", lambda: checkup._writable(storage))
    else:
        stored()
        Path("optevo.db").chmod(0o400)
        found = of("storage", lambda: checkup.storage("sqlite:///optevo.db"), "writing")
    assert (found.level, "readonly" in found.found) == (MEND, True)


class ReadOnly:
    """An engine whose user has no right to write."""

    def connect(self) -> sqlite3.Connection:
        import sqlalchemy  # noqa: PLC0415

        raise sqlalchemy.exc.OperationalError(
            "UPDATE", {}, sqlite3.OperationalError("attempt to write a readonly database")
        )


def test_a_full_disk_is_told(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((2**20, MEND), (2**29, NOTE), (2**40, OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert of("storage", lambda: checkup.storage("sqlite:///optevo.db"), "free disk").level == level


def test_a_package_that_is_missing_or_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"optuna": "4.0.0", "torch": None}
    monkeypatch.setattr(checkup, "_version", lambda name: versions.get(name, "999"))
    wanted = ["torch>=2.9", "optuna>=5", "rich>=13", "grpcio>=1 ; extra == 'grpc'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    found = {one.what: one for one in findings("versions", checkup.versions)}
    assert found["torch"].remedy == "pip install 'torch>=2.9'"
    assert (found["torch"].level, found["optuna"].level, found["rich"].level) == (MEND, MEND, OK)
    assert found["optuna"].found == "4.0.0, needs >=5"
    assert found["extra grpc"].found == "installed"


def test_a_torch_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert of("devices", checkup.devices, "torch").level == MEND


def test_a_processor_without_bfloat16_and_a_machine_without_a_compiler_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from optevo.optim.terms import kernels  # noqa: PLC0415
    from optevo.training import precision  # noqa: PLC0415

    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    monkeypatch.setattr(kernels, "has_compiler", lambda device: False)
    assert of("devices", checkup.devices, "bfloat16").level == NOTE
    assert of("compiler", checkup.compiler, "C++").level == NOTE


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_it_is_said_what_to_set(optevo: Callable[..., Any]) -> None:
    answer = optevo("doctor", "--json")
    assert answer.status == 0, answer
    remedies = {one["what"]: one["remedy"] for one in json.loads(answer.out)["findings"]}
    assert "OPTEVO_DATA" in remedies["data root"]
    assert "OPTEVO_CACHE" in remedies["cache"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError("gone"), UserError("wrong\nmend it")])
def test_whatever_breaks_is_a_finding_beside_what_was_found_before(error: Exception) -> None:
    def look() -> Any:
        yield Finding("a", "b", "c")
        raise error

    first, last = findings("a", look)
    assert (first.level, last.level) == (OK, MEND)
    assert str(error).split("\n")[0] in last.found
    assert last.remedy
