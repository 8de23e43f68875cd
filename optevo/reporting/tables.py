"""A comparison as it is printed and written: cells, Markdown and CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from optevo.errors import UserError
from optevo.escaping import escaped, markdown_table, printable
from optevo.files import write_text
from optevo.reporting.caveats import caveats
from optevo.reporting.comparison import (
    OVERALL,
    Entry,
    differences_frame,
    runs_frame,
    studies_frame,
    summary_frame,
)
from optevo.reporting.text import told, told_difference, told_interval


def summary_cells(summary: pd.DataFrame) -> list[list[str]]:
    """A header and a row a study with mean ± sd a task, for printing."""
    tasks = list(dict.fromkeys(summary["task"]))
    tasks.sort(key=lambda task: task == OVERALL)
    n_tasks = len(tasks) - 1
    tasks = tasks[:1] if n_tasks == 1 else tasks  # the mean over one task is no news
    cells = [["study", *tasks, "n"]]
    for study, rows in summary.groupby("study", sort=False):
        by_task = rows.set_index("task")
        each = [
            told(row["mean"], row["sd"], row["diverged"], row["n"] * (n_tasks if task == OVERALL else 1))
            for task, row in by_task.loc[tasks].iterrows()
        ]
        cells.append([printable(str(study)), *(printable(cell) for cell in each), str(by_task["n"].iloc[0])])
    cells[0] = [printable(cell) for cell in cells[0]]
    return cells


def difference_cells(differences: pd.DataFrame) -> list[list[str]]:
    """A header and a row a comparison, the overall ones first, for printing."""
    cells = [["study − reference", "task", "difference", "95 % interval", "n", "p", "p, Holm", "verdict"]]
    order = differences["task"].ne(OVERALL)
    for _, row in differences.loc[order.sort_values(kind="stable").index].iterrows():
        cells.append(
            [
                f"{printable(row['study'])} − {printable(row['reference'])}",
                printable(row["task"]),
                told_difference(row["mean"]),
                told_interval(row["mean"], row["low"], row["high"]),
                str(row["n"]),
                f"{row['p']:.3g}",
                f"{row['p_holm']:.3g}",
                row["verdict"],
            ]
        )
    return cells


def study_cells(studies: pd.DataFrame) -> list[list[str]]:
    """A header and a row a study: who won and what that cost, for printing."""
    header = ["study", "winner", "fitness in search", "fitness on fresh seeds", "search", "re-running"]
    cells = [header]
    for _, row in studies.iterrows():
        mark = " (selected on test)" if row["selected_on"] == "test" else ""
        cells.append(
            [
                printable(row["study"]) + mark,
                f"{row['winner']}: {row['rule']}; {row['hyperparameters']}",
                f"{row['search_fitness']:.4f}",
                f"{row['fresh_fitness']:.4f} ± {row['fresh_sd']:.4f}, n = {row['fresh_n']}"
                if math.isfinite(row["fresh_fitness"])
                else "a run diverged",
                f"{row['trials']} trials, {_spent(row['search_steps'], row['search_hours'])}",
                _spent(row["rerun_steps"], row["rerun_hours"]),
            ]
        )
    return cells


def write_tables(
    folder: Path, entries: Sequence[Entry], reference: str, measure: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write `comparison.md`, `runs.csv`, `summary.csv`, `differences.csv` and `studies.csv`.

    Args:
        folder: Made where it is missing; files of these names in it are replaced.
        entries: The studies.
        reference: The study that the others are compared with.
        measure: One of `MEASURES`.

    Returns:
        The summary, the differences (empty for one study) and the studies.
    """
    evaluations = [entry.test for entry in entries]
    summary = summary_frame(evaluations, measure)
    differences = differences_frame(evaluations, reference, measure)
    studies = studies_frame(entries)
    tables = {
        "runs": runs_frame(evaluations),
        "summary": summary,
        "differences": differences,
        "studies": studies,
    }
    first = evaluations[0]
    environments = list(dict.fromkeys(json.dumps(one.environment) for one in evaluations))
    what = "the task's metric" if measure == "metric" else "fitness"
    text = [
        f"# {', '.join(escaped(one.study) for one in evaluations)} on the test split\n",
        f"{first.steps:,} steps, seeds {first.seeds[0]} to {first.seeds[-1]}, {what}: mean ± sample standard "
        f"deviation over seeds. Precision {entries[0].config.evaluation.precision}, batch size "
        f"{entries[0].config.evaluation.batch_size}.\n",
        *(f"**{escaped(caveat)}**\n" for caveat in caveats(entries, measure)),
        markdown_table(summary_cells(summary), entities=False),
    ]
    if len(differences):
        methods = "; ".join(dict.fromkeys(differences["method"]))
        text += [
            f"\nPaired by task and seed: {methods}. Holm's correction is over the comparisons overall, and "
            "separately over those by task.\n",
            markdown_table(difference_cells(differences), entities=False),
        ]
    text += [
        "\nWho was compared, and what finding them cost:\n",
        markdown_table(study_cells(studies), entities=False),
    ]
    for environment in environments:
        names = [escaped(one.study) for one in evaluations if json.dumps(one.environment) == environment]
        where = f" of {', '.join(names)}" * (len(environments) > 1)
        text += [f"\nEnvironment{where}: {escaped(environment)}\n"]
    files = {f"{name}.csv": frame.to_csv(index=False) for name, frame in tables.items()}
    write_files(folder, {**files, "comparison.md": "\n".join(text)})
    return summary, differences, studies


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files by name; the folder is made where it is missing.

    Raises:
        UserError: It can't be done, for want of room or because something else is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    for name, text in texts.items():
        write_text(folder / name, text)


def _spent(steps: int, hours: float) -> str:
    return f"{steps:,} steps, " + (f"{hours:.2f} h" if hours >= 0.1 else f"{60 * hours:.1f} min")
