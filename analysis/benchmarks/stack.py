"""Genomes an hour on digits, one by one and as a stack: `batch_candidates = 1` and `= K`.

    python -m analysis.benchmarks.stack [--quick] [--device cuda]

Both ways go through the same objective and the same kind of SQLite study, in one process with one thread;
every genome of a generation that passes the gate is trained in full (no racing) at the default budget. On a
CPU the clock is the process's own time, which other work disturbs less than it does the time of day.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
import torch

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.evaluation.objective import Objective
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import create_or_resume
from optevo.training.bench import Bench
from optevo.training.run import Run

T = TypeVar("T")


class Timed(Bench):
    """A bench that adds up the time of its training."""

    clock: Callable[[], float] = time.process_time
    seconds = 0.0

    def run(self, *args: Any, **options: Any) -> Run:
        """As `Bench`'s."""
        return self._timed(super().run, *args, **options)

    def run_together(self, *args: Any, **options: Any) -> list[Run]:
        """As `Bench`'s."""
        return self._timed(super().run_together, *args, **options)

    def _timed(self, call: Callable[..., T], *args: Any, **options: Any) -> T:
        start, before = self.clock(), self.seconds
        result = call(*args, **options)
        self.seconds = before + self.clock() - start  # calls within it are not counted twice
        return result


def generation(size: int, batch: int, *, steps: int, seed: int, url: str, device: str) -> tuple[float, float]:
    """Seconds for one generation, and of it seconds spent outside training."""
    evaluation = {"tasks": ["digits"], "steps": steps, "pruner": "none"}
    config = parse_config(
        {
            "name": f"{batch} {seed}",
            "seed": seed,
            "sampler": {"kind": "random", "n_trials": size},
            "evaluation": {**evaluation, "batch_candidates": batch},
        },
        "benchmark",
    )
    study = create_or_resume(config, open_storage(url, create=True), device)
    bench = Timed(config, device, Path())
    bench.clock = time.process_time if bench.device.type == "cpu" else time.perf_counter
    objective = Objective(bench, config.make_space())
    start = bench.clock()
    study.optimize(objective, n_trials=-(-size // batch))
    seconds = bench.clock() - start
    assert len(study.get_trials(deepcopy=False)) == size
    return seconds, seconds - bench.seconds


def main() -> None:
    """Measure and print."""
    given = parser(__doc__, device=True)
    given.add_argument("--rounds", type=int, default=5)
    options = given.parse_args()
    quick = options.quick
    size, steps, rounds = (4, 5, 1) if quick else (96, 500, options.rounds)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print_header(
        f"{rounds} interleaved generations of {size} random genomes, {steps} steps x 2 seeds, "
        "one thread, median [range]"
    )
    batches = [1, 2] if quick else [1, 12, 24, 48, 96]
    times: dict[int, list[tuple[float, float]]] = {batch: [] for batch in batches}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            for batch in batches:
                url = f"sqlite:///{folder}/{batch}.db"
                times[batch].append(
                    generation(size, batch, steps=steps, seed=seed, url=url, device=str(options.device))
                )
    columns = ("genomes an hour", "times one by one", "ms besides training")
    rows = table("digits, one process", "batch_candidates", *columns)
    alone = [seconds for seconds, _ in times[1]]
    for batch, measured in times.items():
        rates = [3600 * size / seconds for seconds, _ in measured]
        ratios = [a / seconds for a, (seconds, _) in zip(alone, measured, strict=True)]
        outside = statistics.median(1e3 * other / size for _, other in measured)
        rows.add_row(str(batch), middle(rates, 0), middle(ratios), f"{outside:.0f}")
    console.print(rows)


if __name__ == "__main__":
    main()
