"""The published comparison beside ours: `python -m analysis.table1` reads the study and writes the table.

optevo run studies/table1.toml
python -m analysis.table1 --output studies/results/table1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from optevo import keys
from optevo.analysis.load import runs, trials
from optevo.errors import UserError
from optevo.storage import open_storage
from optevo.study import load_study, make_space

# Mean fitness over three seeds, *Evolving Deep Learning Optimizers*: per task and overall as in the paper.
PUBLISHED = {
    "sgd": {"fashion_mnist": 0.826, "cifar10": 0.467, "mnist": 0.988, "overall": 0.760},
    "rmsprop": {"fashion_mnist": 0.928, "cifar10": 0.546, "mnist": 1.035, "overall": 0.836},
    "adamw": {"fashion_mnist": 0.934, "cifar10": 0.640, "mnist": 1.035, "overall": 0.870},
    "adam": {"fashion_mnist": 0.935, "cifar10": 0.647, "mnist": 1.036, "overall": 0.872},
    "evolved": {"fashion_mnist": 0.949, "cifar10": 0.697, "mnist": 1.039, "overall": 0.895},
}
TASKS = ("fashion_mnist", "cifar10", "mnist")


def fitness(storage: str, name: str) -> tuple[pd.DataFrame, dict[str, object]]:
    """A row a run (optimizer, task, seed, fitness, metric), and the study's environment."""
    study, config = load_study(open_storage(storage), name)
    named = {
        make_space(config).candidate(params).canonical(): preset
        for preset, params in make_space(config).presets().items()
    }
    every = trials(study, config)
    kept = every[every["counted"]]
    optimizer = {row["number"]: named[row["canonical"]] for _, row in kept.iterrows()}
    frame = runs(study)
    frame = frame[frame["trial"].isin(optimizer)].copy()
    frame.insert(0, "optimizer", frame["trial"].map(optimizer))
    columns = ["optimizer", "task", "seed", "fitness", "metric", "loss", "steps", "seconds"]
    return frame[columns], study.user_attrs[keys.ENVIRONMENT]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation of the fitness, per task and overall, with the published mean."""
    overall = frame.groupby(["optimizer", "seed"], as_index=False)["fitness"].mean().assign(task="overall")
    both = pd.concat([frame[["optimizer", "task", "seed", "fitness"]], overall])
    found = both.groupby(["optimizer", "task"])["fitness"].agg(["mean", "std", "count"]).reset_index()
    found["published"] = [PUBLISHED[o][t] for o, t in zip(found["optimizer"], found["task"], strict=True)]
    found["difference"] = found["mean"] - found["published"]
    return found


def ranking(found: pd.DataFrame, task: str, column: str) -> list[str]:
    """Optimizers, best first."""
    rows = found[found["task"] == task].sort_values(column, ascending=False)
    return list(rows["optimizer"])


def markdown(found: pd.DataFrame, environment: object) -> str:
    """The table, the rankings and where the numbers come from."""
    columns = [*TASKS, "overall"]
    cells = found.set_index(["optimizer", "task"])
    lines = [
        "# The published comparison, reproduced",
        "",
        "Fitness (test accuracy + 0.05 · max(0, 1 − training loss)) after 1,000 steps, three seeds, 15,000 "
        "training examples, float32: ours as mean ± sample standard deviation, the published mean in brackets"
        ". CIFAR-10 is a copy compressed as JPEG of quality 75. As published, optimizers are untuned, only "
        "the evolved one has a schedule, and fitness is taken on the test split.",
        "",
        f"| optimizer | {' | '.join(columns)} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for optimizer in PUBLISHED:
        if optimizer not in cells.index.get_level_values(0):
            continue
        each = [
            f"{cells.loc[(optimizer, task), 'mean']:.3f} ± {cells.loc[(optimizer, task), 'std']:.3f} "
            f"[{cells.loc[(optimizer, task), 'published']:.3f}]"
            for task in columns
        ]
        lines.append(f"| {optimizer} | {' | '.join(each)} |")
    lines += ["", "Rankings, best first:", "", "| task | ours | published | |", "| --- | --- | --- | --- |"]
    for task in columns:
        ours, theirs = ranking(found, task, "mean"), ranking(found, task, "published")
        same = "the same" if ours == theirs else "differs"
        lines.append(f"| {task} | {' > '.join(ours)} | {' > '.join(theirs)} | {same} |")
    lines += ["", f"Environment: `{json.dumps(environment)}`", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `table.md`, `table.csv` and `runs.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///optevo.db")
    parser.add_argument("--study", default="table1")
    parser.add_argument("--output", type=Path, default=Path("studies/results/table1"))
    given = parser.parse_args(arguments)
    try:
        frame, environment = fitness(given.storage, given.study)
    except UserError as error:
        sys.exit(f"table1: {error}")
    given.output.mkdir(parents=True, exist_ok=True)
    found = table(frame)
    frame.to_csv(given.output / "runs.csv", index=False)
    found.to_csv(given.output / "table.csv", index=False)
    text = markdown(found, environment)
    (given.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
