"""Genomes an hour on digits, one by one and as a stack: `batch_candidates = 1` and `= K`.

    python -m analysis.benchmarks.stack [--quick] [--device cuda]

Both ways go through the same objective and the same kind of SQLite study, in one process with one thread;
every genome of a generation that passes the gate is trained in full (no racing) at the default budget.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import optuna
import torch

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import create_or_resume
from optevo.training.bench import Bench


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
    objective = Objective(Bench(config, device, Path()), config.make_space())
    start = time.perf_counter()
    study.optimize(objective, n_trials=-(-size // batch))
    seconds = time.perf_counter() - start
    trials = study.get_trials(deepcopy=False)
    assert len(trials) == size
    return seconds, seconds - sum(run["seconds"] for t in trials for run in keys.ours(t)[keys.RUNS])


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, device=True).parse_args()
    quick = options.quick
    size, steps, rounds = (4, 5, 1) if quick else (24, 500, 5)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print_header(
        f"{rounds} interleaved generations of {size} random genomes, {steps} steps x 2 seeds, "
        "one thread, median [range]"
    )
    batches = [1, *(batch for batch in (8, 12, 24) if batch <= size)] if not quick else [1, 2]
    times: dict[int, list[tuple[float, float]]] = {batch: [] for batch in batches}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            for batch in batches:
                url = f"sqlite:///{folder}/{batch}.db"
                times[batch].append(
                    generation(size, batch, steps=steps, seed=seed, url=url, device=str(options.device))
                )
    columns = ("genomes an hour", "times one by one", "ms of storage a genome")
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
