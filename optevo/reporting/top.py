"""The best trials of a search, as a frame and as cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from optevo.reporting.comparison import spread
from optevo.reporting.frames import FLAG, INTEGER, NUMBER, TRIALS, frame_of, runs, trial_row
from optevo.study.studies import best_trials

if TYPE_CHECKING:
    import optuna

_OF_TRIALS = ("generation", "slot", "origin", "parents", "formula", "hyperparameters", "found_lr", "seconds")
TOP = {
    "number": INTEGER,
    "fitness": NUMBER,
    "spread": NUMBER,
    "n_runs": INTEGER,
    "diverged": INTEGER,
    "screened": FLAG,
    **{name: TRIALS[name] for name in _OF_TRIALS},
}


def top(study: optuna.Study, n: int) -> pd.DataFrame:
    """The n fittest trials, best first, as `best_trials` has them: no two of the same canonical form.

    Returns:
        The columns of `TOP`. `spread` is the sample standard deviation over seeds of the mean over tasks,
        missing for one seed; `diverged` counts those of the `n_runs` runs that did; the others are those of
        `frames.TRIALS`.

    Raises:
        UserError: No trial is complete.
    """
    best = best_trials(study, n)
    every = runs(study).groupby("trial")
    rows = []
    for trial in best:
        row = trial_row(trial, counted=True)
        if trial.number in every.groups:
            own = every.get_group(trial.number)
            row["spread"] = spread(list(own.groupby("seed")["fitness"].mean()))
            row |= {"n_runs": len(own), "diverged": int(own["diverged_at"].notna().sum())}
        rows.append({name: row.get(name) for name in TOP})
    return frame_of(rows, TOP)


def top_cells(frame: pd.DataFrame) -> list[list[str]]:
    """A header and a row a trial of `top`, for printing."""
    cells = [["trial", "fitness", "± over seeds", "diverged", "formula"]]
    for row in frame.itertuples():
        known = not pd.isna(row.n_runs)
        cells.append(
            [
                str(row.number),
                f"{row.fitness:.4f}" + " of the screening" * bool(row.screened),
                "" if pd.isna(row.spread) else f"{row.spread:.4f}",
                f"{row.diverged} of {row.n_runs} runs" if known else "",
                "" if pd.isna(row.formula) else str(row.formula),
            ]
        )
    return cells
