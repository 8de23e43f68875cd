"""JSON in the place of tables: the option, and how whatever a command tells becomes JSON.

It goes to standard output alone. What a command says besides goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from optevo import scalars
from optevo.cli.options import console

_MISSING = ("NAType", "NaTType")  # of pandas, which need not be imported to know them


def _messages_aside(value: bool) -> bool:
    console.stderr = value
    return value


Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON on standard output, messages on standard error.", callback=_messages_aside
    ),
]


def print_json(value: Any) -> None:
    """Write one value to standard output, with letters as escapes where it lacks them or might obey them."""
    made = json_ready(value)
    text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
        shown = text.replace("\n", "").isprintable()
    except UnicodeEncodeError:
        shown = False
    sys.stdout.write(f"{text if shown else json.dumps(made, indent=2, allow_nan=False)}\n")


def json_ready(value: Any) -> Any:
    """A value as JSON has it: frames as lists of rows, NaN, infinity and what is missing as None."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a frame of pandas
        value = value.to_dict("records")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_ready(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(inner) for inner in value]
    value = scalars.plain(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return None if type(value).__name__ in _MISSING else str(value)
