"""A search under many workers: is it exact, and what does its storage cost a trial?

    python -m analysis.benchmarks.load [--quick] [--workers 32] [--trials 2000] [--check]
                                       [--storage sqlite|postgresql | --url URL]

Worker processes as `optevo run` starts them search with a task that scores a genome by its digest, in
microseconds: so they do nothing but ask, record and wait for each other. PostgreSQL is a server made for the
occasion (`tests/postgres.py`). With --check, genomes and fitness are compared with those of one worker in
memory.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.storage.opening import open_storage, shown
from optevo.study.config import StudyConfig, load_config
from optevo.study.studies import COUNTED, create_or_resume, make_sampler
from optevo.training.benches import make_bench

ROOT = Path(__file__).parents[2]
STUB = '''
import hashlib, os, sys, time
from pathlib import Path
import psutil
from optevo.tasks import ScoredTask

class Stub(ScoredTask):
    """Scores by digest; leaves a line (time, bytes of memory, torch imported) a run in its process's log."""

    name = "stub"

    def score(self, candidate, seed, steps):
        memory = psutil.Process().memory_info().rss
        with open(Path(__file__).with_name(f"{os.getpid()}.log"), "a") as log:
            print(time.time(), memory, int("torch" in sys.modules), file=log)
        digest = hashlib.sha256(f"{candidate.canonical()} {seed}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48
'''
STUDY = """
name = "load"
[sampler]
kind = "genetic"
population_size = {population}
n_generations = {generations}
n_elites = 3
[evaluation]
tasks = ["load_stub:Stub"]
seeds = [0]
gate = false
pruner = "none"
[rerun]
candidates = 1
seeds = 2
"""


@dataclass(frozen=True)
class Scoring:
    """A line of a worker's log: when it scored, its memory in bytes, whether it had torch."""

    at: float
    memory: int
    torch: bool


def study_file(folder: Path, trials: int, quick: bool) -> StudyConfig:
    """Write the stub and the study of at least so many trials."""
    population = 10 if quick else 50
    generations = 1 + max(0, math.ceil((trials - population) / (population - 3)))
    (folder / "load_stub.py").write_text(STUB)
    (folder / "load.toml").write_text(STUDY.format(population=population, generations=generations))
    return load_config(folder / "load.toml")


def search(config: StudyConfig, url: str, workers: int, folder: Path) -> tuple[optuna.Study, list[str]]:
    """Search with worker processes; the study, and the last lines of each that failed."""
    with contextlib.chdir(folder):
        costs = make_bench(config, "cpu", folder).rehearse()
    study = create_or_resume(config, open_storage(url, create=True), "cpu", costs)
    command = [sys.executable, "-P", "-m", "optevo", "worker", "--device", "cpu"]
    command += ["--parent", str(os.getpid()), "--", config.name]
    path = os.pathsep.join([str(folder), str(ROOT)])
    env = {**os.environ, "OPTEVO_STORAGE": url, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    running = []
    for i in range(workers):
        with (folder / f"worker {i}.txt").open("w") as words:
            running.append(subprocess.Popen(command, cwd=folder, env=env, stdout=words, stderr=words))
    failed = []
    for i, process in enumerate(running):
        if process.wait() != 0:
            tail = (folder / f"worker {i}.txt").read_text("utf-8", "replace")[-2000:]
            failed.append(f"worker {i} ended with status {process.returncode}:\n{tail}")
    return study, failed


def alone(config: StudyConfig, folder: Path) -> optuna.Study:
    """The same search by one worker in this process and in memory."""
    study = optuna.create_study(sampler=make_sampler(config), direction="maximize")
    with contextlib.chdir(folder):
        objective = Objective(make_bench(config, "cpu", folder), config.make_space())
    study.optimize(objective, n_trials=config.n_trials)
    return study


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials that hold a slot."""
    trials = study.get_trials(deepcopy=False, states=COUNTED)
    return [trial for trial in trials if keys.LATE not in trial.system_attrs]


def slot_of(trial: FrozenTrial) -> tuple[int, int]:
    """Generation and slot, as the trial's attributes have them."""
    return trial.user_attrs[keys.GENERATION], trial.user_attrs[keys.SLOT]


def report_exact(study: optuna.Study, config: StudyConfig, failed: Sequence[str], workers: int) -> None:
    """Whether every slot was decided once."""
    sampler = config.sampler
    assert sampler.kind == "genetic"
    sizes = [sampler.population_size, *[sampler.population_size - 3] * (sampler.n_generations - 1)]
    wanted = {(g, i) for g, size in enumerate(sizes) for i in range(size)}
    slots = Counter(map(slot_of, counted(study)))
    trials = study.get_trials(deepcopy=False)
    failures = [t for t in trials if t.state == TrialState.FAIL]
    surplus = sum(keys.SURPLUS in t.user_attrs for t in failures)
    rows = table(f"{len(sizes)} generations, {len(wanted)} slots", "what", "number", "should be")
    rows.add_row("workers lost", str(len(failed)), f"0 of {workers}")
    rows.add_row("slots decided", str(len(wanted & set(slots))), str(len(wanted)))
    rows.add_row("slots counted twice", str(sum(n > 1 for n in slots.values())), "0")
    rows.add_row("slots of no generation", str(len(set(slots) - wanted)), "0")
    rows.add_row("trials late", str(sum(keys.LATE in t.system_attrs for t in trials)), "0")
    rows.add_row("trials left running", str(sum(not t.state.is_finished() for t in trials)), "0")
    rows.add_row("trials failed, not surplus", str(len(failures) - surplus), "0")
    rows.add_row("surplus trials", str(surplus), "any")
    console.print(rows)
    exact = set(slots) == wanted and len(slots) == slots.total()
    console.print(f"generations exact: {'yes' if exact else 'NO'}")
    for words in failed[:3]:
        console.print(words)


def report_speed(study: optuna.Study, folder: Path, wall: float, cpu: float) -> None:
    """What a trial costs at the start and at the end of the search, and the workers' memory."""
    logs = {path.stem: scorings(path) for path in folder.glob("*.log")}
    trials = sorted(counted(study), key=started)
    rows = table("ms a trial, median [5 %, 95 %]", "trials", "number to score", "score to value", "whole")
    fifth = max(1, len(trials) // 5)
    parts = {f"first {fifth}": trials[:fifth], f"last {fifth}": trials[-fifth:], f"all {len(trials)}": trials}
    for name, part in parts.items():
        asks, tells = [], []
        for trial in part:
            for line in logs.get(str(trial.user_attrs[keys.WORKER]["pid"]), ()):
                if started(trial) <= line.at <= completed(trial):  # a copy is not scored
                    asks.append(1e3 * (line.at - started(trial)))
                    tells.append(1e3 * (completed(trial) - line.at))
        whole = [1e3 * (completed(trial) - started(trial)) for trial in part]
        rows.add_row(name, *(middle(values, 1) if values else "—" for values in (asks, tells, whole)))
    console.print(rows)
    span = completed(max(trials, key=completed)) - started(trials[0])
    console.print(f"{len(trials) / span:.1f} trials a second, first to last; {wall:.1f} s in all")
    console.print(f"{1e3 * cpu / len(trials):.0f} ms of the workers' CPU a trial, their start included")
    busy = sum(completed(trial) - started(trial) for trial in trials) / (span * max(1, len(logs)))
    console.print(f"a worker spent {100 * busy:.0f} % of that time in trials, the rest between them")
    peaks = [max(line.memory for line in log) / 2**20 for log in logs.values()]
    torch = sum(any(line.torch for line in log) for log in logs.values())
    console.print(
        f"memory of a worker at its most: {middle(peaks, 0)} MiB; {torch} of {len(logs)} imported torch"
    )


def scorings(path: Path) -> list[Scoring]:
    """A worker's log."""
    lines = (line.split() for line in path.read_text().splitlines())
    return [Scoring(float(at), int(memory), torch == "1") for at, memory, torch in lines]


def started(trial: FrozenTrial) -> float:
    """When the trial got its number, on its worker's clock, as seconds since 1970."""
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp()


def completed(trial: FrozenTrial) -> float:
    """When the trial's value was written, likewise."""
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


@contextlib.contextmanager
def database(options: Any, folder: Path) -> Iterator[str]:
    """The URL of the storage to load."""
    if options.url:
        yield options.url
    elif options.storage == "sqlite":
        yield f"sqlite:///{folder / 'load.db'}"
    else:
        sys.path.insert(0, str(ROOT / "tests"))
        from postgres import Postgres  # noqa: PLC0415

        with Postgres() as server:
            yield server.fresh_url()


def main() -> None:
    """Search, count and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    arguments.add_argument("--url", help="of a storage that holds no study named load")
    arguments.add_argument("--workers", type=int, default=32)
    arguments.add_argument("--trials", type=int, default=2_000)
    arguments.add_argument("--check", action="store_true", help="compare with one worker")
    options = arguments.parse_args()
    if options.quick:
        options.workers, options.trials, options.check = 3, 24, True
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = study_file(folder, options.trials, options.quick)
        with database(options, folder) as url:
            print_header(
                f"{options.workers} workers on {shown(url).partition(':')[0]}, a task that scores in "
                "microseconds. Number to score: a trial from its creation to its evaluation (claim, lineage, "
                "22 parameters, description), copies left out; score to value: outcome and state"
            )
            before = os.times()
            study, failed = search(config, url, options.workers, folder)
            after = os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])  # of children that have ended
            report_exact(study, config, failed, options.workers)
            if counted(study):
                report_speed(study, folder, after.elapsed - before.elapsed, cpu)
            if options.check:
                both = (study, alone(config, folder))
                many, one = ({slot_of(t): (t.params, t.value) for t in counted(each)} for each in both)
                console.print(
                    f"genomes and fitness are those of one worker: {'yes' if many == one else 'NO'}"
                )


if __name__ == "__main__":
    main()
