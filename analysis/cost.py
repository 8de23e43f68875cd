"""What a search would cost, from counted operations: `python -m analysis.cost studies/joint/paper.toml`.

A trial has R runs, tasks times seeds, each of at most S training steps, learning-rate trials included; a step
of AdamW on a task has O operations, forward and backward pass and update, see `optevo.training.operations`.
A study screens N₀ trials with the cheap evaluation, where it has one, and evaluates N₁ others in full::

    operations ≤ N₀ · Σ S₀ · O₀ + N₁ · Σ S₁ · O₁        hours = operations / speed / 3600

with a sum over the runs of either evaluation. `speed` is what the device sustains in such training, in
operations a second. Not counted: further attempts at a place, scoring, and that other updates cost other than
AdamW's. Fewer: runs that fail their learning-rate trials, race, or are copied.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from optevo.optim.baselines.registry import TunedBaseline
from optevo.study.config import StudyConfig, load_config
from optevo.tasks.base import Task
from optevo.tasks.roots import data_root
from optevo.training.base import make_tasks
from optevo.training.operations import operations_a_step

_ADAMW = TunedBaseline("adamw", 1e-3, 1e-2)


def costs(config: StudyConfig) -> pd.DataFrame:
    """A row an evaluation and task: trials, runs a trial, steps a run and operations a step, at most."""
    space, cheap = config.make_space(), config.screened()
    screened = config.sampler.places(space) if cheap is not None else 0
    rows = []
    for name, one, trials in (("screening", cheap, screened), ("full", config, config.n_trials - screened)):
        if one is None:
            continue
        evaluation = one.evaluation
        for task in make_tasks(one):
            if not isinstance(task, Task):
                raise SystemExit(f"task {task.name!r} scores by itself: its operations cannot be counted")
            split = task.load(data_root())["train"]
            operations = operations_a_step(task, _ADAMW, evaluation.batch_size, split).total
            runs, steps = len(evaluation.seeds), evaluation.run_steps
            total = trials * runs * steps * operations
            rows.append((name, task.name, trials, runs, steps, operations, total))
    columns = ["evaluation", "task", "trials", "runs", "steps", "operations", "total"]
    return pd.DataFrame(rows, columns=columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line an evaluation and task, and the hours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path, help="a study file")
    parser.add_argument("--speed", type=float, default=1e13, help="operations a second; default 1e13")
    given = parser.parse_args(arguments)
    frame = costs(load_config(given.study))
    for row in frame.itertuples():
        print(
            f"{row.evaluation} on {row.task}: {row.trials:,} trials × {row.runs} × {row.steps:,} steps "
            f"× {row.operations:.3g} operations = {row.total:.3g}"
        )
    total = float(frame["total"].sum())
    steps = int((frame["trials"] * frame["runs"] * frame["steps"]).sum())
    hours = total / given.speed / 3600
    print(
        f"at most {steps:,} steps, {total:.3g} operations: {hours:,.1f} hours at {given.speed:.3g} a second"
    )


if __name__ == "__main__":
    main()
