"""What a trial's calls cost a worker, and how long each holds the database.

    python -m analysis.benchmarks.calls [--quick] [--trials 400] [--output calls.json]

One worker asks for trials, reports and tells, on SQLite, on PostgreSQL (a server made for the occasion), and
through Optuna's gRPC proxy before SQLite. SQLite is held from the first writing statement of a transaction to
the end of its commit; PostgreSQL for as long as it takes to answer; a proxy for as much of a core as its
process used. Asking looks at the trials that others have in hand: so all is taken twice more, with 31 trials
of others and with none. `analysis/cluster_simulation.py` makes many workers of it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil

from analysis.benchmarks import load
from analysis.benchmarks.common import console, cores, parser, print_header, table
from optevo import keys
from optevo.optuna_private import database_of, written_together
from optevo.samplers import sampler_of
from optevo.storage.opening import count_states, open_storage
from optevo.study.config import StudyConfig
from optevo.study.studies import create_or_resume
from optevo.training.run import Run

OTHERS = 31
KINDS = ("ask", "report", "tell", "poll")
_WRITES = ("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE")
Place = tuple[str, psutil.Process | None]  # a URL, and a proxy's process
_RUN = Run("stub", 0, 0.5, 0.5, 0.1, (0.1,) * 10, 300, 1.0, None)


class Held:
    """Seconds for which a relational database is held, or answers."""

    def __init__(self, engine: Any) -> None:
        self.seconds, self._since = 0.0, None
        self._locks = engine.name == "sqlite"
        dialect = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params", "do_commit", "do_rollback"):
            setattr(
                dialect, name, self._timed(getattr(dialect, name), ends=name in ("do_commit", "do_rollback"))
            )

    def _timed(self, inner: Callable[..., Any], *, ends: bool) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            now = time.perf_counter()
            writes = not ends and str(args[1]).lstrip().upper().startswith(_WRITES)
            if self._since is None and (writes or not self._locks):
                self._since = now
            try:
                return inner(*args, **options)
            finally:
                if self._since is not None and (ends or not self._locks):
                    self.seconds += time.perf_counter() - self._since
                    self._since = None

        return call


def used(process: psutil.Process) -> float:
    """Seconds of a core that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def measure(
    config: StudyConfig, url: str, trials: int, server: psutil.Process | None, others: int = 0
) -> dict[str, list[float]]:
    """The mean cost of each kind of call: [own, held] in seconds.

    Args:
        config: The study.
        url: Of a storage without it.
        trials: So many are asked for.
        server: The proxy's process; None for a database.
        others: Trials that are running all the while. Default: 0.
    """
    study, space = create_or_resume(config, open_storage(url, create=True), "cpu", {}), config.make_space()
    held = None if server else Held(database_of(study).engine)  # type: ignore[attr-defined]
    spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}

    @contextlib.contextmanager
    def taken(kind: str) -> Iterator[None]:
        busy = (lambda: used(server)) if server else (lambda: held.seconds)  # type: ignore[union-attr]
        before, since = busy(), time.perf_counter()
        yield
        spent[kind].append((time.perf_counter() - since, busy() - before))

    for _ in range(others):
        study.ask()
    for _ in range(trials):
        with taken("poll"):
            count_states(study)  # which has changed, so that slots are looked at
            sampler_of(study).slot_table(study).claimable()
        with taken("ask"):
            trial = study.ask()
            with written_together(study):
                candidate = space.candidate(space.suggest(trial))
                for key, value in (
                    (keys.FORMULA, candidate.formula()),
                    (keys.HYPERPARAMETERS, candidate.describe()),
                    (keys.CANONICAL, candidate.canonical()),
                ):
                    trial.set_user_attr(key, value)
        with taken("report"):
            trial.report(0.5, step=1)
            trial.should_prune()
        with taken("tell"):
            with written_together(study, with_state=True):
                trial.set_user_attr(keys.RUNS, [dataclasses.asdict(_RUN)] * 3)
                for key, value in ((keys.TRAINED_STEPS, 900), (keys.SECONDS, 3.0)):
                    trial.set_user_attr(key, value)
                trial.set_user_attr(f"{keys.FITNESS_PREFIX}stub", 0.5)
                trial.report(0.5, step=2)
            study.tell(trial, candidate.lr)
    return {
        kind: [
            max(0.0, statistics.mean(wall for wall, _ in both) - statistics.mean(busy for _, busy in both)),
            statistics.mean(busy for _, busy in both),
        ]
        for kind, both in spent.items()
    }


@contextlib.contextmanager
def proxy(url: str) -> Iterator[tuple[str, psutil.Process]]:
    """The URL of a proxy before a database, and its process."""
    open_storage(url, create=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "optevo", "storage", "serve", "--storage", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield f"grpc://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _costs(config: StudyConfig, trials: int, place: Callable[[], Place], servers: int) -> dict[str, Any]:
    """What the file has of a storage: [own, held] in a search, and what another worker adds."""
    size = {"population_size": trials + OTHERS + 4, "n_generations": 1}
    wide = config.model_copy(update={"sampler": config.sampler.model_copy(update=size)})
    calls = measure(config, *_split(place(), trials))
    alone = measure(wide, *_split(place(), trials))
    crowd = measure(wide, *_split(place(), trials), others=OTHERS)
    grows = {
        kind: [max(0.0, many - one) / OTHERS for many, one in zip(crowd[kind], alone[kind], strict=True)]
        for kind in KINDS
    }
    return {"servers": servers, "calls": calls, "grows": grows}


def _split(place: Place, trials: int) -> tuple[str, int, psutil.Process | None]:
    return place[0], trials, place[1]


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=400)
    arguments.add_argument("--output", type=Path, help="a JSON file, for the simulation")
    options = arguments.parse_args()
    trials = 12 if options.quick else options.trials
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print_header(f"one worker, {trials} trials, means")
    found: dict[str, Any] = {}
    number = itertools.count()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = load.study_file(folder, trials, options.quick)
        config = config.model_copy(update={"seed": 1})
        found["SQLite"] = _costs(config, trials, lambda: (f"sqlite:///{folder}/{next(number)}.db", None), 1)
        postgresql = argparse.Namespace(url=None, storage="postgresql")
        with contextlib.ExitStack() as stack, contextlib.suppress(ImportError, OSError):
            found["PostgreSQL"] = _costs(
                config,
                trials,
                lambda: (stack.enter_context(load.database(postgresql, folder)), None),
                cores(),
            )
        with contextlib.ExitStack() as stack:
            found["gRPC proxy"] = _costs(
                config, trials, lambda: stack.enter_context(proxy(f"sqlite:///{folder}/{next(number)}.db")), 1
            )
    rows = table("ms a call: own + held", "storage", *KINDS)
    for name, one in found.items():
        rows.add_row(name, *(f"{1e3 * own:.1f} + {1e3 * held:.1f}" for own, held in one["calls"].values()))
        more = (f"{1e3 * own:.2f} + {1e3 * held:.2f}" for own, held in one["grows"].values())
        rows.add_row("each other worker adds", *more)
    console.print(rows)
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
