"""A comparison as it is printed and written: cells, Markdown and CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
from optevo.reporting.costs import cost_cells, costs_frame
from optevo.reporting.text import told, told_budget, told_difference, told_interval


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


class Reading(NamedTuple):
    """Tables of one reading of the test split.

    Attributes:
        summary: See `summary_frame`.
        differences: See `differences_frame`; empty for one study.
        costs: See `costs_frame`; empty where operations were not counted.
        runs: See `runs_frame`.
        budget: What every run had, in words.
        ending: Of the names of its files.
    """

    summary: pd.DataFrame
    differences: pd.DataFrame
    costs: pd.DataFrame
    runs: pd.DataFrame
    budget: str
    ending: str


def reading_of(entries: Sequence[Entry], reference: str, measure: str) -> Reading:
    """The tables of studies that were measured with one budget; arguments as in `write_tables`."""
    evaluations = [entry.test for entry in entries]
    steps, budget = evaluations[0].steps, evaluations[0].budget
    return Reading(
        summary_frame(evaluations, measure),
        differences_frame(evaluations, reference, measure),
        costs_frame(evaluations),
        runs_frame(evaluations),
        told_budget(steps, budget),
        "" if budget == "steps" else f"_{budget}",
    )


def write_tables(
    folder: Path, entries: Sequence[Entry], reference: str, measure: str, beside: Sequence[Entry] = ()
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write `comparison.md`, `runs.csv`, `summary.csv`, `differences.csv` and `studies.csv`.

    Where operations were counted there is a `costs.csv`, too. Files of a reading with equal operations have
    "_flops" at the end of their names.

    Args:
        folder: Made where it is missing; files of these names in it are replaced.
        entries: The studies.
        reference: The study that the others are compared with.
        measure: One of `MEASURES`.
        beside: The same studies, measured with the other budget. Default: they were not.

    Returns:
        The summary, the differences (empty for one study) and the studies.
    """
    first, studies = reading_of(entries, reference, measure), studies_frame(entries)
    evaluations = [entry.test for entry in (*entries, *beside)]
    environments = list(dict.fromkeys(json.dumps(one.environment) for one in evaluations))
    text = [f"# {', '.join(escaped(entry.test.study) for entry in entries)} on the test split\n"]
    text += _told(first, entries, measure, caveats(entries, measure))
    files = _files(first)
    if beside:
        other = reading_of(beside, reference, measure)
        new = [one for one in caveats(beside, measure) if one not in caveats(entries, measure)]
        text += [f"\n## Measured with {other.budget}\n", *_told(other, beside, measure, new)]
        files |= _files(other)
    text += [
        "\nWho was compared, and what finding them cost:\n",
        markdown_table(study_cells(studies), entities=False),
    ]
    for environment in environments:
        named = [escaped(one.study) for one in evaluations if json.dumps(one.environment) == environment]
        where = f" of {', '.join(dict.fromkeys(named))}" * (len(environments) > 1)
        text += [f"\nEnvironment{where}: {escaped(environment)}\n"]
    files |= {"studies.csv": studies.to_csv(index=False), "comparison.md": "\n".join(text)}
    write_files(folder, files)
    return first.summary, first.differences, studies


def _files(reading: Reading) -> dict[str, str]:
    tables = {"runs": reading.runs, "summary": reading.summary, "differences": reading.differences}
    tables |= {"costs": reading.costs} if len(reading.costs) else {}
    return {f"{name}{reading.ending}.csv": frame.to_csv(index=False) for name, frame in tables.items()}


def _told(reading: Reading, entries: Sequence[Entry], measure: str, caveats: Sequence[str]) -> list[str]:
    """A reading's part of `comparison.md`."""
    seeds, evaluation = entries[0].test.seeds, entries[0].config.evaluation
    what = "the task's metric" if measure == "metric" else "fitness"
    budget = reading.budget[0].upper() + reading.budget[1:]
    text = [
        f"{budget}, seeds {seeds[0]} to {seeds[-1]}, {what}: mean ± sample standard "
        f"deviation over seeds. Precision {evaluation.precision}, batch size {evaluation.batch_size}.\n",
        *(f"**{escaped(caveat)}**\n" for caveat in caveats),
        markdown_table(summary_cells(reading.summary), entities=False),
    ]
    if len(reading.differences):
        methods = "; ".join(dict.fromkeys(reading.differences["method"]))
        text += [
            f"\nPaired by task and seed: {methods}. Holm's correction is over the comparisons overall, and "
            "separately over those by task.\n",
            markdown_table(difference_cells(reading.differences), entities=False),
        ]
    if len(reading.costs):
        text += [
            "\nWhat a training step costs: floating-point operations, counted, and seconds as measured in "
            "these runs, scoring included.\n",
            markdown_table(cost_cells(reading.costs), entities=False),
        ]
    return text


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
