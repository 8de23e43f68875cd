"""What a training step costs: operations as they were counted, seconds as they were measured."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from optevo.escaping import printable
from optevo.measurement.test_split import TestEvaluation

COLUMNS = ["study", "task", "steps", "operations", "relative", "update", "update_relative", "seconds"]


def costs_frame(evaluations: Sequence[TestEvaluation]) -> pd.DataFrame:
    """A row a study and task; empty where operations were counted of no study.

    `steps` are the longest run's, `operations` those of a whole step, `relative` the same over a step with
    AdamW, `update` those of the optimizer's update alone, `update_relative` the same over AdamW's update,
    `seconds` the measured ones of all runs over all their steps, scoring included.
    """
    rows = []
    for one in evaluations if any(one.operations for one in evaluations) else []:
        for i, task in enumerate(one.tasks):
            runs = [run for run in one.runs if run.task == task]
            row = {
                "study": one.study,
                "task": task,
                "steps": max(run.steps for run in runs),
                "seconds": sum(run.seconds for run in runs) / max(1, sum(run.steps for run in runs)),
            }
            if one.operations:  # those that were measured by older versions have none
                found = one.operations[i]
                row |= {"operations": found.total, "relative": found.relative, "update": found.update}
                row["update_relative"] = found.update / max(1, found.adamw)
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"operations": "Int64", "update": "Int64"})


def cost_cells(costs: pd.DataFrame) -> list[list[str]]:
    """A header and a row a study and task, for printing."""
    header = ["study", "task", "steps a run", "operations a step", "over AdamW's"]
    cells = [[*header, "its update alone", "over AdamW's", "seconds a step, measured"]]
    for _, row in costs.iterrows():
        known = not pd.isna(row["operations"])
        cells.append(
            [
                printable(row["study"]),
                printable(row["task"]),
                f"{row['steps']:,}",
                _short(row["operations"]) if known else "not counted",
                f"{row['relative']:.3f} ×" if known else "",
                _short(row["update"]) if known else "",
                f"{row['update_relative']:.3g} ×" if known else "",
                f"{row['seconds']:.3g}",
            ]
        )
    return cells


def _short(operations: int) -> str:
    """A count with three digits."""
    number, unit = float(operations), ""
    for unit in ("", " thousand", " million", " billion", " trillion"):  # noqa: B007  the last one counts
        if number < 999.5:
            break
        number /= 1000
    return f"{number:.3g}{unit}"
