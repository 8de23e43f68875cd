"""What gate and racing leave of a search, and what a tenth of a run says of its end.

The quickstart with four seeds a trial, 16 members and 10 generations, is searched three ways: without gate
and racing, with them, and with racing within runs. Search s takes the search seed s and trains with the seeds
20·s to 20·s + 3, whichever the way. Of each, the best go through what a finished study does: fresh seeds
choose one, others say what it is worth, on the validation split. Beside that, how well training losses over a
tenth of a run rank candidates: of the searches without racing, and of saved studies.

python -m analysis.racing --seeds 0 1 2 3 4 --keep FOLDER --output studies/results/racing

Interrupted, the same command goes on. With --ways only those are searched, and only searches are compared;
with --generations longer ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from scipy.stats import rankdata

from analysis.viable import APART, best, finished, steps_of
from optevo import keys
from optevo.evaluation.racing import USEFUL
from optevo.evaluation.within_runs import behind_within, highest_losses, margins
from optevo.reporting.statistics import paired
from optevo.samplers import sampler_of
from optevo.storage.opening import open_storage
from optevo.storage.study_file import read_study
from optevo.study.config import StudyConfig, load_config
from optevo.study.studies import create_or_resume, is_complete, load_study
from optevo.tasks.roots import data_root
from optevo.training.bench import Bench
from optevo.training.run import read_run
from optevo.workers.worker import work

STUDIES = Path(__file__).parents[1] / "studies"
SAVED = ("own_search", "quickstart")
PLAIN, RACING, WITHIN = "without", "racing", "racing within runs"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {"gate": False, "pruner": "none"},
    RACING: {"gate": True, "pruner": "racing"},
    WITHIN: {"gate": True, "pruner": "racing_within_runs"},
}
POPULATION_SIZE, GENERATIONS = 16, 10
BEST, CHOICE, READ = 3, 5, 10  # candidates that are measured again; fresh seeds that choose one, and read it
DRAWS = 1000  # of the bootstrap
FORMATS = {"agreement": "%.4f", "replays": "%.1f"}  # of tables' numbers


def variant(way: str, seed: int, generations: int = GENERATIONS) -> StudyConfig:
    """The study of one search."""
    sizes = {"population_size": POPULATION_SIZE, "n_generations": generations}
    config = load_config(STUDIES / "quickstart.toml")
    evaluation = {**WAYS[way], "seeds": tuple(range(APART * seed, APART * seed + 4))}
    return config.model_copy(
        update={
            "name": f"{way} {seed}",
            "seed": seed,
            "sampler": config.sampler.model_copy(update=sizes),
            "evaluation": config.evaluation.model_copy(update=evaluation),
            "rerun": config.rerun.model_copy(update={"candidates": 0}),
        }
    )


def search(config: StudyConfig, folder: Path) -> optuna.Study:
    """The finished search, in a database of its own, by a worker in this process."""
    url = f"sqlite:///{(folder / config.name.replace(' ', '_')).resolve()}.db"
    costs = Bench(config, "cpu", data_root()).rehearse_all()
    study = create_or_resume(config, open_storage(url, create=True), "cpu", costs)
    if not is_complete(study):
        work(url, config.name, device="cpu", data_root=data_root(), parent=os.getppid())
    return load_study(open_storage(url), config.name)[0]


def steps_of_first(study: optuna.Study) -> int:
    """Training steps of generation 0, in which nobody races."""
    attrs = [keys.ours(trial) for trial in finished(study)]
    return sum(one.get(keys.TRAINED_STEPS, 0) for one in attrs if one[keys.GENERATION] == 0)


def row(way: str, seed: int, folder: Path, generations: int = GENERATIONS) -> dict[str, Any]:
    """What came of one search; kept in a file beside its database."""
    kept = folder / f"{way} {seed}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    config = variant(way, seed, generations)
    study = search(config, folder)
    bench, space, trials = Bench(config, "cpu", data_root()), config.make_space(), finished(study)

    def fitness(trial: optuna.trial.FrozenTrial, first: int, n: int) -> list[float]:
        candidate = space.candidate(trial.params)
        return [max(0.0, bench.run(candidate, 0, seed).fitness) for seed in range(first, first + n)]

    first = APART * seed + 5
    winner = max(best(trials, BEST), key=lambda trial: statistics.mean(fitness(trial, first, CHOICE)))
    found = {
        "way": way,
        "search_seed": seed,
        "steps": steps_of(study),
        "generation_0": steps_of_first(study),
        "trials": len(trials),
        "complete": sum(trial.state.name == "COMPLETE" for trial in trials),
        "within_runs": sum(keys.UNFINISHED in keys.ours(trial) for trial in trials),
        "search": winner.value,
        "fresh": statistics.mean(fitness(winner, first + CHOICE, READ)),
        "winner": space.candidate(winner.params).formula(),
    }
    kept.write_text(json.dumps(found))
    return found


def agreement(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """Spearman's correlation of −training loss over each tenth of trials' first run with its fitness.

    Diverged and copied runs are left out. A schedule decays where its last factor is below half the peak.
    """
    space, steps, runs = config.make_space(), config.evaluation.steps, []
    for trial in finished(study):
        attrs = keys.ours(trial)
        if not attrs.get(keys.RUNS) or keys.COPIED_FROM in attrs:
            continue
        run = read_run(attrs[keys.RUNS][0])
        if not run.diverged:
            decays = space.candidate(trial.params).schedule(steps)(steps - 1) < 0.5
            runs.append((run, decays))
    rows = []
    for name, kinds in (("all", (True, False)), ("decays", (True,)), ("stays", (False,))):
        some = [run for run, decays in runs if decays in kinds]
        fitness = np.array([run.fitness for run in some])
        draws = np.random.default_rng(0).integers(len(some), size=(DRAWS, len(some)))
        for n in range(10):
            losses = np.array([run.losses[n] for run in some], dtype=float)
            low, high = np.nanquantile(spearman(-losses[draws], fitness[draws]), (0.025, 0.975))
            rows.append(
                {
                    "study": study.study_name,
                    "schedule": name,
                    "candidates": len(some),
                    "tenth": n + 1,
                    "spearman": spearman(-losses[None], fitness[None])[0],
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


#: What is asked of a loss, by name: margins of a schedule over a run of so many steps.
RULES: dict[str, Callable[[Callable[[int], float], int], Sequence[float]]] = {
    "none": lambda schedule, steps: [0.0] * 9,
    "5 %": lambda schedule, steps: [0.05] * 9,
    "2 % and up to 10 % more": margins,
}


def replay(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """What rules would have stopped within the first run, had a study raced so: a row a rule and schedule.

    `useful` are children that were not behind the best quarter of the generation before after that run;
    `lost` those of them that a rule stops. Copied and diverged ones are left out.
    """
    space, steps, rows = config.make_space(), config.evaluation.steps, []
    table = sampler_of(study).slot_table(study)
    trials = {trial.number: trial for trial in finished(study)}
    first = {n: [read_run(run) for run in keys.ours(t).get(keys.RUNS, [])[:1]] for n, t in trials.items()}
    for g, population in sorted(table.populations.items()):
        runs = [first[member.number] for member in population]
        (highest,) = highest_losses(runs, 1)
        fitness = sorted((run.earned for each in runs for run in each), reverse=True)
        least = fitness[: math.ceil(USEFUL * len(population))][-1]
        for number, trial in trials.items():
            attrs, own = keys.ours(trial), first[number]
            if attrs[keys.GENERATION] != g + 1 or keys.COPIED_FROM in attrs or not own or own[0].diverged:
                continue
            schedule = space.candidate(trial.params).schedule(steps)
            for rule, asked in RULES.items():
                losses, limits = own[0].losses, asked(schedule, steps)
                stops = [n for n in range(1, 10) if behind_within(losses[:n], highest, limits)]
                tenths, useful = min(stops, default=10), own[0].fitness >= least
                decays = schedule(steps - 1) < 0.5
                rows.append((study.study_name, rule, decays, tenths / 10, useful, useful and tenths < 10))
    frame = pd.DataFrame(rows, columns=["study", "rule", "decays", "share", "useful", "lost"])
    groups = frame.groupby(["study", "rule", "decays"], sort=False)
    counts = groups[["share", "useful", "lost"]].sum().assign(children=groups.size())
    return counts.reset_index().rename(columns={"share": "runs"})


def said_of_replay(frame: pd.DataFrame) -> list[str]:
    """A line of Markdown a rule: saved studies, and the searches together."""
    studies = [*SAVED[:1], "searches"]
    frame = frame.assign(study=frame["study"].where(~frame["study"].str.startswith(PLAIN), "searches"))
    lines = [f"| margin | {' | '.join(f'{one}, share of first runs | lost' for one in studies)} |"]
    lines += ["| --- |" + " --- | --- |" * len(studies)]
    for rule in RULES:
        cells = [rule]
        for study in studies:
            one = frame[(frame["rule"] == rule) & (frame["study"] == study)]
            by = one.groupby("decays")[["lost", "useful"]].sum()
            cells.append(f"{one['runs'].sum() / one['children'].sum():.2f}")
            decay, stay = (f"{by.loc[kind, 'lost']} of {by.loc[kind, 'useful']}" for kind in (True, False))
            cells.append(f"{decay} that decay, {stay} that stay")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def saved(name: str) -> tuple[optuna.Study, StudyConfig]:
    """A saved study."""
    return load_study(read_study(STUDIES / "results" / name / f"{name}.json"), name)


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each row of one with that of the other, both of shape (rows, n); NaN where one has no spread."""
    one, other = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))


def said_of_agreement(frame: pd.DataFrame) -> list[str]:
    """A line of Markdown a study and schedule: saved ones with an interval, searches as mean ± sd."""
    tenths = [1, 2, 3, 5, 10]
    frame = frame[frame["tenth"].isin(tenths)]
    lines = [f"| study | schedule | candidates | {' | '.join(map(str, tenths))} |"]
    lines += [f"| {' | '.join(['---'] * (3 + len(tenths)))} |"]
    searches = frame["study"].str.startswith(PLAIN)
    for (study, schedule), one in frame[~searches].groupby(["study", "schedule"], sort=False):
        cells = [f"{row.spearman:.2f} ({row.low:.2f} to {row.high:.2f})" for row in one.itertuples()]
        lines.append(f"| {study} | {schedule} | {one['candidates'].iloc[0]} | {' | '.join(cells)} |")
    for schedule, one in frame[searches].groupby("schedule", sort=False):
        values = one.groupby("tenth")["spearman"]
        cells = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(values.mean(), values.std(), strict=True)]
        n = one.groupby("study")["candidates"].first()
        lines.append(f"| {len(n)} searches | {schedule} | {n.min()} to {n.max()} | {' | '.join(cells)} |")
    return lines


def said(frame: pd.DataFrame) -> list[str]:
    """The searches, a line of Markdown each way: mean ± sd over searches, and against none of it."""
    names, ways = ("steps", "generation_0", "fresh"), list(frame["way"].unique())
    tables = {name: frame.pivot(index="search_seed", columns="way", values=name)[ways] for name in names}
    later = tables["steps"] - tables["generation_0"]
    n = len(later)
    lines = [f"| n = {n} searches each | steps | share | of children | fresh fitness | − without |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for way in ways:
        steps, fresh = tables["steps"][way], tables["fresh"][way]
        shares = [table[way] / table[PLAIN] for table in (tables["steps"], later)]
        cells = [way, f"{steps.mean():.0f} ± {steps.std():.0f}"]
        cells += [f"{share.mean():.3f} ± {share.std():.3f}" for share in shares]
        cells += [f"{fresh.mean():.4f} ± {fresh.std():.4f}", ""]
        if way != PLAIN and len(fresh) > 1:
            found = paired({"": (fresh - tables["fresh"][PLAIN]).tolist()}, rng=np.random.default_rng(0))
            cells[-1] = f"{found.mean:+.4f}, {found.low:+.4f} to {found.high:+.4f}, p = {found.p:.2g}"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, measure, write `searches.csv` and, of all ways, two more, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="search seeds")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the databases")
    parser.add_argument("--output", type=Path, help="folder for the tables")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    given = parser.parse_args(arguments)
    given.keep.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ways = [way for way in WAYS if way in {PLAIN, *given.ways}]  # shares are of the one without
    rows = [row(way, seed, given.keep, given.generations) for seed in given.seeds for way in ways]
    tables, texts = {"searches": pd.DataFrame(rows)}, said(pd.DataFrame(rows))
    if ways == list(WAYS):
        studies = [saved(name) for name in SAVED]
        for seed in given.seeds:
            config = variant(PLAIN, seed, given.generations)
            studies.append((search(config, given.keep), config))
        tables["agreement"] = pd.concat([agreement(*one) for one in studies])
        tables["replays"] = pd.concat([replay(*one) for one in studies if one[1].name != SAVED[1]])
        texts += ["", *said_of_agreement(tables["agreement"]), "", *said_of_replay(tables["replays"])]
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_csv(given.output / f"{name}.csv", index=False, float_format=FORMATS.get(name))
    print("\n".join(texts))


if __name__ == "__main__":
    main()
