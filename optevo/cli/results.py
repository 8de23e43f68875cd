"""`optevo compare`, `ablate` and `report`: what a search was worth."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import os
from pathlib import Path
from typing import Annotated

import typer

from optevo.cli.options import (
    DEFAULT_STORAGE,
    DataDir,
    Storage,
    check_output,
    console,
    print_cells,
    told_when_interrupted,
)
from optevo.errors import UserError

Studies = Annotated[list[str], typer.Argument(help="Names of studies.", metavar="STUDY...")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core, or one a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Reference = Annotated[
    str | None,
    typer.Option(
        help="The study that the others are compared with. Default: a baseline's sweep, else the first."
    ),
]
Measure = Annotated[str, typer.Option(help="What is compared: `metric` (the tasks' own) or `fitness`.")]


def compare(
    studies: Studies,
    storage: Storage = DEFAULT_STORAGE,
    steps: Annotated[int | None, typer.Option(min=1, help="Mini-batches a run. Default: 1000.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=1000, help="Runs a task. Default: 3.")] = None,
    reference: Reference = None,
    measure: Measure = "metric",
    budget: Annotated[
        str,
        typer.Option(
            help="Equal `steps` for all, or equal `flops`: the operations of so many steps with AdamW."
        ),
    ] = "steps",
    again: Annotated[
        bool, typer.Option("--again", help="Read the test split once more, and mark the result.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("comparison"),
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Compare studies' winners on the test split: trained with the final budget, once a study."""
    from optevo.api.comparing import compare as compared
    from optevo.reporting.costs import cost_cells
    from optevo.reporting.tables import difference_cells, study_cells, summary_cells

    _check_folder(output)
    with told_when_interrupted():
        found = compared(
            *studies,
            steps=steps,
            seeds=seeds,
            reference=reference,
            measure=measure,
            budget=budget,
            again=again,
            storage=storage,
            workers=workers,
            device=device,
            data_dir=data_dir,
            progress=console,
        )
    name = "metric" if measure == "metric" else "fitness"
    for reading in found.readings:
        title = f"{name} on the test split, {reading.budget}: mean ± sd over seeds"
        print_cells(title, summary_cells(reading.summary))
        if len(reading.differences):
            print_cells("paired by task and seed", difference_cells(reading.differences))
        if len(reading.costs):
            print_cells("what a training step costs", cost_cells(reading.costs))
    print_cells("found with", study_cells(found.found_with))
    for caveat in found.caveats:
        console.print(caveat)
    found.write(output)
    names = ("runs", "summary", "differences", "costs")
    files = [
        f"{n}{one.ending}.csv" for one in found.readings for n in names if n != "costs" or len(one.costs)
    ]
    console.print(f"tables are in {output}/: comparison.md, {', '.join(files)}, studies.csv")


def ablate(
    study: Annotated[str, typer.Argument(help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    adamw: Annotated[
        str | None, typer.Option(help="A sweep of AdamW. Default: the database's, with the same tasks.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Mini-batches a run. Default: the study's.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs a task.")] = 3,
    measure: Measure = "metric",
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("ablation"),
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Take the winner apart, on the validation split: did its rule, its schedule or its tuning win?"""
    from optevo.api.comparing import ablate as taken_apart

    _check_folder(output)
    with told_when_interrupted():
        found = taken_apart(
            study,
            adamw=adamw,
            steps=steps,
            seeds=seeds,
            measure=measure,
            storage=storage,
            workers=workers,
            device=device,
            data_dir=data_dir,
            progress=console,
        )
    print_cells(f"{found.budget}, {measure}", found.cells)
    if found.note:
        console.print(found.note)
    if found.account is not None:
        print_cells("the gain over tuned AdamW, one thing changed at a time", found.account)
    if found.tuned is not None:
        console.print(found.tuned)
    for mark in found.marks:
        console.print(mark)
    found.write(output)
    console.print(f"tables are in {output}/: ablation.md, ablation.csv")


def report(
    studies: Studies,
    storage: Storage = DEFAULT_STORAGE,
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    reference: Reference = None,
    measure: Measure = "metric",
) -> None:
    """Write one HTML page about studies, with figures, that opens without a network."""
    from optevo.api.reports import report as written

    check_output(output)
    written(*studies, output=output, reference=reference, measure=measure, storage=storage)
    console.print(f"wrote {output}: open it in a browser")


def _check_folder(folder: Path) -> None:
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        is_folder, writable = existing.is_dir(), os.access(existing, os.W_OK)
    except OSError as error:
        raise UserError(f"--output {folder}: {error.strerror}") from None
    if not is_folder:
        raise UserError(f"--output {folder}: {existing} is a file, give a folder")
    if not writable:
        raise UserError(f"--output {folder}: permission denied")
