"""A folder with a study, and `optevo run` and its workers as processes there, to be stopped and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optevo import keys
from optevo.storage.opening import open_storage
from optevo.study.config import load_config
from optevo.study.studies import create_or_resume, is_complete, load_study

FILE = """
name = "small"
seed = 3

[sampler]
kind = "genetic"
population_size = 6
n_generations = 3

[evaluation]
tasks = ["digits"]
steps = 30
seeds = [0]

[rerun]
candidates = 1
seeds = 2
"""
SECONDS = 60  # to wait for a process at most
Slots = dict[tuple[int, int], tuple[dict[str, Any], float | None, list[Any]]]


class StudyFolder:
    """A folder with the study file and its database."""

    def __init__(self, folder: Path, text: str = FILE) -> None:
        self.file, self.url = folder / "small.toml", f"sqlite:///{folder / 'a.db'}"
        self.file.write_text(text)
        self.log = folder / "log.txt"

    def run(self, *options: str) -> subprocess.Popen[bytes]:
        """`optevo run` in a session of its own, not waited for."""
        command = [sys.executable, "-m", "optevo", "run", str(self.file), "--storage", self.url, *options]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def worker(self) -> subprocess.Popen[bytes]:
        """One worker process, as `optevo run` starts them."""
        command = [sys.executable, "-m", "optevo", "worker", "small", "--device", "cpu"]
        command += ["--parent", str(os.getpid())]
        env = {**os.environ, "OPTEVO_STORAGE": self.url, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def create(self) -> None:
        create_or_resume(load_config(self.file), open_storage(self.url, create=True), "cpu")

    def work(self) -> None:
        """Work on the study in this process until it is complete."""
        from optevo.workers.worker import work  # noqa: PLC0415

        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        verbosity = optuna.logging.get_verbosity()
        try:
            work(self.url, "small", device="cpu", data_root=Path(), parent=os.getppid())
        finally:
            optuna.logging.set_verbosity(verbosity)
            for number, handler in before.items():
                signal.signal(number, handler)

    def study(self) -> optuna.Study:
        return load_study(open_storage(self.url), "small")[0]

    def in_state(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return self.study().get_trials(states=states)

    def wait_for(self, counted: int, process: subprocess.Popen[bytes]) -> None:
        """Until so many trials have finished and another one is running."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and process.poll() is None:
            states = self._states()
            if states.get("RUNNING") and states.get("COMPLETE", 0) + states.get("PRUNED", 0) >= counted:
                return
            time.sleep(0.02)
        pytest.fail(f"{counted} trials were never counted: {self.log.read_text()}")

    def _states(self) -> dict[str, int]:
        """How many trials are in each state; a look that costs next to nothing."""
        path = Path(self.url.removeprefix("sqlite:///"))
        if not path.exists():
            return {}
        try:
            with closing(sqlite3.connect(path)) as connection:
                return dict(connection.execute("SELECT state, COUNT(*) FROM trials GROUP BY state"))
        except sqlite3.OperationalError:  # the tables are only just being made
            return {}

    def slots(self) -> Slots:
        """What each slot came to; `seconds` is the one thing that may differ."""
        slots: Slots = {}
        for trial in self.in_state(TrialState.COMPLETE, TrialState.PRUNED):
            key = keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]
            assert key not in slots, f"slot {key} counts twice"
            runs = [{k: v for k, v in run.items() if k != "seconds"} for run in keys.ours(trial)[keys.RUNS]]
            slots[key] = (trial.params, trial.value, runs)
        return slots

    def check_complete(self, expected: Slots) -> None:
        assert is_complete(self.study())
        assert self.in_state(TrialState.RUNNING, TrialState.WAITING) == []
        assert self.slots() == expected


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens, nothing of the process's session outlives the block."""
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(SECONDS)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Slots:
    """The search by one worker that nothing disturbs."""
    folder = StudyFolder(tmp_path_factory.mktemp("unbroken"))
    folder.create()
    folder.work()
    slots = folder.slots()
    assert set(slots) == {(0, i) for i in range(6)} | {(g, i) for g in (1, 2) for i in range(3)}
    return slots
