"""Every command that reads a study, on one database: what one refuses, the others do."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import optuna_dashboard

import optevo.api.winners
import optevo.run
import optevo.storage.proxy
import optevo.workers.worker
from optevo.errors import UserError
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import load_study
from optevo.workers.launcher import Launcher
from optevo.workers.worker import work

from .outcomes import Fault, command, refused

TRAINS = "this would train"


def _would_train(*_: Any, **__: Any) -> NoReturn:
    raise UserError(TRAINS)


@contextlib.contextmanager
def untrained() -> Iterator[None]:
    """Within it no command trains, serves or waits; all that it reads before, it reads."""
    with contextlib.ExitStack() as stack:
        for where, name in (
            (optevo.api.winners.Machine, "train"),
            (Launcher, "_pool"),
            (optevo.storage.proxy, "start_server"),
            (optuna_dashboard, "run_server"),
        ):
            stack.enter_context(mock.patch.object(where, name, _would_train))
        for where, name in ((optevo.api.winners.Machine, "check"), (optevo.workers.worker, "when_orphaned")):
            stack.enter_context(mock.patch.object(where, name))
        # Workers and `run` measure and rehearse before they look at what is stored.
        stack.enter_context(mock.patch.object(optevo.workers.worker, "make_worker_bench", _would_train))
        stack.enter_context(mock.patch.object(optevo.run, "measure_best", _would_train))
        yield


def read_only(database: Path, rng: random.Random, config: dict[str, Any]) -> list[int]:
    """The commands that must leave a database as it is; returns their statuses."""
    folder, url = database.parent, f"sqlite:///{database}"
    source, number = ("--storage", url), str(rng.randrange(8))
    out = str(folder / "out.py")
    name = config["name"]
    lines = [
        ["status"],
        ["show", "best"],
        ["show", number],
        ["export", "best", "--output", out],
        ["report", name, "--output", str(folder / "report.html")],
        ["compare", name, "--output", str(folder / "comparison"), "--workers", "1"],
        ["ablate", name, "--output", str(folder / "ablation"), "--seeds", "2", "--workers", "1"],
    ]
    command("dashboard", *source)
    statuses = [command(*line, *source)[0] for line in lines]
    if (folder / "out.py").exists():
        compile((folder / "out.py").read_bytes(), "out.py", "exec")
    return statuses


def taken_elsewhere(database: Path, config: dict[str, Any]) -> None:
    """Copied and saved is what can be loaded, and it can be shown there as here."""
    folder, url, name = database.parent, f"sqlite:///{database}", config["name"]
    file, copied, loaded = folder / "one.json", f"sqlite:///{folder}/copy.db", f"sqlite:///{folder}/loaded.db"
    gate = refused(lambda: load_study(open_storage(url), name))
    shown = command("show", "best", "--storage", url, "--study", name)[:2]
    for line, other in (
        (["storage", "copy", name, "--from", url, "--to", copied, "--force"], copied),
        (["storage", "save", name, "--output", str(file), "--storage", url, "--force"], loaded),
    ):
        status, _, said = command(*line)
        if gate and not status and "schema version" not in "".join(_why(url, name)):
            raise Fault(f"{' '.join(line)} takes what is refused elsewhere")
        if not gate and status and "without a loss" not in said:
            raise Fault(f"{' '.join(line)} refuses what is taken elsewhere: {said}")
        if status or gate:
            continue
        if other == loaded:
            command_taken("storage", "load", str(file), "--storage", loaded)
        if command("show", "best", "--storage", other, "--study", name)[:2] != shown:
            raise Fault("it is shown differently after " + " ".join(line))


def command_taken(*line: str) -> None:
    status, _, said = command(*line)
    if status:
        raise Fault(f"optevo {' '.join(line)}: {said}")


def _why(url: str, name: str) -> list[str]:
    try:
        load_study(open_storage(url), name)
    except UserError as error:
        return [str(error)]
    return []


def writing(database: Path, config: dict[str, Any]) -> None:
    """The commands that may change a database, each on a copy of its own."""
    name = config["name"]
    file = database.parent / "study.toml"
    file.write_text(_toml(config), "utf-8")
    for n, line in enumerate(
        (["storage", "upgrade"], ["repair", name], ["run", str(file), "--workers", "1"], ["storage", "serve"])
    ):
        copy = database.parent / f"copy-{n}.db"
        shutil.copy(database, copy)
        command(*line, "--storage", f"sqlite:///{copy}")
    root, parent = database.parent, os.getppid()
    refused(lambda: work(f"sqlite:///{database}", name, device="cpu", data_root=root, parent=parent))


def _toml(config: dict[str, Any]) -> str:
    parse_config(config, "the fuzz")
    sections = [
        f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)
    ]
    for key, section in config.items():
        if isinstance(section, dict):
            sections += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in section.items())]
    return "\n".join([*sections, ""])
