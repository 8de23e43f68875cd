"""Known optimizers against one of them: `python -m analysis.known_optimizers`.

A finished study of the space `known` has trained each of its optimizers with the same fresh seeds, see
`[rerun]`. Their differences to the reference are paired by task and seed and told with interval, test and
Holm's correction, as `optevo compare` tells those of studies' winners. Nothing was selected among these runs
but the learning rate, by training accuracy, and the best epoch, by the validation data that is scored.

optevo run studies/joint/compare/fashion_mnist.toml
python -m analysis.known_optimizers compare_fashion_mnist --output FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import optuna
import pandas as pd

from optevo.errors import UserError
from optevo.escaping import markdown_table
from optevo.measurement.fresh_seeds import stored_result
from optevo.measurement.test_split import TestEvaluation
from optevo.naming import hint
from optevo.reporting.comparison import OVERALL, differences_frame, summary_frame
from optevo.reporting.tables import write_files
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig
from optevo.study.studies import load_study
from optevo.training.run import found_rate


def evaluations(study: optuna.Study, config: StudyConfig) -> list[TestEvaluation]:
    """The runs of each optimizer of a finished study, as those of a study of its own.

    Raises:
        UserError: They were not measured.
    """
    result, presets = stored_result(study, config), config.make_space().presets()
    if result is None:
        raise UserError(f"study {config.name!r} has not measured its optimizers: `optevo run` its file first")
    rows = [row for row in result.rows if row.name in presets]  # the winner besides is one of them
    return [TestEvaluation(row.name, 0, 1, config.evaluation.steps, row.runs, {}) for row in rows]


def compared(measured: Sequence[TestEvaluation], reference: str) -> pd.DataFrame:
    """A row an optimizer, best first: mean and spread of the metric, the rate found, the difference."""
    if reference not in (names := [one.study for one in measured]):
        raise UserError(f"--reference {reference!r}: {hint(reference, names)}")
    summary = _overall(summary_frame(measured, "metric"))
    differences = _overall(differences_frame(measured, reference, "metric"))
    differences = differences.rename(columns={"mean": "difference"})
    columns = ["study", "difference", "low", "high", "p", "p_holm", "verdict"]
    frame = summary.merge(differences[columns], on="study", how="left")
    frame["lr"] = frame["study"].map({one.study: found_rate(one.runs) for one in measured})
    frame = frame.rename(columns={"study": "optimizer"})
    return frame.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)


def _overall(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["task"] == OVERALL].drop(columns="task")


def cells(frame: pd.DataFrame, reference: str) -> list[list[str]]:
    """The table, a header and a row an optimizer."""
    said = [["", "optimizer", "rate", "mean ± sd", f"− {reference}", "95 % interval", "p, Holm", "verdict"]]
    for place, row in enumerate(frame.itertuples(), start=1):
        told = ["", "", "", ""]
        if not pd.isna(row.difference):
            interval = f"{row.low:+.4f} to {row.high:+.4f}"
            told = [f"{row.difference:+.4f}", interval, f"{row.p_holm:.2g}", row.verdict]
        failed = f", {row.diverged} of {row.n} failed" if row.diverged else ""
        rate = "none" if pd.isna(row.lr) else f"{row.lr:g}"
        said.append([str(place), row.optimizer, rate, f"{row.mean:.4f} ± {row.sd:.4f}{failed}", *told])
    return [[cell.replace("-", "−") if cell[:1] in "+-" else cell for cell in line] for line in said]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `STUDY.csv` and `STUDY.md` of each study, and print the latter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--storage", default="sqlite:///optevo.db")
    parser.add_argument("--reference", default="adam")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    given = parser.parse_args(arguments)
    storage = open_storage(given.storage)
    for name in given.studies:
        frame = compared(evaluations(*load_study(storage, name)), given.reference)
        table = markdown_table(cells(frame, given.reference), entities=False)
        write_files(given.output, {f"{name}.csv": frame.to_csv(index=False), f"{name}.md": table + "\n"})
        print(f"{name}\n\n{table}\n")


if __name__ == "__main__":
    main()
