"""`optevo data`: what data sets are there, and getting what is not."""

from __future__ import annotations

# ruff: noqa: PLC0415
from typing import Annotated

import typer
from rich.table import Column, Table

from optevo.cli.completion import complete_data
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DataDir, console

app = typer.Typer(help="Data sets: what is there, and getting what is not.", no_args_is_help=True)


@app.command("check")
def data_check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Data sets. Default: all.", autocompletion=complete_data)
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What is there, and its checksums."""
    from optevo.escaping import printable
    from optevo.tasks.data import NAMES, check
    from optevo.tasks.roots import data_root

    root = data_root(data_dir, needed=names != ["digits"])
    found = {name: check(name, root) for name in names or NAMES}
    if as_json:
        files = [{"data_set": name, **vars(row)} for name, rows in found.items() for row in rows]
        print_json({"root": root, "files": files})
        return
    console.print(f"data root: {printable(str(root))}")
    columns = ("data set", "file or folder", "found", "bytes", "files", "SHA-256")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    notes: list[str] = []
    for name, rows in found.items():
        for row in rows:
            size = "" if row.size is None else str(row.size)
            count = "" if row.count is None else str(row.count)
            digest = row.sha256 or ""
            known = "" if row.published is None else " (as published)" if row.published else " (other)"
            shown = row.path.relative_to(root) if row.path.is_relative_to(root) else row.path
            table.add_row(
                name, printable(str(shown)), "yes" if row.found else "no", size, count, digest[:16] + known
            )
            notes += row.notes
    console.print(table)
    for note in notes:
        console.print(f"note: {printable(note)}", soft_wrap=True)


@app.command("get")
def data_get(
    name: Annotated[
        str, typer.Argument(help="Such as mnist; see `optevo data check`.", autocompletion=complete_data)
    ],
    data_dir: DataDir = None,
) -> None:
    """Download a data set, where there is a network."""
    from optevo.escaping import printable
    from optevo.tasks.data import get
    from optevo.tasks.roots import data_root

    root = data_root(data_dir, needed=name != "digits")
    rows = get(name, root)
    console.print(f"{name} is complete in {printable(str(rows[0].path.parent))}")
