"""What a long history costs: `optevo status`, a worker's start, and a trial; on SQLite.

    python -m analysis.benchmarks.history [--quick]

The study's trials hold what a search leaves of them: 22 parameters, a dozen attributes, three runs, ten
reports. A start ends when the worker has a slot to claim; breeding its first generation comes on top. A trial
is one of a task that scores at once, from its number to its value, with all that `optevo run` stores of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import optuna
import sqlalchemy

from analysis.benchmarks.common import console, middle, parser, print_header, table
from analysis.benchmarks.histories import long_study
from analysis.benchmarks.load import study_file
from optevo.cli import main as cli
from optevo.evaluation.objective import Objective
from optevo.optuna_private import database_of
from optevo.samplers import sampler_of
from optevo.storage.opening import open_storage
from optevo.study.studies import create_or_resume, load_study
from optevo.training.benches import make_bench

T = TypeVar("T")


def seconds(act: Callable[..., T], *args: Any) -> tuple[float, T]:
    """Of this process's CPU, which others' work changes least, and what came of it."""
    begun = time.process_time()
    made = act(*args)
    return time.process_time() - begun, made


def status(url: str) -> None:
    """The command, without the start of its process."""
    argv, quiet = ["optevo", "status", "--storage", url], contextlib.redirect_stdout(io.StringIO())
    with patch.object(sys, "argv", argv), quiet, contextlib.suppress(SystemExit):
        cli.main()


def start(url: str) -> optuna.Study:
    """A worker's way to its first slot."""
    study, _ = load_study(open_storage(url), None, "cpu", trials="heads")
    sampler_of(study).slot_table(study).claimable()
    return study


def breed(study: optuna.Study) -> None:
    """The parameters of a first trial, for which its generation is bred."""
    trial = study.ask()
    sampler_of(study).space.suggest(trial)  # type: ignore[attr-defined]
    study.tell(trial, state=optuna.trial.TrialState.FAIL)


def trial_costs(folder: Path, trials: int) -> tuple[list[float], float]:
    """Milliseconds of CPU of each trial, and transactions a trial."""
    config = study_file(folder, 4_000, quick=False)
    with contextlib.chdir(folder):
        storage = open_storage("sqlite:///trials.db", create=True)
        study = create_or_resume(config, storage, "cpu")
        objective = Objective(make_bench(config, "cpu", folder), config.make_space())
        study.optimize(objective, n_trials=3)
        commits: list[object] = []
        sqlalchemy.event.listen(database_of(study).engine, "commit", commits.append)  # type: ignore[attr-defined]
        taken = [1e3 * seconds(study.optimize, objective, 1)[0] for _ in range(trials)]
    return taken, len(commits) / trials


def main() -> None:
    """Measure and print."""
    quick = parser(__doc__).parse_args().quick
    sizes, rounds = ((60, 120), 1) if quick else ((1_000, 20_000), 5)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print_header(f"seconds of CPU in one process, {rounds} rounds, sizes in turn; median [min, max]")
    acts = ("status", "start", "first generation bred")
    taken: dict[tuple[str, int], list[float]] = {(act, size): [] for act in acts for size in sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = {size: f"sqlite:///{folder / f'{size}.db'}" for size in sizes}
        for size, url in urls.items():
            long_study(open_storage(url, create=True), size)
        for _ in range(rounds):
            for size, url in urls.items():
                taken["status", size].append(seconds(status, url)[0])
                cost, study = seconds(start, url)
                taken["start", size].append(cost)
                taken["first generation bred", size].append(seconds(breed, study)[0])
        sys.path.insert(0, os.fspath(folder))
        costs, transactions = trial_costs(folder, 3 if quick else 200)
    rows = table("a long history", "what", "trials", "s of CPU", "of the shorter")
    for (act, size), times in taken.items():
        ratio = statistics.median(times) / statistics.median(taken[act, sizes[0]])
        rows.add_row(act, f"{size:,}", middle(times), f"{ratio:.1f}")
    console.print(rows)
    console.print(f"a trial: {middle(costs, 1)} ms of CPU, {transactions:.1f} transactions")


if __name__ == "__main__":
    main()
