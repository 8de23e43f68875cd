"""What a space of viable individuals brings at equal training steps: `python -m analysis.viable`.

Each search is made twice: as the study file says, and with `viable = true`. Search s takes the search seed s
and trains with the seeds 20·s and 20·s + 1, so that no two seeds share a draw. A viable search trains more
genomes in as many trials. So the two are compared where both had the same number of training steps, the last
time at all those of the shorter one. There the best of each go through what a finished study does: fresh
seeds choose one, others say what it is worth.

python -m analysis.viable --seeds 0 1 2 3 4 --keep FOLDER --output studies/results/viable

Interrupted, the same command goes on. With --way one of the two is searched and nothing is compared.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial
from rich.console import Console

from optevo import keys
from optevo.measurement.fresh_seeds import Row
from optevo.measurement.pool import Measurer, processes
from optevo.reporting.statistics import paired
from optevo.run import run
from optevo.samplers.slots import Slot
from optevo.spaces import Params
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, load_config
from optevo.study.studies import contenders, load_study, make_sampler
from optevo.tasks.roots import data_root

PLAIN, VIABLE = WAYS = ("plain", "viable")
APART = 20  # training seeds of a search: two of its own, and ten fresh ones
BUDGETS = (4_000, 8_000)  # training steps, besides those that the shorter search of a pair took


def variant(config: StudyConfig, seed: int, way: str) -> StudyConfig:
    """The study of one search."""
    seeds = tuple(range(APART * seed, APART * seed + len(config.evaluation.seeds)))
    changes = {
        "name": f"{config.name} {way} {seed}",
        "seed": seed,
        "space": config.space.model_copy(update={"viable": way == VIABLE}),
        "evaluation": config.evaluation.model_copy(update={"seeds": seeds}),
    }
    return config.model_copy(update=changes)


def search(config: StudyConfig, folder: Path) -> optuna.Study:
    """The finished search, in a database of its own."""
    url = f"sqlite:///{(folder / config.name.replace(' ', '_')).resolve()}.db"
    quiet = Console(quiet=True)
    run(config, storage_url=url, workers=1, device="cpu", data_root=data_root(), console=quiet)
    return load_study(open_storage(url), config.name)[0]


def finished(study: optuna.Study, budget: float = np.inf) -> list[FrozenTrial]:
    """The trials that were decided within so many training steps, as they came in."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    trials.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    steps = itertools.accumulate(keys.ours(trial).get(keys.TRAINED_STEPS, 0) for trial in trials)
    return [trial for trial, so_far in zip(trials, steps, strict=True) if so_far <= budget]


def steps_of(study: optuna.Study) -> int:
    """Training steps of a whole search."""
    return sum(keys.ours(trial).get(keys.TRAINED_STEPS, 0) for trial in finished(study))


def best(trials: Sequence[FrozenTrial], n: int) -> list[FrozenTrial]:
    """The n fittest of some trials, of different canonical forms; of equals, the first."""
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    forms: dict[str, FrozenTrial] = {}
    for trial in sorted(contenders(complete), key=lambda trial: -(trial.value or 0.0)):
        forms.setdefault(keys.ours(trial)[keys.CANONICAL], trial)
    return list(forms.values())[:n]


def fresh(study: optuna.Study, config: StudyConfig, budget: float) -> float:
    """Fitness, on seeds that chose nothing, of the one of the best that is best on fresh seeds."""
    space, n = config.make_space(), config.rerun.seeds
    first = max(config.evaluation.seeds) + 1
    fittest = best(finished(study, budget), config.rerun.candidates)
    shortlist = {str(trial.number): space.candidate(trial.params) for trial in fittest}
    with processes(config, ["cpu"], data_root()) as pool:
        measurer = Measurer(study, config, pool, keys.FRESH)
        chosen = measurer.measure(shortlist, range(first, first + n))
        winner = max(chosen, key=lambda name: Row(name, None, chosen[name]).rank)
        runs = measurer.measure({winner: shortlist[winner]}, range(first + n, first + 2 * n))
    return Row(winner, None, runs[winner]).mean


def draws(study: optuna.Study, config: StudyConfig) -> dict[str, float]:
    """Gates asked for each individual of generation 0, and of the others, and what one takes in ms."""
    sampler = make_sampler(config)
    space, seconds = sampler.space, list[float]()
    viable = space.viable

    def timed(params: Params) -> Params | None:
        since = time.perf_counter()
        passed = viable(params)
        seconds.append(time.perf_counter() - since)
        return passed

    space.viable = timed
    table, last = sampler.slot_table(study), config.sampler.n_generations
    for generation in range(last):
        sampler.group(study, Slot(generation, 0))  # breeds the whole generation
        if generation == 0:
            first = len(seconds)
    bred = (len(seconds) - first) / sum(map(table.size, range(1, last)))
    return {
        "draws_random": first / table.size(0),
        "draws_bred": bred,
        "gate_ms": 1e3 * statistics.median(seconds),
    }


def compared(config: StudyConfig, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each of the two searches of a seed."""
    configs = {way: variant(config, seed, way) for way in WAYS}
    studies = {way: search(one, folder) for way, one in configs.items()}
    shared = min(map(steps_of, studies.values()))
    rows = []
    for way, study in studies.items():
        trials = finished(study)
        reasons = [str(keys.ours(trial).get(keys.PRUNED_BY, "")) for trial in trials]
        row = {"search_seed": seed, "way": way, "trials": len(trials), "steps": steps_of(study)}
        row |= {"refused": sum(reason.startswith("gate") for reason in reasons), "shared_steps": shared}
        for name, budget in {**{str(b): b for b in BUDGETS}, "shared": shared, "all": np.inf}.items():
            row[f"best_{name}"] = max((t.value for t in best(finished(study, budget), 1)), default=np.nan)
        row |= {"fresh_shared": fresh(study, configs[way], shared)}
        row |= {"fresh_all": fresh(study, configs[way], np.inf)}
        rows.append(row | (draws(study, configs[way]) if way == VIABLE else {}))
    return rows


def difference(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Viable minus plain, a value a search seed."""
    wide = frame.pivot(index="search_seed", columns="way", values=column)
    return (wide[VIABLE] - wide[PLAIN]).to_numpy()


def said(frame: pd.DataFrame) -> list[str]:
    """The table, a line of Markdown each: mean ± sd over searches, and the paired difference."""
    n = frame["search_seed"].nunique()
    lines = [f"| n = {n} searches each | plain | viable | difference | 95 % interval | p |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    titles = {f"best_{b}": f"best fitness at {b:,} steps" for b in BUDGETS}
    titles |= {"best_shared": "best fitness at the steps of the shorter"}
    titles |= {"fresh_shared": "its winner on fresh seeds", "best_all": "best fitness, whole searches"}
    titles |= {"fresh_all": "their winners on fresh seeds", "steps": "training steps"}
    titles |= {"refused": "trials that the gate refused"}
    for column, title in titles.items():
        values = {way: frame.loc[frame["way"] == way, column] for way in WAYS}
        digits = 4 if column.startswith(("best", "fresh")) else 0
        means = [f"{one.mean():,.{digits}f} ± {one.std():,.{digits}f}" for one in values.values()]
        estimate = paired({"": difference(frame, column).tolist()}, rng=np.random.default_rng(0))
        interval = f"{estimate.low:+,.{digits}f} to {estimate.high:+,.{digits}f}"
        cells = [title, *means, f"{estimate.mean:+,.{digits}f}", interval, f"{estimate.p:.2g}"]
        lines.append(f"| {' | '.join(cells)} |".replace("-", "−"))
    columns = ("draws_random", "draws_bred", "gate_ms")
    random, bred, ms = (
        f"{frame[name].mean():.2f}" for name in columns
    )  # of the viable ones: others have none
    return [*lines, f"draws a random genome {random}, a bred one {bred}; {ms} ms a gate"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Search; compare, write `searches.csv`, two rows a search seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="search seeds")
    parser.add_argument("--way", choices=WAYS, help="only search, this way")
    parser.add_argument("--study", type=Path, default=Path("studies/reduced.toml"))
    parser.add_argument("--keep", type=Path, required=True, help="folder of the databases")
    parser.add_argument("--output", type=Path, help="folder for searches.csv")
    given = parser.parse_args(arguments)
    given.keep.mkdir(parents=True, exist_ok=True)
    config = load_config(given.study)
    if given.way:
        for seed in given.seeds:
            search(variant(config, seed, given.way), given.keep)
        return
    frame = pd.DataFrame([row for seed in given.seeds for row in compared(config, seed, given.keep)])
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        frame.to_csv(given.output / "searches.csv", index=False)
    print("\n".join(said(frame)))


if __name__ == "__main__":
    main()
