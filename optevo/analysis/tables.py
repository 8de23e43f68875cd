"""Tables of a report, as HTML in which nothing of a database is markup."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from optevo.progress import result_cells
from optevo.stored import plain

if TYPE_CHECKING:
    from optevo.config import StudyConfig
    from optevo.evaluation.rerun import Result

Cell = str | tuple[object, object]
BADGE = '<span class="badge">selected on the test split</span>'


def escape(value: object) -> str:
    """Anybody's text as HTML."""
    return html.escape(plain(str(value)))


def badge(config: StudyConfig) -> str:
    """The mark of a study whose search saw the test split, empty for others."""
    return f" {BADGE}" if config.evaluation.split == "test" else ""


def result_table(result: Result, config: StudyConfig) -> str:
    """The candidates on fresh seeds, the winner last."""
    header, *rows = result_cells(result)
    caption = (
        f"Fitness, and each task’s metric, on fresh seeds: mean ± sample standard deviation.{badge(config)}"
    )
    return table(header, rows, caption, numbers=range(1, len(header)), best_row=len(rows) - 1)


def trial_table(top: pd.DataFrame, config: StudyConfig, winner: int | None) -> str:
    """The fittest trials of the search, best first; the winner on fresh seeds stands out."""
    rows: list[list[Cell]] = [
        [
            f"{row['number']}",
            f"{row['fitness']:.4f}",
            "" if pd.isna(row["generation"]) else f"{row['generation']}",
            row["origin"] if isinstance(row["origin"], str) else "",
            (row["formula"], row["hyperparameters"]),
        ]
        for row in top.to_dict("records")
    ]
    header = ["trial", "fitness", "generation", "origin", "rule"]
    caption = f"The fittest trials, no two the same optimizer, by fitness in the search.{badge(config)}"
    found = [int(number) for number in top["number"]]
    place = found.index(winner) if winner in found else None
    return table(header, rows, caption, numbers=(1, 2), best_row=place)


def comparison_tables(
    summary: pd.DataFrame | None, differences: pd.DataFrame | None, on_test: Collection[str]
) -> str:
    """Studies beside each other, and their paired differences, as tables."""
    parts = []
    for frame, caption, numbers in (
        (summary, "Fitness: mean and standard deviation over n runs.", ("mean", "sd", "n")),
        (
            differences,
            "Differences in fitness, paired by task and seed, with their intervals.",
            ("mean", "interval", "p", "p_holm", "n"),
        ),
    ):
        if frame is None or frame.empty:
            continue
        if {"low", "high"} <= set(frame.columns):
            frame = _with_interval(frame)
        header = [str(name) for name in frame.columns]
        marked = [header.index(name) for name in ("study", "reference") if name in header]
        rows = [[_cell(name, value) for name, value in row.items()] for row in frame.to_dict("records")]
        columns = [i for i, name in enumerate(header) if name in numbers]
        words = [{"p_holm": "p (Holm)"}.get(name, name) for name in header]
        parts.append(table(words, rows, caption, numbers=columns, marks=dict.fromkeys(marked, on_test)))
    return "".join(parts)


def _with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    ends = zip(frame["low"], frame["high"], strict=True)
    interval = [f"{_cell('low', float(low))} to {_cell('high', float(high))}" for low, high in ends]
    place = [str(name) for name in frame.columns].index("low")
    rest = frame.drop(columns=["low", "high"])
    rest.insert(place, "interval", interval)
    return rest


def _cell(name: object, value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:.2g}" if name in ("p", "p_holm") else f"{value:.4f}".replace("-", "−")
    return str(value)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    caption: str,
    *,
    numbers: Collection[int] = (),
    best_row: int | None = None,
    marks: Mapping[int, Collection[str]] | None = None,
) -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        header: Names of the columns.
        rows: Cells as text; a pair is a rule with its hyperparameters beneath.
        caption: HTML.
        numbers: Columns that are aligned to the right. Default: none.
        best_row: A row to stand out. Default: none.
        marks: By column, the texts that get the badge of the test split. Default: none.
    """

    def cell(i: int, value: Cell, tag: str = "td") -> str:
        if isinstance(value, tuple):
            rule, described = (escape(part) if isinstance(part, str) else "" for part in value)
            return f'<td class="rule">{rule}<small>{described}</small></td>'
        kind = ' class="number"' if i in numbers else ""
        mark = f" {BADGE}" if tag == "td" and value in (marks or {}).get(i, ()) else ""
        return f"<{tag}{kind}>{escape(value)}{mark}</{tag}>"

    head = "".join(cell(i, name, "th") for i, name in enumerate(header))
    body = ""
    for place, row in enumerate(rows):
        kind = ' class="best"' if place == best_row else ""
        body += f"<tr{kind}>{''.join(cell(i, value) for i, value in enumerate(row))}</tr>"
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
