"""`optevo init`: a folder to start from."""

from __future__ import annotations

# ruff: noqa: PLC0415
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from optevo.cli.options import console
from optevo.errors import UserError
from optevo.naming import hint

STUDY_FILE = "search.toml"


def init(
    folder: Annotated[Path, typer.Argument(help="Made if missing.", metavar="FOLDER")] = Path(),
    task: Annotated[
        str,
        typer.Option(
            help="`class`: a task in Python; `images`, `table` or `text`: your own data without code."
        ),
    ] = "class",
) -> None:
    """Write a commented study file with a task to start from; nothing is overwritten."""
    from optevo.cli.starts import STARTS, STUDY

    if task not in STARTS:
        raise UserError(f"--task {task!r}: {hint(task, list(STARTS))}")
    start = STARTS[task]
    name = re.sub(r"\W+", "_", folder.absolute().name).strip("_") or "search"
    study = STUDY.format(name=name[:100], task=start.task, steps=start.steps, batch_size=start.batch_size)
    files = {STUDY_FILE: study.encode(), **start.files()}
    try:
        _write(folder, files)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
    for path in sorted({path.split("/")[0] for path in files}):
        console.print(f"wrote {folder / path}", highlight=False)
    console.print("next:")
    if folder.resolve() != Path.cwd():
        console.print(f"  cd {shlex.quote(str(folder))}", highlight=False)
    for line in (f"optevo run {STUDY_FILE}", "optevo top", "optevo export best"):
        console.print(f"  {line}", highlight=False)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder")
    there = [path for path in sorted({path.split("/")[0] for path in files}) if (folder / path).exists()]
    if there:
        raise UserError(f"{folder} has {' and '.join(there)} already: give another folder")
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("xb") as file:
            file.write(content)
