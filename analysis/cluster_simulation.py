"""How much of a cluster's time waits? A simulation of many workers, out of the measured cost of each call.

    python -m analysis.benchmarks.calls --output calls.json
    python -m analysis.cluster_simulation calls.json [--check] [--quick]

A worker asks for a slot, trains its runs, reports ten points, and tells the outcome. Each call has a part of
its own, which takes a core of the worker's machine, and a part in which it holds the database: SQLite and a
proxy serve one at a time, PostgreSQL as many as its machine has cores. Synchronous, a worker without a slot
polls until the generation has ended; asynchronous, it takes one of the next.

How many runs a trial trains is drawn from a stored search with gate and racing, where two trials in three end
after the first of three; a run takes its seconds ± 10 %. With --check, searches by 2, 8 and 32 workers on
this machine, which do nothing but ask and tell, are set beside the simulation of the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simpy

from analysis.benchmarks import load
from analysis.benchmarks.common import console, print_header, table
from optevo import keys
from optevo.storage.study_file import read_study

ROOT = Path(__file__).parents[1]
SEARCH = ROOT / "studies/results/own_search/own_search.json"
ELITES = 3
REPORTS = 10
POLL_FIRST, POLL_GROWTH, POLL_LAST = 0.1, 1.5, 1.0  # as `optevo.workers.worker`
WORKERS, RUNS = (32, 256, 1024), (1.0, 30.0, 600.0)


class Call(NamedTuple):
    """What one call costs, in seconds.

    Attributes:
        own: On the worker's own core.
        held: In the database.
    """

    own: float
    held: float


@dataclass(frozen=True)
class Storage:
    """A storage's calls.

    Attributes:
        name: Which.
        calls: By "ask", "report", "tell" and "poll".
        grows: By how much each costs more for every other worker.
        servers: How many calls it serves at a time.
    """

    name: str
    calls: Mapping[str, Call]
    servers: int
    grows: Mapping[str, Call] = field(default_factory=dict)

    def cost(self, kind: str, workers: int) -> Call:
        """Of a call among so many workers."""
        one, more = self.calls[kind], self.grows.get(kind, Call(0.0, 0.0))
        return Call(one.own + (workers - 1) * more.own, one.held + (workers - 1) * more.held)


@dataclass
class Generations:
    """The slots of a search without an end: who may begin, and when."""

    population: int
    asynchronous: bool
    generation: int = 0
    taken: int = 0
    decided: int = 0

    def take(self) -> bool:
        """Take a slot, where one is open."""
        if self.asynchronous:
            return True
        open_now = self.taken < self.size
        self.taken += open_now
        return open_now

    def decide(self) -> None:
        """A trial has ended."""
        self.decided += 1
        if not self.asynchronous and self.decided == self.size:
            self.generation, self.taken, self.decided = self.generation + 1, 0, 0

    @property
    def size(self) -> int:
        """Slots of the present generation."""
        return self.population - (ELITES if self.generation else 0)


@dataclass
class Tally:
    """What the workers' seconds went into."""

    training: float = 0.0
    database: float = 0.0
    generation: float = 0.0
    trials: int = 0
    begun: float = 0.0
    seconds: float = 0.0


def simulate(
    storage: Storage,
    *,
    workers: int,
    run: float,
    runs_of_trials: Sequence[int],
    population: int,
    asynchronous: bool,
    trials: int,
    cores: int | None = None,
    seed: int = 0,
) -> Tally:
    """Let workers search until so many trials have ended.

    Args:
        storage: What they share.
        workers: How many.
        run: Seconds of a run.
        runs_of_trials: Runs that a trial trains, one of which is drawn for each.
        population: Members of a generation.
        asynchronous: Whether generations wait.
        trials: After so many it ends; the first fifth is not counted, since all begin at once.
        cores: Of one machine that all workers share. Default: a core for each.
        seed: Of all that is drawn.
    """
    world, rng = simpy.Environment(), np.random.default_rng([seed, workers, population])
    database = simpy.Resource(world, storage.servers)
    machine = simpy.Resource(world, cores) if cores else None
    slots, tally, finished = Generations(population, asynchronous), Tally(), world.event()

    def compute(seconds: float) -> Iterator[simpy.Event]:
        if machine is None:
            yield world.timeout(seconds)
            return
        with machine.request() as turn:
            yield turn
            yield world.timeout(seconds)

    def call(kind: str) -> Iterator[simpy.Event]:
        cost = storage.cost(kind, workers)
        yield from compute(cost.own)
        with database.request() as turn:
            yield turn
            # On one machine the database's work takes a core of it, too.
            yield from compute(cost.held)

    def worker() -> Iterator[simpy.Event]:
        while True:
            since, pause = world.now, POLL_FIRST
            while not slots.take():
                yield world.timeout(pause)
                yield from call("poll")
                pause = min(POLL_GROWTH * pause, POLL_LAST)
            tally.generation += world.now - since
            since = world.now
            yield from call("ask")
            tally.database += world.now - since
            n_runs = int(rng.choice(runs_of_trials))
            for _ in range(REPORTS):
                since, took = world.now, n_runs * run * rng.normal(1, 0.1 / max(n_runs, 1) ** 0.5) / REPORTS
                yield world.timeout(max(took, 0.0))
                tally.training += world.now - since
                if n_runs:
                    since = world.now
                    yield from call("report")
                    tally.database += world.now - since
            since = world.now
            yield from call("tell")
            tally.database += world.now - since
            slots.decide()
            tally.trials += 1
            if tally.trials == trials // 5:
                tally.training = tally.database = tally.generation = 0.0
                tally.begun = world.now
            if tally.trials == trials:
                finished.succeed()

    for _ in range(workers):
        world.process(worker())
    world.run(finished)
    tally.seconds, tally.trials = world.now - tally.begun, trials - trials // 5
    return tally


def runs_of_trials(path: Path = SEARCH) -> list[int]:
    """How many runs each bred trial of a saved search trained itself."""
    storage = read_study(path)
    (study,) = storage.get_all_studies()
    trials = map(keys.ours, storage.get_all_trials(study._study_id, deepcopy=False))
    bred = [found for found in trials if found.get(keys.GENERATION) and keys.RUNS in found]
    return [len(found[keys.RUNS]) - found.get(keys.COPIED_RUNS, 0) for found in bred]


def read_calls(path: Path) -> list[Storage]:
    """The storages of a file of `analysis.benchmarks.calls`."""
    made = []
    for name, one in json.loads(path.read_text("utf-8")).items():
        calls, grows = ({kind: Call(*c) for kind, c in one[key].items()} for key in ("calls", "grows"))
        made.append(Storage(name, calls, one["servers"], grows))
    return made


def print_waits(storages: Sequence[Storage], trials_each: int, drawn: Sequence[int]) -> None:
    """The shares of time that wait, by storage, workers and seconds a run; populations of 4 a worker."""
    for storage in storages:
        columns = (
            "database, sync.",
            "generation, sync.",
            "database, async.",
            "trials an hour, sync.",
            "async.",
        )
        title = f"{storage.name}: share of the workers' time that waits, population 4 × workers"
        rows = table(title, "workers, a run", *columns)
        for workers in WORKERS:
            for run in RUNS:
                made = [
                    simulate(
                        storage,
                        workers=workers,
                        run=run,
                        runs_of_trials=drawn,
                        population=4 * workers,
                        asynchronous=asynchronous,
                        trials=trials_each * workers,
                    )
                    for asynchronous in (False, True)
                ]
                total = [workers * one.seconds for one in made]
                hourly = [f"{3600 * one.trials / one.seconds:,.0f}" for one in made]
                rows.add_row(
                    f"{workers:,}, {run:g} s",
                    *(f"{made[0].database / total[0]:.1%}", f"{made[0].generation / total[0]:.1%}"),
                    *(f"{made[1].database / total[1]:.1%}", *hourly),
                )
        console.print(rows)


def print_populations(storage: Storage, trials_each: int, drawn: Sequence[int]) -> None:
    """What a synchronous search waits for its generations, by members a worker."""
    ratios = (1, 2, 4, 8)
    rows = table(
        f"{storage.name}: share that waits for generations, runs of 30 s",
        "workers",
        *(f"{ratio} × workers" for ratio in ratios),
    )
    for workers in WORKERS[:2]:
        shares = []
        for ratio in ratios:
            made = simulate(
                storage,
                workers=workers,
                run=30.0,
                runs_of_trials=drawn,
                population=ratio * workers,
                asynchronous=False,
                trials=2 * trials_each * workers,
            )
            shares.append(f"{made.generation / (workers * made.seconds):.1%}")
        rows.add_row(f"{workers:,}", *shares)
    console.print(rows)


def print_check(storages: Sequence[Storage], trials: int, cores: int, counts: Sequence[int]) -> None:
    """Trials a second of real searches on this machine, whose trials train nothing, and simulated."""
    rows = table(
        f"{cores} cores, {trials} trials that train nothing", "storage, workers", "measured", "simulated"
    )
    for storage in storages:
        if storage.name not in ("SQLite", "PostgreSQL"):
            continue
        for workers in counts:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                options = argparse.Namespace(url=None, storage=storage.name.lower())
                config = load.study_file(folder, trials, quick=False)
                with load.database(options, folder) as url:
                    study, _ = load.search(config, url, workers, folder)
                    done = sorted(load.completed(trial) for trial in load.counted(study))
            late = done[len(done) // 5 :]  # as the simulation counts
            measured = (len(late) - 1) / (late[-1] - late[0])
            made = simulate(
                storage,
                workers=workers,
                run=0.0,
                runs_of_trials=[0],
                population=50,
                asynchronous=False,
                trials=trials,
                cores=cores,
            )
            rows.add_row(
                f"{storage.name}, {workers}", f"{measured:.1f} a second", f"{made.trials / made.seconds:.1f}"
            )
    console.print(rows)


def main() -> None:
    """Simulate and print."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("calls", type=Path, help="of python -m analysis.benchmarks.calls")
    arguments.add_argument("--check", action="store_true", help="beside searches on this machine")
    arguments.add_argument("--quick", action="store_true", help="does it run")
    options = arguments.parse_args()
    print_header(f"a simulation out of {options.calls}")
    storages, drawn = read_calls(options.calls), runs_of_trials()
    if options.check:
        print_check(storages, 60 if options.quick else 400, 2, (2,) if options.quick else (2, 8, 32))
        return
    trials_each = 3 if options.quick else 8
    print_waits(storages[:1] if options.quick else storages, trials_each, drawn)
    print_populations(storages[0], trials_each, drawn)


if __name__ == "__main__":
    main()
