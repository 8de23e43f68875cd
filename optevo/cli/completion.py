"""Names of studies and data sets for the shell: at once, or none. An error here would end in the prompt."""

from __future__ import annotations

# ruff: noqa: PLC0415
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from optevo.cli.options import DEFAULT_STORAGE

_SECONDS = 1  # to wait for a database
_NAMES = "SELECT study_name FROM studies ORDER BY study_id"


def complete_study(ctx: typer.Context, incomplete: str) -> list[str]:
    """The studies of the database that the command line, or the environment, names so far."""
    url = ctx.params.get("storage") or os.environ.get("OPTEVO_STORAGE") or DEFAULT_STORAGE
    with contextlib.suppress(Exception):
        return [name for name in _study_names(str(url)) if name.startswith(incomplete) and name.isprintable()]
    return []


def complete_data(incomplete: str) -> list[str]:
    """The data sets by name."""
    with contextlib.suppress(Exception):
        from optevo.tasks.data import NAMES

        return [name for name in NAMES if name.startswith(incomplete)]
    return []


def _study_names(url: str) -> list[str]:
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        uri = f"{file.absolute().as_uri()}?mode=ro"  # a file that isn't there is not made
        with contextlib.closing(sqlite3.connect(uri, timeout=_SECONDS, uri=True)) as connection:
            return [str(name) for (name,) in connection.execute(_NAMES)]
    if not url.startswith("postgresql"):
        return []  # a proxy is asked by Optuna alone, which takes seconds to import
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": _SECONDS})
    with engine.connect() as connection:
        return [str(name) for (name,) in connection.exec_driver_sql(_NAMES)]


StudyOrNone = Annotated[
    str | None,
    typer.Argument(
        help="The study; needed where there are several.",
        metavar="STUDY",
        show_default=False,
        autocompletion=complete_study,
    ),
]
