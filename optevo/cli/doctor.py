"""`optevo doctor`: what is installed, what is there, and what to mend."""

from __future__ import annotations

# ruff: noqa: PLC0415
import functools
from collections.abc import Callable, Iterator

import typer

from optevo.cli.json_output import Json, print_json
from optevo.cli.options import DEFAULT_STORAGE, DataDir, Storage, console, print_cells
from optevo.escaping import printable


def doctor(storage: Storage = DEFAULT_STORAGE, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Look at versions, devices, compiler, data and storage, and say what to mend."""
    from optevo.cli import checkup

    areas: dict[str, Callable[[], Iterator[checkup.Finding]]] = {
        "versions": checkup.versions,
        "devices": checkup.devices,
        "compiler": checkup.compiler,
        "data": functools.partial(checkup.data, data_dir),
        "storage": functools.partial(checkup.storage, storage),
    }
    found = [one for area, look in areas.items() for one in checkup.findings(area, look)]
    to_mend = sum(one.level == checkup.MEND for one in found)
    if as_json:
        print_json({"ok": not to_mend, "findings": found})
    else:
        cells = [["area", "what", "found", "", "what to do"]]
        cells += [[*map(printable, (one.area, one.what, one.found, one.level, one.remedy))] for one in found]
        print_cells("optevo doctor", cells)
        console.print(f"{to_mend} to mend" if to_mend else "nothing to mend")
    raise typer.Exit(1 if to_mend else 0)
