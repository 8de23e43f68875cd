"""Tables of a report, as HTML in which nothing of a database is markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import pandas as pd

from optevo.escaping import printable
from optevo.reporting.comparison import OVERALL
from optevo.reporting.stages import Held, funnel_cells, held_cells
from optevo.reporting.text import result_cells, told, told_difference, told_hours

if TYPE_CHECKING:
    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

Cell = str | tuple[object, ...]
_EXPONENT = re.compile(r"[\d.]+e[-+]\d+")
BADGE = '<span class="badge">selected on the test split</span>'


def escape(value: object) -> str:
    """Anybody's text as HTML."""
    return html.escape(printable(str(value)))


def rule_text(text: str) -> str:
    """A rule as HTML in which no line ends within a number such as 1e-08."""
    return _EXPONENT.sub(r'<span class="whole">\g<0></span>', escape(text))


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
    rows: list[list[Cell]] = []
    evolved = bool((top["generation"] > 0).any())
    for row in top.to_dict("records"):
        born = [f"generation {row['generation']}"] if evolved and not pd.isna(row["generation"]) else []
        born += [row["origin"]] if isinstance(row["origin"], str) else []
        described = (row["formula"], row["hyperparameters"], ", ".join(born))
        rows.append([f"{row['number']}", f"{row['fitness']:.4f}", described])
    header = ["trial", "fitness", "rule"]
    caption = (
        "The fittest trials by fitness in the search. Trials that agree in rule, hyperparameters and "
        f"schedule, to the last digit, are listed once; others may differ in a single number.{badge(config)}"
    )
    found = [int(number) for number in top["number"]]
    place = found.index(winner) if winner in found else None
    return table(header, rows, caption, numbers=(1,), best_row=place)


def stage_tables(frame: pd.DataFrame, held: Sequence[Held], config: StudyConfig) -> str:
    """Who of `optevo.reporting.stages.funnel` fell in which stage, and whether rankings held, as tables."""
    header, *rows = funnel_cells(frame)
    spent = frame.loc[frame["stage"] > 0, ["trained_steps", "seconds"]].sum()
    caption = (
        "Fitness and, in brackets, rank in each stage. Scores of different stages are on different scales. "
        f"The stages took {int(spent['trained_steps']):,} training steps and "
        f"{told_hours(spent['seconds'] / 3600)} of one worker’s time.{badge(config)}"
    )
    text = table(header, rows, caption, numbers=range(1, len(header) - 1))
    if held:
        header, *rows = held_cells(held)
        caption = (
            "Whether a ranking held in the next stage: rank correlations over the candidates that were in "
            "both, with bootstrap intervals. Only the best of a stage enter the next, which makes them "
            f"smaller than they would be over all candidates.{badge(config)}"
        )
        text += table(header, rows, caption, numbers=range(2, len(header)))
    return text


def comparison_tables(
    summary: pd.DataFrame | None, differences: pd.DataFrame | None, on_test: AbstractSet[str]
) -> str:
    """Studies beside each other, and their paired differences, as tables."""
    text = ""
    if summary is not None and not summary.empty:
        header = ["study", "task", "mean", "sd", "n"]
        rows = [[_cell(name, row[name]) for name in header] for row in summary.to_dict("records")]
        n_tasks = max(1, summary["task"].ne(OVERALL).groupby(summary["study"]).sum().max())
        for cells, row in zip(rows, summary.to_dict("records"), strict=True):
            if not math.isfinite(row["mean"]) and "diverged" in row:
                n = row["n"] * (n_tasks if row["task"] == OVERALL else 1)
                cells[2] = told(row["mean"], row["sd"], row["diverged"], n)
        places = [i for i, row in enumerate(rows) if row[0] in on_test]
        caption = "Mean and sample standard deviation over n runs."
        text += table(header, rows, caption, numbers=(2, 3, 4), on_test=places)
    if differences is not None and not differences.empty:
        header = ["difference", "task", "mean", "interval", "p", "p, Holm", "n", "verdict"]
        rows = [_difference(row) for row in differences.to_dict("records")]
        pairs = zip(differences["study"], differences["reference"], strict=True)
        places = [i for i, pair in enumerate(pairs) if not on_test.isdisjoint(pair)]
        caption = (
            "Differences, the first study minus the second, paired by task and seed, with their intervals: "
            "above 0 the first does better."
        )
        text += table(header, rows, caption, numbers=(2, 3, 4, 5, 6), on_test=places)
    return text


def _difference(row: Mapping[Any, Any]) -> list[str]:
    return [
        f"{row['study']} − {row['reference']}",
        str(row["task"]),
        _cell("mean", row["mean"]) if math.isfinite(row["mean"]) else told_difference(row["mean"]),
        f"{_cell('low', row['low'])} to {_cell('high', row['high'])}"
        if math.isfinite(row["mean"])
        else "none",
        *(_cell(name, row[name]) for name in ("p", "p_holm", "n", "verdict")),
    ]


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
    on_test: Collection[int] = (),
) -> str:
    """A table that scrolls by itself where it is too wide; on a narrow page each row is a list of its cells.

    Args:
        header: Names of the columns.
        rows: Cells as text; a tuple is a rule with lines beneath.
        caption: HTML.
        numbers: Columns that are aligned to the right. Default: none.
        best_row: A row to stand out. Default: none.
        on_test: Rows whose first cell gets the badge of the test split. Default: none.
    """

    def cell(i: int, value: Cell, tag: str, after: str = "") -> str:
        name = f' data-name="{escape(header[i])}"' if tag == "td" else ""
        if isinstance(value, tuple):
            rule, *beneath = (rule_text(part) if isinstance(part, str) else "" for part in value)
            lines = "".join(f"<small>{line}</small>" for line in beneath)
            return f'<td class="rule"{name}>{rule}{lines}</td>'
        kind = ' class="number"' if i in numbers else ""
        return f"<{tag}{kind}{name}>{escape(value)}{after}</{tag}>"

    head = "".join(cell(i, name, "th") for i, name in enumerate(header))
    body = ""
    for place, row in enumerate(rows):
        kind = ' class="best"' if place == best_row else ""
        flag = f" {BADGE}" if place in on_test else ""
        cells = "".join(cell(i, value, "td", "" if i else flag) for i, value in enumerate(row))
        body += f"<tr{kind}>{cells}</tr>"
    return (
        f'<p class="caption">{caption}</p><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
