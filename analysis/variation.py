"""What stronger mutation brings to the quickstart at equal training steps: `python -m analysis.variation`.

Each search is made with mutation as published, whose strength anneals from 1 to ½, and with a strength of 2
throughout: twice the probabilities, and twice the widths, of the first generation's. Search s takes the
search seed s and trains with the seeds 20·s and 20·s + 1, so that no two seeds share a draw. The two are
compared where both had as many training steps as the shorter one took. There, five fresh seeds choose one of
the best three, and ten others say what it is worth.

python -m analysis.variation --seeds 10 21 --output studies/results/variation

Interrupted, the same command goes on with the next seed.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.storages import InMemoryStorage

from analysis.viable import APART, best, finished, steps_of
from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.reporting import generations
from optevo.reporting.statistics import paired
from optevo.samplers import GeneticSampler, NoSlot
from optevo.spaces import Candidate
from optevo.study.config import StudyConfig, load_config
from optevo.study.studies import create_or_resume
from optevo.tasks.roots import data_root
from optevo.training.bench import Bench

STUDY = Path(__file__).parents[1] / "studies" / "quickstart.toml"
PUBLISHED, STRONGER = WAYS = ("published", "strength 2")
CHOOSING, SAYING = 5, 10  # fresh seeds
LATE = 3  # generations


def variant(config: StudyConfig, seed: int, way: str) -> StudyConfig:
    """The study of one search."""
    seeds = tuple(range(APART * seed, APART * seed + len(config.evaluation.seeds)))
    changes = {
        "name": f"{config.name} {way} {seed}",
        "seed": seed,
        "evaluation": config.evaluation.model_copy(update={"seeds": seeds}),
    }
    return config.model_copy(update=changes)


def search(config: StudyConfig, bench: Bench, way: str) -> optuna.Study:
    """The finished search, in memory."""
    study = create_or_resume(config, InMemoryStorage(), "cpu")
    if way == STRONGER:
        cast(GeneticSampler, study.sampler).anneal = lambda generation, n_generations: 2.0
    objective = Objective(bench, config.make_space())
    try:
        study.optimize(objective)
    except NoSlot:
        return study
    raise AssertionError("a search ends where there is no slot left")


def worth(bench: Bench, trials: Sequence[optuna.trial.FrozenTrial]) -> float:
    """Fitness, on seeds that chose nothing, of the one of the best that is best on fresh seeds."""
    space = bench.config.make_space()
    shortlist = [space.candidate(trial.params) for trial in best(trials, bench.config.rerun.candidates)]
    first = max(bench.config.evaluation.seeds) + 1
    chosen = means(bench, shortlist, range(first, first + CHOOSING))
    winner = shortlist[int(np.argmax(chosen))]
    return means(bench, [winner], range(first + CHOOSING, first + CHOOSING + SAYING))[0]


def means(bench: Bench, candidates: Sequence[Candidate], seeds: Iterable[int]) -> list[float]:
    """Mean fitness of each of some candidates, −1 for a run that diverged."""
    space = bench.config.make_space()
    runs = [bench.run_together(candidates, 0, seed, lambda: None, space.stack) for seed in seeds]
    return [
        statistics.mean(run.fitness if run.diverged_at is None else -1.0 for run in of_one)
        for of_one in zip(*runs, strict=True)
    ]


def compared(config: StudyConfig, seed: int) -> list[dict[str, Any]]:
    """A row for each of the two searches of a seed."""
    configs = [variant(config, seed, way) for way in WAYS]
    benches = [Bench(one, "cpu", data_root()) for one in configs]
    studies = [search(*of_one) for of_one in zip(configs, benches, WAYS, strict=True)]
    shared, rows = min(map(steps_of, studies)), []
    for way, one, bench, study in zip(WAYS, configs, benches, studies, strict=True):
        trials = finished(study, shared)
        late = generations(study, one).tail(LATE)
        row = {"search_seed": seed, "way": way, "steps": steps_of(study), "shared_steps": shared}
        row |= {"best": best(trials, 1)[0].value, "fresh": worth(bench, trials)}
        row |= {name: late[name].mean() for name in ("pruned_share", "part_sets", "step_size_sd")}
        row["winner"] = keys.ours(best(trials, 1)[0])[keys.FORMULA]
        rows.append(row)
    return rows


def said(frame: pd.DataFrame) -> list[str]:
    """The table, a line of Markdown each: mean ± sd over searches, and the paired difference."""
    n = frame["search_seed"].nunique()
    lines = [f"| n = {n} searches each | published | strength 2 | difference | 95 % interval | p |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    titles = {
        "fresh": ("its winner on fresh seeds", 4),
        "best": ("best fitness in the search", 4),
        "steps": ("training steps of the whole search", 0),
        "pruned_share": ("late trials that are pruned", 2),
        "part_sets": ("distinct sets of terms, late", 2),
        "step_size_sd": ("sd of log₁₀ step size, late", 2),
    }
    for column, (title, digits) in titles.items():
        wide = frame.pivot(index="search_seed", columns="way", values=column)
        cells = [f"{wide[one].mean():,.{digits}f} ± {wide[one].std():,.{digits}f}" for one in WAYS]
        estimate = paired({"": (wide[STRONGER] - wide[PUBLISHED]).tolist()}, rng=np.random.default_rng(0))
        cells += [f"{estimate.mean:+,.{digits}f}"]
        cells += [f"{estimate.low:+,.{digits}f} to {estimate.high:+,.{digits}f}", f"{estimate.p:.2g}"]
        lines.append(f"| {' | '.join([title, *cells])} |".replace("-", "−"))
    return lines


def tried(frame: pd.DataFrame) -> list[str]:
    """The table of what was tried before, a line of Markdown each: mean ± sd over searches, and paired."""
    wide = frame.pivot(index="search_seed", columns="way", values="fresh")
    first, *others = frame["way"].unique()
    lines = [
        "| way | n | its winner on fresh seeds | − published, 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    for way in (first, *others):
        values, differences = wide[way].dropna(), (wide[way] - wide[first]).dropna().tolist()
        cells = [way, str(len(values)), f"{values.mean():.4f} ± {values.std():.4f}", ""]
        if way != first:
            estimate = paired({"": differences}, rng=np.random.default_rng(0))
            cells[-1] = f"{estimate.mean:+.4f}, {estimate.low:+.4f} to {estimate.high:+.4f}"
        lines.append(f"| {' | '.join(cells)} |".replace("| -", "| −").replace(" -", " −"))
    return lines


def diversity(frame: pd.DataFrame) -> list[str]:
    """The table of diversity over generations, a line of Markdown each: means over searches."""
    ways = list(frame["way"].unique())
    titles = {"pruned_share": "pruned", "term_sets": "sets of terms", "log_lr_sd": "sd of log₁₀ lr"}
    lines = [f"| generation | {' | '.join(f'{one}, {way}' for one in titles.values() for way in ways)} |"]
    lines.append("| --- |" + " --- |" * (len(titles) * len(ways)))
    means = frame.groupby(["generation", "way"])[list(titles)].mean()
    for generation in frame["generation"].unique():
        cells = [f"{means.loc[(generation, way), one]:.2f}" for one in titles for way in ways]
        lines.append(f"| {generation} | {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, compare, write `searches.csv`, two rows a search seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs=2, default=(10, 21), help="search seeds, from and below")
    parser.add_argument("--output", type=Path, required=True, help="folder for searches.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path = given.output / "searches.csv"
    given.output.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = pd.read_csv(path).to_dict("records") if path.exists() else []
    for seed in range(*given.seeds):
        if seed not in {row["search_seed"] for row in rows}:
            rows += compared(load_config(STUDY), seed)
            pd.DataFrame(rows).to_csv(path, index=False)
    print("\n".join(said(pd.DataFrame(rows))))
    for name, table in (("tried", tried), ("generations", diversity)):  # of what was tried before
        if (before := given.output / f"{name}.csv").exists():
            print("\n".join(["", *table(pd.read_csv(before))]))


if __name__ == "__main__":
    main()
