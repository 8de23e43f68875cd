"""Training steps of a search with copies, gate and racing beside the same search without, and its winners.

    python -m analysis.benchmarks.search [--quick] [--seeds 5] [--keep FOLDER] [--study studies/reduced.toml]

Each search seed is searched both ways. A study's copied runs count as trained for the plain way. Winners are
those of the studies' own re-run on fresh seeds. With --keep the databases stay, and a second call resumes.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from scipy import stats

from analysis.benchmarks.common import console, parser, print_header, table
from optevo import keys
from optevo.measurement.fresh_seeds import Row
from optevo.run import run
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, load_config
from optevo.study.studies import load_study
from optevo.tasks.roots import data_root

WAYS = {"plain": {"gate": False, "pruner": "none"}, "fast": {"gate": True, "pruner": "racing"}}


def variant(config: StudyConfig, way: str, seed: int, quick: bool) -> StudyConfig:
    """The study of one way and one seed."""
    evaluation = {**WAYS[way]} | ({"steps": 5} if quick else {})
    changes = {
        "name": f"{config.name} {way} {seed}",
        "seed": seed,
        "evaluation": config.evaluation.model_copy(update=evaluation),
    }
    if quick:
        changes["sampler"] = config.sampler.model_copy(update={"population_size": 5, "n_generations": 2})
        changes["rerun"] = config.rerun.model_copy(update={"candidates": 1, "seeds": 2})
    return config.model_copy(update=changes)


def search(config: StudyConfig, folder: Path) -> tuple[int, int, Row]:
    """Steps as if nothing were copied, steps trained, and the winner on fresh seeds."""
    url = f"sqlite:///{folder / 'search.db'}"
    quiet = Console(quiet=True)
    result = run(config, storage_url=url, workers=None, device="auto", data_root=data_root(), console=quiet)
    assert result is not None
    study, _ = load_study(open_storage(url), config.name)
    attrs = [keys.ours(trial) for trial in study.get_trials(deepcopy=False) if trial.values is not None]
    runs = sum(run["steps"] for a in attrs for run in a[keys.RUNS])
    return runs, sum(a[keys.TRAINED_STEPS] for a in attrs), result.rows[-1]


def main() -> None:
    """Search, count and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=5, help="searches each way")
    arguments.add_argument("--keep", type=Path, help="folder for the databases; a second call goes on there")
    arguments.add_argument("--study", type=Path, default=Path("studies/reduced.toml"))
    options = arguments.parse_args()
    seeds = range(1 if options.quick else options.seeds)
    config = load_config(Path("studies/quickstart.toml") if options.quick else options.study)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        print_header(f"training steps of {len(seeds)} searches of study {config.name!r} each way")
        columns = ("steps plain", "steps fast", "ratio", "winner plain", "winner fast", "difference")
        rows = table("a search's steps, and its winner's fitness on fresh seeds", "search seed", *columns)
        ratios, differences = [], []
        for seed in seeds:
            found = {way: search(variant(config, way, seed, options.quick), folder) for way in WAYS}
            (plain_steps, _, plain), (_, fast_steps, fast) = found["plain"], found["fast"]
            ratios.append(fast_steps / plain_steps)
            differences.append(fast.mean - plain.mean)
            cells = (f"{plain_steps:,}", f"{fast_steps:,}", f"{ratios[-1]:.3f}")
            winners = (f"{row.mean:.4f} ± {row.sd:.4f}" for row in (plain, fast))
            rows.add_row(str(seed), *cells, *winners, f"{differences[-1]:+.4f}")
        console.print(rows)
        console.print(f"steps: median {statistics.median(ratios):.3f} of the plain way's")
        if len(differences) > 1:
            test = stats.ttest_1samp(differences, 0.0)
            low, high = test.confidence_interval()
            mean = statistics.fmean(differences)
            console.print(
                f"winners: difference {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, "
                f"paired t test p = {test.pvalue:.2f}, n = {len(differences)} searches"
            )


if __name__ == "__main__":
    main()
