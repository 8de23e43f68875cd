"""Ways to search compared at equal training steps: `python -m analysis.searches`.

The space of update graphs by the particle search, the genetic one, random draws and TPE, and beside them
the genetic search of term genomes, each with several search seeds on the digits. Search s takes the search
seed s and trains with the seed 20·s. Of every search, what it had found within the same number of training
steps goes through what a finished study does: fresh seeds choose one of the best, and others say what it is
worth, this time on the test split.

python -m analysis.searches --seeds 0 1 2 3 4 --keep FOLDER --output studies/results/searches

Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.viable import APART, best, finished, search, steps_of
from optevo.reporting.statistics import paired
from optevo.spaces import Candidate
from optevo.study.config import StudyConfig, parse_config
from optevo.tasks.roots import data_root
from optevo.training.bench import Bench

STUDY = Path(__file__).parents[1] / "studies" / "joint" / "quick.toml"
BUDGET = 8_000  # training steps, learning-rate trials included
BEST, FRESH = 3, 5  # candidates that are measured again; seeds of a measurement
PARTICLE, TERMS = "graphs, particle", "terms, genetic"

# As many trials as the budget takes, and some more.
_GENETIC = {"kind": "genetic", "population_size": 12, "n_generations": 5}
WAYS: dict[str, dict[str, Any]] = {
    PARTICLE: {
        "sampler": {
            "kind": "particle",
            "initial_size": 15,
            "n_particles": 3,
            "n_steps": 4,
            "n_mutations": 3,
        }
    },
    "graphs, genetic": {"sampler": _GENETIC},
    "graphs, random": {"sampler": {"kind": "random", "n_trials": 60}},
    # What TPE proposes cannot be drawn again.
    "graphs, tpe": {"sampler": {"kind": "tpe", "n_trials": 120}, "space": {"kind": "graph", "viable": False}},
    TERMS: {"sampler": {**_GENETIC, "n_generations": 7}, "space": {"kind": "terms"}},
}


def variant(way: str, seed: int) -> StudyConfig:
    """The study of one search."""
    values = tomllib.loads(STUDY.read_text(encoding="utf-8")) | WAYS[way]
    values |= {"name": f"{way} {seed}", "seed": seed, "rerun": {"candidates": 0}}
    values["evaluation"] = {**values["evaluation"], "seeds": [APART * seed]}
    if way != PARTICLE:
        values["evaluation"].pop("screening")
    if way == TERMS:  # they have rates of their own
        values["evaluation"].pop("rates")
    return parse_config(values, way)


def metrics(bench: Bench, candidate: Candidate, first: int) -> list[float]:
    """The metric with each of `FRESH` seeds, 0 where a run diverged."""
    return [bench.run(candidate, 0, seed).metric or 0.0 for seed in range(first, first + FRESH)]


def row(way: str, seed: int, folder: Path) -> dict[str, Any]:
    """What came of one search."""
    config = variant(way, seed)
    study = search(config, folder)
    trials = finished(study, BUDGET)
    reading = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"split": "test", "screening": None})}
    )
    space = config.make_space()
    validation, test = (Bench(one, "cpu", data_root()) for one in (config, reading))
    first = APART * seed + 1
    shortlist = [space.candidate(trial.params) for trial in best(trials, BEST)]
    winner = max(shortlist, key=lambda one: statistics.mean(metrics(validation, one, first)))
    states = [trial.state.name for trial in trials]
    return {
        "way": way,
        "search_seed": seed,
        "steps": steps_of(study),
        "trials": len(trials),
        "complete": states.count("COMPLETE"),
        "search": max(trial.value or 0.0 for trial in best(trials, 1)),
        "test": statistics.mean(metrics(test, winner, first + FRESH)),
        "winner": winner.formula(),
    }


def said(frame: pd.DataFrame) -> list[str]:
    """The table, a line of Markdown each: mean ± sd over searches, and against the particle search."""
    n = frame["search_seed"].nunique()
    lines = [f"| n = {n} searches each | trials | complete | test accuracy | − particle, 95 % interval |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    tests = frame.pivot(index="search_seed", columns="way", values="test")
    for way in WAYS:
        one = frame[frame["way"] == way]
        cells = [way, f"{one['trials'].mean():.0f}", f"{one['complete'].mean():.0f}"]
        cells += [f"{one['test'].mean():.4f} ± {one['test'].std():.4f}"]
        if way == PARTICLE or n < 2:
            cells += [""]
        else:
            difference = (tests[way] - tests[PARTICLE]).tolist()
            estimate = paired({"": difference}, rng=np.random.default_rng(0))
            cells += [f"{estimate.mean:+.4f}, {estimate.low:+.4f} to {estimate.high:+.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, measure, write `searches.csv` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="search seeds")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the databases")
    parser.add_argument("--output", type=Path, help="folder for searches.csv")
    given = parser.parse_args(arguments)
    given.keep.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = [row(way, seed, given.keep) for seed, way in itertools.product(given.seeds, WAYS)]
    frame = pd.DataFrame(rows)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        frame.to_csv(given.output / "searches.csv", index=False)
    print("\n".join(said(frame)))


if __name__ == "__main__":
    main()
