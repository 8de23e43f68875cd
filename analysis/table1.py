"""The published comparison beside ours: `python -m analysis.table1` reads the study and writes the table.

optevo run studies/table1.toml
python -m analysis.table1 --output studies/results/table1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import markdown_table
from optevo.reporting.comparison import OVERALL
from optevo.reporting.frames import runs, trials
from optevo.reporting.statistics import Estimate, paired
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig
from optevo.study.studies import load_study

# Mean fitness over three seeds, *Evolving Deep Learning Optimizers*: per task and overall as in the paper.
PUBLISHED = {
    "sgd": {"fashion_mnist": 0.826, "cifar10": 0.467, "mnist": 0.988, OVERALL: 0.760},
    "rmsprop": {"fashion_mnist": 0.928, "cifar10": 0.546, "mnist": 1.035, OVERALL: 0.836},
    "adamw": {"fashion_mnist": 0.934, "cifar10": 0.640, "mnist": 1.035, OVERALL: 0.870},
    "adam": {"fashion_mnist": 0.935, "cifar10": 0.647, "mnist": 1.036, OVERALL: 0.872},
    "evolved": {"fashion_mnist": 0.949, "cifar10": 0.697, "mnist": 1.039, OVERALL: 0.895},
}


def fitness(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a run: optimizer, task, seed, fitness, metric, loss, steps, seconds."""
    space = config.make_space()
    named = {space.candidate(params).canonical(): preset for preset, params in space.presets().items()}
    every = trials(study, config)
    kept = every[every["counted"] & every["canonical"].isin(set(named))]
    optimizer = {row["number"]: named[row["canonical"]] for _, row in kept.iterrows()}
    frame = runs(study)
    frame = frame[frame["trial"].isin(optimizer)].copy()
    frame.insert(0, "optimizer", frame["trial"].map(optimizer))
    return frame[["optimizer", "task", "seed", "fitness", "metric", "loss", "steps", "seconds"]]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation of the fitness, per task and overall, with the published mean."""
    overall = frame.groupby(["optimizer", "seed"], as_index=False)["fitness"].mean().assign(task=OVERALL)
    both = pd.concat([frame[["optimizer", "task", "seed", "fitness"]], overall])
    found = both.groupby(["optimizer", "task"])["fitness"].agg(["mean", "std", "count"]).reset_index()
    theirs = [PUBLISHED.get(o, {}).get(t) for o, t in zip(found["optimizer"], found["task"], strict=True)]
    return found.assign(published=theirs, difference=found["mean"] - pd.Series(theirs, dtype="float64"))


def ranking(found: pd.DataFrame, task: str, column: str) -> list[str]:
    """Optimizers, best first."""
    rows = found[(found["task"] == task) & found[column].notna()].sort_values(column, ascending=False)
    return list(rows["optimizer"])


def neighbours(frame: pd.DataFrame, order: Sequence[str], task: str) -> str:
    """Which neighbours of a ranking are told apart by the runs: the paired differences that are not."""
    ties = []
    for better, worse in pairwise(order):
        estimate = difference(frame, better, worse, task)
        if not (estimate.p < 0.05 and estimate.excludes_zero):
            ties.append(f"{better} − {worse} {shown(estimate)}")
    return "; ".join(ties) or "none"


def difference(frame: pd.DataFrame, better: str, worse: str, task: str) -> Estimate:
    """Of two optimizers' runs, paired by task and seed."""
    fitness = frame.set_index(["optimizer", "task", "seed"])["fitness"].sort_index()
    tasks = list(dict.fromkeys(frame["task"])) if task == OVERALL else [task]
    pairs = {one: (fitness[better][one] - fitness[worse][one]).tolist() for one in tasks}
    return paired(pairs, rng=np.random.default_rng(0))


def shown(estimate: Estimate) -> str:
    """A difference with its interval."""
    return f"{estimate.mean:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def markdown(frame: pd.DataFrame, config: StudyConfig, environment: object) -> str:
    """The table, the rankings and where the numbers come from."""
    evaluation, found = config.evaluation, table(frame)
    columns = [*(task.name for task in evaluation.tasks), OVERALL]
    cells = found.set_index(["optimizer", "task"])

    def cell(optimizer: str, task: str) -> str:
        row = cells.loc[(optimizer, task)]
        return f"{row['mean']:.3f} ± {row['std']:.3f} [{row['published']:.3f}]"

    order = [name for name in [*PUBLISHED, *config.space.presets] if name in set(found["optimizer"])]
    rows = [[name, *(cell(name, task) for task in columns)] for name in dict.fromkeys(order)]
    ranks = []
    for task in columns:
        ours, theirs = ranking(found, task, "mean"), ranking(found, task, "published")
        same = "the same" if ours == theirs else "another"
        ranks.append([task, " > ".join(ours), " > ".join(theirs), same, neighbours(frame, ours, task)])
    best, *others = ranking(found, OVERALL, "mean")
    header = ["task", "ours", "published", "order", "neighbours that the seeds do not tell apart (95 %)"]
    return "\n".join(
        [
            "# The published comparison, reproduced",
            "",
            f"Fitness ({evaluation.split} accuracy + 0.05 · max(0, 1 − training loss)) after "
            f"{evaluation.steps:,} steps, {len(evaluation.seeds)} seeds, {evaluation.precision}: ours as "
            "mean ± sample standard deviation, the published mean in brackets. 15,000 training examples. "
            "CIFAR-10 is a copy compressed as JPEG of quality 75. As published, the optimizers are untuned, "
            "the evolved one alone has a schedule, and what is scored was also selected on the test split.",
            "",
            markdown_table([["optimizer", *columns], *rows], entities=False),
            "",
            "Rankings, best first:",
            "",
            markdown_table([header, *ranks], entities=False),
            "",
            f"Overall, {best} minus each of the others (95 %, uncorrected): "
            + "; ".join(f"{name} {shown(difference(frame, best, name, OVERALL))}" for name in others)
            + ".",
            "",
            f"Environment: `{json.dumps(environment)}`",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `table.md`, `table.csv` and `runs.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///optevo.db")
    parser.add_argument("--study", default="table1")
    parser.add_argument("--output", type=Path, default=Path("studies/results/table1"))
    given = parser.parse_args(arguments)
    try:
        study, config = load_study(open_storage(given.storage), given.study)
    except UserError as error:
        sys.exit(f"table1: {error}")
    frame = fitness(study, config)
    given.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(given.output / "runs.csv", index=False)
    table(frame).to_csv(given.output / "table.csv", index=False)
    text = markdown(frame, config, study.user_attrs[keys.ENVIRONMENT])
    (given.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
