"""`optevo export PRESET`: an optimizer that comes with optevo, as a file."""

from __future__ import annotations

# ruff: noqa: PLC0415
from pathlib import Path

from optevo.cli.options import console
from optevo.errors import UserError
from optevo.files import write_text
from optevo.naming import hint


def print_presets() -> None:
    """The presets by name, with their rules."""
    from optevo.optim import PRESETS

    for name, preset in PRESETS.items():
        console.print(f"{name:<20} {preset.formula()}", highlight=False, markup=False, soft_wrap=True)


def is_preset(name: str) -> bool:
    """Whether a preset has this name.

    Raises:
        UserError: There is none, and it names no trial either.
    """
    from optevo.optim import PRESETS

    if name in PRESETS or name == "best" or name.isdecimal():
        return name in PRESETS
    said = hint(name, PRESETS, "`optevo export --list` has the presets' names")
    raise UserError(f"{name!r} is neither `best` nor a trial's number nor a preset's name; {said}")


def class_of(name: str) -> str:
    """What a preset's class is called: evolved_modern, EvolvedModern."""
    return "".join(word.capitalize() for word in name.split("_"))


def write_preset(name: str, output: Path, class_name: str) -> None:
    """Write a preset as a Python file.

    Raises:
        UserError: The class cannot have that name.
    """
    from optevo import __version__
    from optevo.optim import PRESETS

    try:
        source = PRESETS[name].source(class_name, {"preset": name, "written by": f"optevo {__version__}"})
    except ValueError as error:
        raise UserError(str(error)) from None
    write_text(output, source)
    imported = f": from {output.stem} import {class_name}, scheduler"
    console.print(f"wrote {output}" + imported * (output.suffix == ".py"))
