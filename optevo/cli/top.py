"""`optevo top`: the best trials of a study."""

from __future__ import annotations

# ruff: noqa: PLC0415
from typing import Annotated

import typer

from optevo.cli.completion import StudyOrNone
from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, Storage, console, load_one, print_cells
from optevo.escaping import printable


def top(
    n: Annotated[int, typer.Argument(help="How many.", min=1, metavar="N")] = 10,
    study: StudyOrNone = None,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """The best trials of a study, no two of the same optimizer."""
    from optevo.reporting.text import TEST_MARK
    from optevo.reporting.top import top as best
    from optevo.reporting.top import top_cells

    loaded, config = load_one(storage, study)
    frame = best(loaded, n)
    if as_json:
        print_json({"study": loaded.study_name, "split": config.evaluation.split, "trials": frame})
        return
    print_cells(f"the best of {printable(loaded.study_name)}", top_cells(frame))
    if config.evaluation.split == "test":
        console.print(TEST_MARK)
