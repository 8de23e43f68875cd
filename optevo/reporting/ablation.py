"""What of a winner did it: differences to its variants, and its gain taken apart along a path of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from optevo.escaping import printable
from optevo.reporting import comparison
from optevo.reporting.comparison import score, spread
from optevo.reporting.statistics import Estimate, holm, verdict
from optevo.reporting.text import told, told_difference, told_interval
from optevo.training.run import Run


def ablation_frame(runs: Mapping[str, Sequence[Run]], measure: str) -> pd.DataFrame:
    """A row a variant: mean and sd over seeds of the mean over tasks, and its difference to the winner.

    Paired by task and seed, with 95 % intervals; Holm's correction over all variants. The winner is first.
    """
    rows, estimates, winner = [], [], next(iter(runs))
    for name, own in runs.items():
        by_task = _scores(own, measure)
        overall = [float(np.mean(each)) for each in zip(*by_task.values(), strict=True)]
        row = {"variant": name, "mean": float(np.mean(overall)), "n": len(overall)}
        row["diverged"] = sum(run.diverged for run in own)
        row["sd"] = spread(overall)
        row |= {f"task {task}": float(np.mean(values)) for task, values in by_task.items()}
        rows.append(row)
        estimates.append(None if name == winner else difference(own, runs[winner], measure))
    tested = [e for e in estimates if e is not None]
    adjusted = iter(holm([e.p for e in tested]))
    for row, estimate in zip(rows, estimates, strict=True):
        if estimate is None:
            continue
        p = next(adjusted)
        row |= {"difference": estimate.mean, "low": estimate.low, "high": estimate.high, "p": estimate.p}
        row |= {"p_holm": p, "verdict": verdict(estimate, p), "method": estimate.method}
    return pd.DataFrame(rows)


def difference(ours: Sequence[Run], theirs: Sequence[Run], measure: str) -> Estimate:
    """Ours minus theirs, paired by task and seed, the mean over tasks."""
    return comparison.difference(_scores(ours, measure), _scores(theirs, measure))


def account(
    runs: Mapping[str, Sequence[Run]], measure: str, path: Sequence[tuple[str, str, str]]
) -> list[tuple[str, Estimate, str]]:
    """The winner's gain over what it is compared with, and how much of it each change makes.

    Args:
        runs: Of every variant, by its name.
        measure: One of `optevo.reporting.comparison.MEASURES`.
        path: What a difference is called, and the variants, new and old, between which it is: first the
            whole gain, then the single changes on the way to it, which add up to it. It comes with the
            variants, see `optevo.optim.candidate.Variants`.

    Returns:
        What, the difference, and its verdict after Holm's correction over all of them; empty where a variant
        was not measured.
    """
    if not {name for _, *names in path for name in names} <= runs.keys():
        return []
    found = [(what, difference(runs[new], runs[old], measure)) for what, new, old in path]
    adjusted = holm([estimate.p for _, estimate in found])
    return [(what, e, verdict(e, p)) for (what, e), p in zip(found, adjusted, strict=True)]


def ablation_cells(frame: pd.DataFrame) -> list[list[str]]:
    """A header and a row a variant, for printing."""
    cells = [["variant", "mean ± sd", "n", "− the winner", "95 % interval", "p, Holm", "verdict"]]
    n_tasks = sum(str(name).startswith("task ") for name in frame.columns)
    for place, row in frame.iterrows():
        compared = ["", "", "", ""]
        if place:  # the winner comes first
            interval = told_interval(row["difference"], row["low"], row["high"])
            off = told_difference(row["difference"])
            compared = [off, interval, f"{row['p_holm']:.3g}", row["verdict"]]
        mean = told(row["mean"], row["sd"], row["diverged"], row["n"] * n_tasks)
        cells.append([printable(row["variant"]), mean, str(row["n"]), *compared])
    return cells


def account_cells(parts: Sequence[tuple[str, Estimate, str]]) -> list[list[str]]:
    """A header and a row a part of the gain, for printing."""
    return [
        ["what", "difference", "95 % interval", "verdict"],
        *[
            [what, told_difference(e.mean), told_interval(e.mean, e.low, e.high), said]
            for what, e, said in parts
        ],
    ]


def _scores(runs: Sequence[Run], measure: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.task, []).append(score(run, measure))
    return values
