"""Signals at random moments, and a task that forks and exits: what the search comes to must not depend on it.

    python -m tests.chaos.chaos --runs 10
    python -m tests.chaos.chaos --runs 3 --storage postgresql --group 4

Each run is `optevo run` with 4 workers on a digits study of 10 generations × 20. Sixty times, spread over the
search, a random worker gets SIGKILL, SIGTERM or SIGSTOP (half of the stopped ones are woken up again, before
or after they were taken for dead). After every twelfth, the whole process group gets SIGTERM, as from Slurm,
half the time twice; after every twenty-fifth, the command itself is killed. It is typed again then. One more
SIGTERM to the group comes while the best are measured on fresh seeds. Meanwhile the task itself forks, with
children that leave it in every way, and calls `os._exit` with statuses that mean something to a pool
(`tests/chaos/troubled.py`). In the end, genomes, fitness, winner and its fresh seeds are compared with those
of one worker that nothing disturbed, and the trials are counted. Exit status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.storage.opening import open_storage
from optevo.study.studies import best_trials, load_study

STUDY = """
name = "chaos"
seed = 11
[sampler]
kind = "genetic"
population_size = {population}
n_generations = {generations}
[evaluation]
tasks = ["tests.chaos.troubled:Troubled"]
steps = {steps}
seeds = [0]
batch_candidates = {group}
[rerun]
candidates = 1
seeds = 2
"""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
STOPPED = 130  # the exit status of a command that was asked to stop
WINNER = "of study 'chaos': COMPLETE"  # of the last lines that the command prints
Outcome = dict[tuple[int, int], Any]


class Search:
    """`optevo run` in a process of its own, typed again when it is gone.

    Args:
        folder: Where its files lie.
        url: Of the storage.
        text: The study file's.
        workers: How many.
        trouble: A file in which the task notes the trouble that it makes. Default: None, it makes none.
    """

    def __init__(self, folder: Path, url: str, text: str, workers: int, trouble: Path | None = None) -> None:
        self.trouble = trouble
        self.file, self.url, self.workers = folder / "chaos.toml", url, workers
        self.file.write_text(text)
        self.log = folder / "log.txt"
        self.log.write_text("")
        self._known: optuna.Study | None = None
        self._groups: list[int] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "optevo", "run", str(self.file), "--workers", str(self.workers)]
        env = {**os.environ, "OPTEVO_STORAGE": self.url, "CHAOS_TROUBLE": str(self.trouble or "")}
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        self._groups.append(process.pid)
        return process

    def study(self) -> optuna.Study:
        return load_study(open_storage(self.url), "chaos")[0]

    def counted(self) -> int:
        if self._known is None:
            try:
                self._known = self.study()
            except UserError:  # it is only just being created
                return 0
        return len(self._known.get_trials(deepcopy=False, states=COUNTED))

    def goes_on(self) -> bool:
        """Whether the command still runs; it is typed again where it was killed."""
        status = self.process.poll()
        if status is None:
            return True
        if status in (-signal.SIGKILL, STOPPED):
            self.process = self._start()
            return True
        # One that has printed its winner is done: a SIGTERM that comes then ends what is left of it.
        if status and not (status == -signal.SIGTERM and WINNER in self.log.read_text()):
            raise RuntimeError(f"optevo run ended with status {status}:\n{self.log.read_text()[-5000:]}")
        return False

    def living(self) -> list[psutil.Process]:
        """The worker processes, those that stand still left out."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "worker" in child.cmdline() and child.status() != psutil.STATUS_STOPPED:
                        found.append(child)
        return found

    def terminate(self, rng: random.Random) -> None:
        """SIGTERM to the command and all its processes, half the time once more at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            if rng.random() < 0.5:
                time.sleep(rng.choice([0.001, 0.1, 1.0]))
                os.killpg(self.process.pid, signal.SIGTERM)

    def measures(self) -> bool:
        """Whether the search is over and the command measures its best."""
        return "measuring its best" in self.log.read_text()

    def end(self) -> None:
        for process in psutil.process_iter():  # a stopped worker outlives even its command
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    os.getpgid(process.pid) in self._groups
                    and process.environ()["OPTEVO_STORAGE"] == self.url
                ):
                    process.kill()
        self.process.wait()


def disturb(search: Search, total: int, signals: int, rng: random.Random) -> Counter[str]:
    """Send the signals, each once the search has come so far; returns how many of each kind were sent."""
    sent: Counter[str] = Counter()
    moments = sorted(rng.randrange(0, max(1, total - 4)) for _ in range(signals))
    wakings: list[tuple[float, psutil.Process]] = []
    measuring = None
    while search.goes_on():
        time.sleep(rng.uniform(0.05, 0.6))
        for due, process in [w for w in wakings if w[0] < time.monotonic()]:
            wakings.remove((due, process))
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        if measuring is None and search.measures():
            measuring = time.monotonic() + rng.uniform(0, 8)
        if measuring is not None and not sent["group while measuring"] and time.monotonic() > measuring:
            search.terminate(rng)
            sent["group while measuring"] += 1
        if moments and search.counted() >= moments[0] and (alive := search.living()):
            victim, kind = rng.choice(alive), rng.choice(KINDS)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(kind)
                sent[kind.name] += 1
                del moments[0]
                if kind == signal.SIGSTOP and rng.random() < 0.5:
                    wakings.append((time.monotonic() + rng.uniform(0.5, 40), victim))
                number = sum(sent[kind.name] for kind in KINDS)
                if number % 12 == 0:
                    search.terminate(rng)
                    sent["group"] += 1
                elif number % 25 == 0:
                    search.process.kill()
                    sent["command killed"] += 1
    return sent


def outcome(study: optuna.Study) -> tuple[Outcome, list[str]]:
    """What each slot came to, and what is wrong with the study's books."""
    slots: Outcome = {}
    faults = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in COUNTED:
            slot = (keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT])
            if slot in slots:
                faults.append(f"slot {slot} counts twice")
            runs = [{k: v for k, v in run.items() if k != "seconds"} for run in keys.ours(trial)[keys.RUNS]]
            slots[slot] = (trial.params, trial.value, runs, trial.state.name)
        elif trial.state != TrialState.FAIL:
            faults.append(f"trial {trial.number} was left {trial.state.name}")
    best = best_trials(study, 1)[0]
    slots[-1, -1] = (keys.ours(best)[keys.GENERATION], keys.ours(best)[keys.SLOT])
    measured = study.user_attrs[keys.RERUN]["rows"]
    slots[-2, -2] = [[run["fitness"] for run in row["runs"]] for row in measured]
    return slots, faults


def untroubled(text: str, folder: Path) -> Outcome:
    """The same search by one worker that nothing disturbs."""
    search = Search(folder, f"sqlite:///{folder / 'untroubled.db'}", text, workers=1)
    try:
        while search.goes_on():
            time.sleep(0.2)
        slots, faults = outcome(search.study())
    finally:
        search.end()
    assert not faults, faults
    return slots


def chaos(
    url: str, folder: Path, text: str, expected: Outcome, *, workers: int, signals: int, seed: int
) -> list[str]:
    """One disturbed run; prints a line, and returns what is wrong."""
    begun, total = time.monotonic(), len(expected) - 2
    trouble = folder / f"trouble-{seed}-{time.monotonic_ns()}.txt"
    trouble.touch()
    search = Search(folder, url, text, workers, trouble)
    try:
        sent = disturb(search, total, signals, random.Random(seed))
        study = search.study()
        slots, faults = outcome(study)
    finally:
        search.end()
    lost_slots = len(expected.keys() - slots.keys())
    different = sum(slots.get(slot) != value for slot, value in expected.items())
    if lost_slots or different:
        faults.append(f"{lost_slots} slots lost, {different} different")
    if (number := sum(sent[kind.name] for kind in KINDS)) < signals:
        faults.append(f"only {number} of {signals} signals were sent")
    why = Counter(map(_reason, study.get_trials(deepcopy=False, states=(TrialState.FAIL,))))
    if why[keys.ERROR] or why["unknown"]:
        faults.append("trials failed by themselves")
    print(
        f"seed {seed}: {dict(sent)}; by the task {dict(Counter(trouble.read_text().split()))}; "
        f"{len(study.trials)} trials for {total} slots, failed ones {dict(why)}; "
        f"{time.monotonic() - begun:.0f} s; {'; '.join(faults) or 'identical'}",
        flush=True,
    )
    return faults


def _reason(failed: FrozenTrial) -> str:
    if keys.LOST in failed.system_attrs:
        return "taken for dead"
    known = (keys.SURPLUS, keys.INTERRUPTED, keys.ERROR)
    return next((key for key in known if key in keys.ours(failed)), "unknown")


@contextlib.contextmanager
def storages(kind: str, folder: Path) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a new database each time."""
    if kind == "sqlite":
        numbers = iter(range(10**6))
        yield lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"
        return
    from tests.postgres import Postgres  # noqa: PLC0415

    with Postgres() as server:
        yield server.fresh_url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--signals", type=int, default=60)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--group", type=int, default=1, help="batch_candidates")
    parser.add_argument("--seed", type=int, default=0, help="of the first run's signals")
    args = parser.parse_args()
    text = STUDY.format(**vars(args))
    wrong = 0
    with tempfile.TemporaryDirectory() as name, storages(args.storage, Path(name)) as fresh:
        expected = untroubled(text, Path(name))
        print(f"{len(expected) - 2} slots by one worker, untroubled", flush=True)
        for seed in range(args.seed, args.seed + args.runs):
            faults = chaos(
                fresh(), Path(name), text, expected, workers=args.workers, signals=args.signals, seed=seed
            )
            wrong += bool(faults)
            if faults:
                print((Path(name) / "log.txt").read_text()[-3000:])
    print(f"{args.runs - wrong} of {args.runs} runs identical to the untroubled one, {args.storage}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
