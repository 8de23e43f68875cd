"""`optevo correlate`: how well a cheap evaluation predicts a dear one."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
from pathlib import Path
from typing import Annotated

import typer

from optevo.cli.completion import complete_study
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, Storage, check_output, console, print_cells
from optevo.errors import UserError

Studies = Annotated[
    list[str],
    typer.Argument(
        help="A study with stages or screening; or a cheap study and a dear one.",
        metavar="STUDY...",
        autocompletion=complete_study,
    ),
]


def correlate(
    studies: Studies,
    storage: Storage = DEFAULT_STORAGE,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many are the best. Default: 5, or all of fewer.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Write each candidate's two scores to this file.", metavar="CSV")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank correlations of two evaluations of the same candidates, and how many of the best are found."""
    from optevo.files import write_text
    from optevo.reporting.agreement import (
        agreements,
        candidates_frame,
        correlation_cells,
        correlations_frame,
    )
    from optevo.storage.opening import open_storage
    from optevo.study.studies import load_study

    names = list(dict.fromkeys(studies))
    if len(names) > 2:
        raise UserError(f"{len(names)} studies were named: give one, or a cheap one and a dear one")
    for file in filter(None, (csv, candidates)):
        check_output(file)
    opened = open_storage(storage)
    found = agreements([load_study(opened, name) for name in names])
    frame = correlations_frame(found, top)
    each = candidates_frame(found)
    if as_json:
        print_json({"correlations": frame, "candidates": each})
    else:
        print_cells("how the first evaluation ranks what the second does", correlation_cells(frame))
    console.print("Who diverged ranks last; who lost a race or was refused is left out.")
    if len(names) == 1:
        console.print(
            "Within a study the first evaluation chose whom the second was given to, so it has done harder "
            "work than these numbers say."
        )
    for path, table in ((csv, frame), (candidates, each)):
        if path is not None:
            write_text(path, table.to_csv(index=False))
            console.print(f"wrote {path}")
