"""Helps, versions, completion, colours and exit statuses: what a terminal sees around a command."""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import stored, told
from rich.table import Table

from optevo import __version__, live
from optevo.cli import main as cli
from optevo.cli.completion import complete_study
from optevo.cli.helps import EPILOG, EXAMPLES
from optevo.errors import RunFailed, UserError
from optevo.workers.supervisor import display

COLOUR = re.compile(r"\x1b\[[\d;]*\b(3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


def every_command() -> Iterator[tuple[str, Any]]:
    """All that are not hidden, by what is typed."""
    root = typer.main.get_command(cli.app)
    for name, command in root.commands.items():
        if command.hidden:
            continue
        inner = getattr(command, "commands", None)
        yield from (
            [(name, command)] if inner is None else ((f"{name} {other}", one) for other, one in inner.items())
        )


def test_every_command_stands_in_the_table_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text("utf-8")
    told_of = "\n".join(line for line in page.splitlines() if line.startswith("| `optevo"))
    assert [name for name, _ in every_command() if f"`optevo {name}" not in told_of] == []


def test_every_command_shows_examples_that_parse():
    root = typer.main.get_command(cli.app)
    shown = {name: command.epilog for name, command in every_command()}
    assert {name for name, epilog in shown.items() if not epilog} == set()
    lines = [*re.findall(r"\$ (.*)", EPILOG), *(one for each in EXAMPLES.values() for one in each)]
    for line in lines:
        words = re.split(r" \| | && ", line)[0].split()
        assert words.pop(0) == "optevo"
        command = root
        while hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if hasattr(command, "commands"):
            assert line not in [one for name in shown for one in EXAMPLES.get(name, ())], line
            continue
        command.make_context("optevo", words, resilient_parsing=False)


@pytest.mark.parametrize("name", ["", *(name for name, _ in every_command())])
def test_a_help_fits_80_columns(
    optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = optevo(*name.split(), "--help")
    assert answer.status == 0
    assert "Examples:" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    assert all(f"$ {line}" in answer.out for line in EXAMPLES.get(name, ()))


def test_the_version_is_told(optevo: Callable[..., Any]) -> None:
    assert optevo("--version") == (0, f"optevo {__version__}\n", "")


def complete(optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    monkeypatch.setenv("_OPTEVO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["optevo", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    answer = optevo()
    assert answer.err == ""
    return str(answer.out).split()


def test_commands_studies_and_data_sets_are_completed(
    optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told("first")
    stored("second", url="sqlite:///other.db")
    assert complete(optevo, monkeypatch, "sta") == ["status"]
    asked = ("show --study f", "top 3 f", "compare f", "report x fi", "promote f")
    for words in map(str.split, asked):
        assert complete(optevo, monkeypatch, *words) == ["first"]
    other = ("--storage", "sqlite:///other.db")
    assert complete(optevo, monkeypatch, "show", *other, "--study", "") == ["second"]
    assert complete(optevo, monkeypatch, "data", "get", "fash") == ["fashion_mnist"]
    monkeypatch.setenv("OPTEVO_STORAGE", "sqlite:///other.db")
    assert complete(optevo, monkeypatch, "repair", "") == ["second"]


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite:///no.db", "sqlite:///text.db", "sqlite:///other.db", "sqlite:///a\0b", "x"),
        *(
            "grpc://127.0.0.1:1",
            "postgresql+psycopg://me@127.0.0.1:1/d",
            "postgresql+nothing://me@127.0.0.1/d",
        ),
    ],
)
def test_a_database_that_cannot_be_asked_completes_nothing(here: None, url: str) -> None:
    Path("text.db").write_text("nothing of the kind " * 100)
    sqlite3.connect("other.db").close()
    context: Any = typer.Context(typer.main.get_command(cli.app))
    context.params = {"storage": url}
    assert complete_study(context, "") == []
    assert not Path("no.db").exists()


@pytest.mark.parametrize(
    ("environment", "coloured", "steered"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
)
def test_colours_are_left_out_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool, steered: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    console = live.make_console()
    console.print("1 of 2 at https://a.b/", style="bold red")
    console.print(Table("a", style="red"))
    assert bool(COLOUR.search(out.getvalue())) is coloured
    assert ("\x1b" in out.getvalue()) is steered
    with display(console, Shown()) as show:
        show()
    assert ("\x1b[?25l" in out.getvalue()) is steered  # the cursor of a live table
    assert ("a line" in out.getvalue()) is not steered


class Shown:
    """A search that tells one line."""

    counted = 0

    def lines(self) -> list[str]:
        return ["a line"]

    def table(self) -> Table:
        return Table("a table")


def test_nothing_but_text_goes_into_a_pipe(optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    stored(trials=1)
    monkeypatch.setenv("TERM", "xterm-256color")
    for command in (["status"], ["top"], ["show", "0"], ["--help"], ["top", "--help"], ["nonsense"]):
        answer = optevo(*command)
        assert "\x1b" not in answer.out + answer.err


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, 0), (RunFailed("x"), 1), (UserError("x"), 2), (KeyboardInterrupt(), 130)],
)
def test_how_a_command_ends_is_its_exit_status(
    optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, raised: BaseException | None, status: int
) -> None:
    def names(storage: Any) -> list[str]:
        if raised is not None:
            raise raised
        return []

    stored()
    monkeypatch.setattr("optevo.study.studies.study_names", names)
    assert optevo("status").status == status


def test_what_is_mistyped_ends_in_status_2(optevo: Callable[..., Any]) -> None:
    for words in ([], ["nonsense"], ["status", "--nonsense"], ["top", "many"], ["storage"]):
        assert optevo(*words).status == 2


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_ends_in_status_130(optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stored()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    monkeypatch.setattr("optevo.study.studies.study_names", lambda _: os.kill(os.getpid(), signal.SIGINT))
    try:
        assert optevo("status").status == 130
    finally:
        signal.signal(signal.SIGINT, before)
