"""`optevo compare`, `ablate` and `report`: what a search was worth."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optevo.cli.completion import complete_study
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import (
    DEFAULT_STORAGE,
    DataDir,
    Device,
    Storage,
    Workers,
    check_output,
    console,
    print_cells,
    told_when_interrupted,
)
from optevo.errors import UserError

if TYPE_CHECKING:
    from optevo.reporting.tables import Reading

Studies = Annotated[
    list[str],
    typer.Argument(help="Names of studies.", metavar="STUDY...", autocompletion=complete_study),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="The study that the others are compared with. Default: a baseline's sweep, else the first.",
        autocompletion=complete_study,
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
    as_json: Json = False,
) -> None:
    """Compare studies' winners on the test split: trained with the final budget, once a study."""
    from optevo.api.comparing import compare as compared
    from optevo.reporting.tables import study_cells

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
    if as_json:
        told = {"reference": found.reference, "measure": measure, "studies": found.found_with}
        readings = [_plain(reading) for reading in found.readings]
        print_json({**told, "caveats": found.caveats, "readings": readings})
    else:
        _print_readings(found.readings, "metric" if measure == "metric" else "fitness")
        print_cells("found with", study_cells(found.found_with))
    for caveat in found.caveats:
        console.print(caveat)
    found.write(output)
    names = ("runs", "summary", "differences", "costs")
    files = [
        f"{n}{one.ending}.csv" for one in found.readings for n in names if n != "costs" or len(one.costs)
    ]
    console.print(f"tables are in {output}/: comparison.md, {', '.join(files)}, studies.csv")


def _plain(reading: Reading) -> dict[str, Any]:
    return {key: value for key, value in reading._asdict().items() if key != "ending"}


def _print_readings(readings: Sequence[Reading], name: str) -> None:
    from optevo.reporting.costs import cost_cells
    from optevo.reporting.tables import difference_cells, summary_cells

    for reading in readings:
        title = f"{name} on the test split, {reading.budget}: mean ± sd over seeds"
        print_cells(title, summary_cells(reading.summary))
        if len(reading.differences):
            print_cells("paired by task and seed", difference_cells(reading.differences))
        if len(reading.costs):
            print_cells("what a training step costs", cost_cells(reading.costs))


def ablate(
    study: Annotated[str, typer.Argument(help="The study's name.", autocompletion=complete_study)],
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
    as_json: Json = False,
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
    if as_json:
        print_json(
            {
                **{"study": study, "measure": measure, "split": "validation", "seeds": seeds},
                **{"budget": found.budget, "adamw": found.adamw, "variants": found.frame},
                "caveats": found.marks,
                "account": [{"what": what, **vars(e), "verdict": said} for what, e, said in found.parts],
            }
        )
    else:
        print_cells(f"{found.budget}, {measure}", found.cells)
        if found.account is not None:
            print_cells("the gain over tuned AdamW, one thing changed at a time", found.account)
    for said in (found.note, found.tuned, *found.marks):
        if said:
            console.print(said)
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
