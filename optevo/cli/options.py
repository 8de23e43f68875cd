"""What all commands share: the console, options that several have, and their checks."""

from __future__ import annotations

# ruff: noqa: PLC0415
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optevo.errors import UserError
from optevo.live import make_console

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig


console = make_console()

EXIT_STOPPED = 130  # of a command that SIGINT or SIGTERM stopped
DEFAULT_STORAGE = "sqlite:///optevo.db"
Storage = Annotated[
    str,
    typer.Option(
        envvar="OPTEVO_STORAGE",
        help="sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE or grpc://HOST:PORT.",
        metavar="URL",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core, or one a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where data sets lie. Default: $OPTEVO_DATA, else a cache folder.")
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Hand the workers to the Dask scheduler at this address.", metavar="ADDRESS"),
]
AcceptEnvironment = Annotated[
    bool,
    typer.Option("--accept-environment", help="Go on with another optevo or torch than it was begun with."),
]


def check_output(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is made for it.

    Raises:
        UserError: It is a folder, its folder isn't there, or writing is not allowed.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give a file to write")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: permission denied")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def load_one(storage: str, name: str | None) -> tuple[optuna.Study, StudyConfig]:
    """A study that is named, or the only one of a storage, with its configuration."""
    from optevo.storage.opening import open_storage
    from optevo.study.studies import load_study

    return load_study(open_storage(storage), name)


@contextlib.contextmanager
def told_when_interrupted() -> Iterator[None]:
    """Say that nothing is lost, and exit, where SIGINT or SIGTERM stops what runs here."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; what was recorded stays, the same command goes on")
        raise typer.Exit(EXIT_STOPPED) from None


def print_cells(title: str, cells: Sequence[Sequence[str]]) -> None:
    """A table with a title; the first of the cells are its header."""
    from rich.table import Column, Table

    header, *rows = cells
    table = Table(*(Column(name, overflow="fold") for name in header), title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
