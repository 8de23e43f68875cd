"""Columns of a table as what a network sees: standardised, one-hot, with what is missing told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from optevo.errors import UserError
from optevo.tasks.folders import warn

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
_NUMBERS = 0.9  # share of the cells of a column of text that makes it one of numbers with slips
_LEVELS = 50  # most levels of a categorical column that have a feature of their own
_SEEN = 2  # training rows that such a level has at least


def features(table: pd.DataFrame, train: Array, categorical: Collection[str], where: str) -> Array:
    """What a network sees of a table's rows; everything is fitted to the training rows alone.

    - Numbers, with true and false as 1 and 0: standardised; a missing one is the median, and where the
      training rows lack some, a feature says so.
    - Text, and what `categorical` names: a feature a level, of the 50 most frequent ones that two training
      rows or more have, missing among them; all others are one level, without a feature.
    - Features with one value in the training rows, and columns of times: left out.

    Args:
        table: Without the target.
        train: Positions of the training rows.
        categorical: Columns of numbers that are names.
        where: The file, for messages.

    Returns:
        float32 (rows, features).

    Raises:
        UserError: A cell is infinite, or no number among numbers; or nothing differs between rows.
    """
    found: list[Array] = []
    for name in table:
        column = table[name]
        if column.dtype.kind in "mM":
            warn(f"{where}: column {name!r} holds times and is left out; give it as numbers to use it")
            continue
        values = None if name in categorical else as_numbers(column, where)
        found += _levels(column, train) if values is None else _numeric(values, train)
    kept = [one for one in found if np.ptp(one[train]) > 0]
    if not kept:
        raise UserError(f"{where}: besides the target no column differs from training row to training row")
    return np.stack(kept, axis=1).astype(np.float32)


def as_numbers(
    column: pd.Series, where: str, otherwise: str = "name the column in the option categorical"
) -> Array | None:
    """A column as float64, NaN where it lacks a cell; None where it is text.

    Args:
        column: Which.
        where: The file, for messages.
        otherwise: What to do where it is meant as text.

    Raises:
        UserError: A cell is infinite, or a few cells are no numbers.
    """
    import pandas as pd  # noqa: PLC0415 - half a second that only tables need

    present = column.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(column) or {*map(type, column[present])} == {bool}:
        values: Array = column.to_numpy(np.float64, na_value=np.nan)
    else:
        text = column[present].astype(str)
        read = pd.to_numeric(text, errors="coerce")
        if slips := int(read.isna().sum()):
            _check_slips(text, slips, read.isna().to_numpy(), where, otherwise)
            return None
        values = np.full(len(column), np.nan)
        values[present] = read
    if (infinite := np.isinf(values)).any():
        raise UserError(
            f"{where}, {cell(column, infinite)}: the number is infinite: correct it, or leave the cell empty"
        )
    return values


def _check_slips(text: pd.Series, slips: int, wrong: Array, where: str, otherwise: str) -> None:
    """Refuse what is no number in a column that else is one of numbers, or one of numbers with commas."""
    first = f"{where}, {cell(text, wrong)}: {text[wrong].iloc[0]!r}"
    if text[wrong].str.fullmatch(r"[+-]?\d+,\d+").all():
        raise UserError(f'{first} is a number with a comma: say decimal = "," in the options')
    if slips <= (1 - _NUMBERS) * len(text):
        raise UserError(f"{first} stands among numbers: correct it, leave the cell empty, or {otherwise}")


def cell(column: pd.Series, flags: Array) -> str:
    """The first cell with a flag, its row as a person counts below the header."""
    return f"row {column.index[np.argmax(flags)] + 1}, column {column.name!r}"


def _numeric(values: Array, train: Array) -> list[Array]:
    missing = np.isnan(values)
    if missing[train].all():
        return []
    filled = np.where(missing, np.nanmedian(values[train]), values)
    scaled = (filled - filled[train].mean()) / (filled[train].std() or 1.0)
    return [scaled, missing.astype(np.float64)]


def _levels(column: pd.Series, train: Array) -> list[Array]:
    cells = zip(column, column.notna(), strict=True)
    levels = np.array([str(one) if there else None for one, there in cells], object)
    counts = Counter(levels[train])
    common = sorted(
        (one for one in counts if counts[one] >= _SEEN), key=lambda one: (-counts[one], one or "")
    )
    return [(levels == level).astype(np.float64) for level in common[:_LEVELS]]
