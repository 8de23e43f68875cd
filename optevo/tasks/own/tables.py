"""A user's own table as a task: rows of a CSV or parquet file, a column of which is learned."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from optevo.errors import UserError
from optevo.naming import hint
from optevo.tasks.base import Split, Splits, Task
from optevo.tasks.folders import warn
from optevo.tasks.layers import Dropout, build
from optevo.tasks.own.columns import Array, as_numbers, cell, features
from optevo.tasks.own.options import Shares, chosen, names, refuse, whole
from optevo.tasks.roots import find

if TYPE_CHECKING:
    import pandas as pd

_CLASSES = 20  # most values of a column of whole numbers that is taken for classes


class Table(Task):
    """A user's own table and the column to predict, by a network of dense layers.

    Args:
        name: Of the task.
        path: Of a CSV file, gzipped or not, or a parquet file. See `optevo.tasks.roots.find`.
        target: The column to predict.
        problem: "classification" or "regression". Default: None, classification where the target is text,
            true or false, or whole numbers of at most 20 values; else regression.
        sizes: Of the hidden layers. Default: 64, 64.
        dropout: After each hidden layer. Default: 0, none.
        categorical: Columns of numbers that are names. Default: none.
        drop: Columns to leave out. Default: none.
        separator: Of a CSV file. Default: ",", in a ``.tsv`` a tab.
        decimal: Of a CSV file's numbers. Default: ".".
        validation: Share of the rows. Default: 0.15.
        test: The same. Default: 0.15.
        seed: Of the split. Default: 0.

    Raises:
        UserError: An option has no such value.
    """

    def __init__(
        self,
        name: str,
        path: str,
        *,
        target: str,
        problem: str | None = None,
        sizes: Sequence[int] = (64, 64),
        dropout: float = 0.0,
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        separator: str | None = None,
        decimal: str = ".",
        validation: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
    ) -> None:
        self.name, self.path, self.target = name, path, target
        self.problem = problem and chosen(name, "problem", problem, ("classification", "regression"))
        self.sizes = [
            whole(name, "sizes", size) for size in (sizes if isinstance(sizes, list | tuple) else [sizes])
        ]
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise refuse(name, "dropout", dropout, "at least 0 and below 1")
        self.dropout = dropout
        self.categorical, self.drop = names(name, "categorical", categorical), names(name, "drop", drop)
        if target in self.drop:
            raise refuse(name, "drop", drop, f"columns other than the target {target!r}")
        for option, mark in (("separator", separator or ","), ("decimal", decimal)):
            if not isinstance(mark, str) or len(mark) != 1:
                raise refuse(name, option, mark, "one character")
        self.separator, self.decimal = separator, decimal
        self.shares = Shares(name, validation, test, seed)
        self.classes: list[str] = []
        self.inputs = 0

    def load(self, root: Path) -> Splits:
        place = find(self.path, root, f"task {self.name!r}")
        with _told(place, self.name):
            table = self._read(place)
            self.identity = hashlib.sha256(place.read_bytes()).hexdigest()[:16]
        for option, columns in (
            ("target", [self.target]),
            ("categorical", self.categorical),
            ("drop", self.drop),
        ):
            for column in columns:
                if column not in table:
                    raise UserError(
                        f"task {self.name!r}: option {option}: {place} has no column {column!r}: "
                        f"{hint(column, map(str, table))}"
                    )
        table = self._with_target(table.drop(columns=self.drop), place)
        values = self._targets(table[self.target], place)
        parts = self._split(table, values if self.classes else np.zeros_like(values), place)
        if not self.classes:
            learned = values[parts["train"]]
            values = ((values - learned.mean()) / (learned.std() or 1.0))[:, None].astype(np.float32)
            # A class names its loss and its metric; which it is, the data have said.
            self.__class__ = Regression
        inputs = features(table.drop(columns=[self.target]), parts["train"], self.categorical, str(place))
        self.inputs = inputs.shape[1]
        return {
            name: Split(torch.from_numpy(inputs[part]), torch.from_numpy(values[part]))
            for name, part in parts.items()
        }

    def _read(self, place: Path) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415 - half a second that only tables need

        if place.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(place)
            header = table.columns.to_series()
        else:
            separator = self.separator or ("\t" if ".tsv" in place.suffixes else ",")
            with warnings.catch_warnings():
                # Rows that are longer than the header.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    place,
                    sep=separator,
                    decimal=self.decimal,
                    encoding="utf-8-sig",
                    index_col=False,
                    low_memory=False,
                )
            if len(table.columns) == 1 and (mark := next((m for m in ";\t|" if m in table.columns[0]), None)):
                raise ValueError(f"its header is one column, {table.columns[0]!r}: say separator = {mark!r}")
            # As it stands there: pandas calls a second column of a name otherwise.
            header = pd.read_csv(
                place, sep=separator, encoding="utf-8-sig", header=None, nrows=1, dtype=str
            ).iloc[0]
        header = header.dropna().astype(str).str.strip()
        if (twice := header.duplicated()).any():
            raise ValueError(f"two of its columns are called {header[twice].iloc[0]!r}: rename one")
        table = table.reset_index(drop=True).rename(columns=lambda name: str(name).strip())
        for name in table:
            if pd.api.types.is_string_dtype(table[name]):
                text = table[name].str.strip()
                table[name] = text.where(text != "")  # blanks are no text
        return table

    def _with_target(self, table: pd.DataFrame, place: Path) -> pd.DataFrame:
        """The rows that have a target."""
        missing = table[self.target].isna().to_numpy()
        if missing.any():
            first = cell(table[self.target], missing)
            warn(f"{place}: rows without a target, which are left out: {missing.sum()}, first {first}")
        return table[~missing]

    def _targets(self, column: pd.Series, place: Path) -> Array:
        """Class numbers, with `classes` set, or float64 numbers."""
        values = (
            None
            if self.problem == "classification"
            else as_numbers(column, str(place), 'say problem = "classification"')
        )
        if values is None and self.problem == "regression":
            raise UserError(
                f"task {self.name!r}: column {self.target!r} of {place} is text, so it has no regression"
            )
        if values is not None and self.problem is None:
            few = len(np.unique(values)) <= _CLASSES and (values == np.round(values)).all()
            values = None if few or column.dtype == bool else values
        if values is not None:
            return values
        numeric = column.dtype.kind in "biuf"  # sorted as numbers; all else as text
        known, numbers = np.unique(
            (column if numeric else column.astype(str)).to_numpy(), return_inverse=True
        )
        if not 2 <= len(known) <= len(column) / 2:
            raise UserError(
                f"task {self.name!r}: column {self.target!r} of {place} has {len(known)} classes in "
                f'{len(column)} rows: name another target, or say problem = "regression" if it is a quantity'
            )
        self.classes = [str(one) for one in known]
        return numbers.astype(np.int64)

    def _split(self, table: pd.DataFrame, labels: Array, place: Path) -> dict[str, Array]:
        """Positions of the rows of each part."""
        if (copies := table.astype(str).duplicated().to_numpy()).any():
            first = cell(table[self.target], copies).partition(",")[0]
            warn(
                f"{place}: rows that equal earlier ones: {copies.sum()}, first {first}; they may be in "
                "another part than those, so take them out if they are there by mistake"
            )
        parts = self.shares.draw(labels.tolist(), ("validation", "test"))
        return {name: np.sort(np.array(part)) for name, part in parts.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        outputs = len(self.classes) or 1

        def layers() -> nn.Module:
            found: list[nn.Module] = []
            for inputs, size in zip([self.inputs, *self.sizes], self.sizes, strict=False):
                found += [nn.Linear(inputs, size), nn.ReLU()]
                found += [Dropout(self.dropout)] if self.dropout else []
            return nn.Sequential(*found, nn.Linear([self.inputs, *self.sizes][-1], outputs))

        return build(layers, generator)


class Regression(Table):
    """A table whose target is a quantity, in units of its deviation among the training rows."""

    loss = "mse"  # type: ignore[assignment]
    metric = "r2"


@contextlib.contextmanager
def _told(place: Path, task: str) -> Iterator[None]:
    """What is wrong with the file is told in a message."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"task {task!r}: reading {place} needs pyarrow: `pip install pyarrow`, or save the table as CSV"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"task {task!r}: {place} is no UTF-8 text ({error}): save it as UTF-8") from error
    except (OSError, EOFError, ValueError, Warning) as error:  # pandas' and pyarrow's errors are of these
        said = " ".join(str(error).split())
        raise UserError(f"task {task!r}: {place} can't be read as a table ({said}): correct it") from error
