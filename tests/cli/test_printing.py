"""What commands print: in whatever letters the stream has, as wide as it is, and never as a command to it."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_line import config, stored
from comparing import drawn, measured
from rich.table import Table

from optevo import keys
from optevo.cli import main as cli
from optevo.cli import options
from optevo.cli.helps import PANELS
from optevo.errors import RunFailed, UserError
from optevo.escaping import spelled, tolerate_any_text
from optevo.files import write_text
from optevo.live import make_console
from optevo.workers.local_pool import LocalPool

HOSTILE = "Δ \ud800 \0 \x1b[2J \u202e 探"
ENCODINGS = ("ascii", "cp1252", "utf-8", "utf-16")


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """The command line on streams of an encoding."""

    def call(encoding: str, *arguments: str) -> tuple[int, str, str]:
        out, err = Stream(encoding), Stream(encoding)
        status: Any = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["optevo", *arguments])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                cli.main()
            except SystemExit as error:
                status = error.code or 0
        return status, out.text(), err.text()

    return call


@pytest.fixture
def hostile(here: None) -> None:
    """A database with a study of odd words, a half-done one and two that can be compared."""
    for i, name in enumerate(("first", "second")):
        measured(name, drawn(i))
    study = stored("odd")
    storage, space = study._storage, config("odd").make_space()
    storage.set_study_user_attr(study._study_id, keys.ENVIRONMENT, {"machine": HOSTILE, "torch": "Δ"})
    for fitness in (0.5, None):
        trial = study.ask()
        candidate = space.candidate(space.suggest(trial))
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        for key in (keys.FORMULA, keys.HYPERPARAMETERS, keys.ERROR, keys.PRUNED_BY):
            trial.set_user_attr(key, HOSTILE)
        if fitness is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, fitness)


@pytest.mark.parametrize(
    "encoding", [ENCODINGS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in ENCODINGS[1:3])]
)
def test_what_a_command_has_done_is_told_in_any_encoding(hostile, typed, encoding: str):
    for command in (
        ("status",),
        ("show", "--study", "first"),
        ("show", "0", "--study", "odd"),
        ("show", "1", "--study", "odd"),
        ("export", "0", "--study", "odd", "--output", "größe.py"),
        ("compare", "first", "second", "--output", "Δ\udcff"),
        ("report", "first", "second", "odd", "--output", "\x1b[31mΔ.html"),
        ("data", "check", "--data-dir", "\udcff"),
        ("storage", "save", "odd", "--output", "Δ\udcff.json"),
        ("storage", "load", "Δ\udcff.json", "--storage", "sqlite:///Δ.db"),
        ("storage", "copy", "--from", "sqlite:///optevo.db", "--to", "sqlite:///Δ2.db"),
        ("repair", "odd"),
        ("--help",),
    ):
        status, out, err = typed(encoding, *command)
        assert status == 0, (command, out, err)
        assert out.strip(), command
        assert not {"\x1b", "\0", "\udcff", "\u202e"} & {*out}, command


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("error", "status"), [(UserError, 2), (RunFailed, 1)])
def test_an_error_is_told_in_any_encoding(typed, monkeypatch, encoding: str, error: Any, status: int):
    def fail(**_: str) -> None:
        raise error(f"no {HOSTILE}\nat all")

    monkeypatch.setattr(cli, "app", fail)
    ended, _, err = typed(encoding, "status")
    assert ended == status
    assert err.startswith("optevo: no ")
    assert len(err.splitlines()) == 2
    assert not {"\x1b", "\0"} & {*err}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_process_says_its_last_words_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str):
    out, err = Stream(encoding), Stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    tolerate_any_text()
    handler = logging.StreamHandler(err)
    handler.handle(logging.makeLogRecord({"msg": f"logged {HOSTILE}"}))
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError:
        traceback.print_exc()
    print(HOSTILE)
    assert "logged" in err.text()
    assert "RuntimeError" in err.text()
    assert out.text().strip()
    assert "Logging error" not in err.text()


def test_a_worker_prints_utf_8_whatever_the_locale_and_its_reader_reads_that(tmp_path: Path):
    code = (
        "import sys; from optevo.escaping import tolerate_any_text; from optevo.liveness.processes import *\n"
        "tolerate_any_text('utf-8'); sys.stdout = sys.stderr = PipeSafeOutput(sys.stdout)\n"
        "print('Δ = ±1', chr(0xd800)); raise RuntimeError('β₁ ' + chr(0xdcff))"
    )
    pool = LocalPool([[sys.executable, "-c", code]], {**os.environ, "PYTHONIOENCODING": "ascii"})
    ended = []
    while not ended:
        ended = pool.tend(0)
        pool.replacements.limit = 0
    pool.close()
    assert "Δ = ±1 \\ud800" in ended[0].output_tail
    assert "RuntimeError: β₁ \\udcff" in ended[0].output_tail


def test_letters_are_spelled_where_there_are_none_and_kept_where_there_are():
    formula = "Δ = 0.5·m̂/(√v̂ + 1e-8) ± ∞ → β₁"
    assert spelled(formula, "utf-8") == formula
    assert spelled(formula, "ascii") == "Delta = 0.5*m^/(sqrt v^ + 1e-8) +/- inf -> beta1"
    assert spelled(formula, "cp1252") == "Delta = 0.5·m^/(sqrt v^ + 1e-8) ± inf -> beta1"
    assert spelled("a\x1b[2J\0\n\tb\r", "ascii") == "a\\x1b[2J\\x00\n\tb\\r"
    assert spelled("探\ud800", "latin-1") == "\\u63a2\\ud800"


def test_a_table_stays_straight_where_letters_are_spelled(typed, monkeypatch: pytest.MonkeyPatch):
    def show(**_: str) -> None:
        table = Table("Δ", "±")
        table.add_row("1 → 2", "探")
        options.console.print(table)

    monkeypatch.setattr(cli, "app", show)
    _, out, _ = typed("ascii")
    assert len({len(line) for line in out.splitlines()}) == 1


def test_a_file_is_utf_8_and_takes_any_text(tmp_path: Path):
    write_text(tmp_path / "a", "Δ \ud800")
    assert (tmp_path / "a").read_bytes() == b"\xce\x94 \\ud800"


def test_commands_are_listed_in_the_order_of_their_use(typed):
    _, out, _ = typed("utf-8", "--help")
    listed = re.findall(r"^│ ([a-z]+)  ", out, flags=re.MULTILINE)
    known = [name for names in PANELS.values() for name in names]
    assert listed[:4] == ["run", "init", "status", "top"]
    assert [name for name in known if name in listed] == listed


LONG = "word " * 60


@pytest.mark.parametrize(
    ("columns", "tty", "widest"), [(None, False, 300), ("60", False, 60), ("60", True, 60)]
)
def test_lines_are_whole_in_a_pipe_and_fit_what_has_a_width(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, tty: bool, widest: int
):
    out = Stream("utf-8")
    monkeypatch.setattr(out, "isatty", lambda: tty)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console = make_console()
    console.print(LONG.strip(), highlight=False)
    table = Table("a", "b")
    table.add_row(LONG, LONG)
    console.print(table)
    said, *rows = re.sub(r"\x1b\[[\d;]*m", "", out.text()).splitlines()
    assert (len(said) > 160) == (widest > 160)
    assert max(map(len, rows)) <= min(widest, 160)
