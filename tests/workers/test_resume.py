"""One worker or two, killed or not: the same genomes and, on a CPU, the same fitness to the last bit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from optevo.storage.opening import open_storage
from optevo.study.config import load_config
from optevo.study.studies import create_or_resume, is_complete, load_study

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")

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
PATIENCE = 60
Slots = dict[tuple[int, int], tuple[dict[str, Any], float | None, list[Any]]]


class Place:
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
        until = time.monotonic() + PATIENCE
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
            key = trial.user_attrs["generation"], trial.user_attrs["slot"]
            assert key not in slots, f"slot {key} counts twice"
            runs = [{k: v for k, v in run.items() if k != "seconds"} for run in trial.user_attrs["runs"]]
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
    process.wait(PATIENCE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Slots:
    """The search by one worker that nothing disturbs."""
    place = Place(tmp_path_factory.mktemp("unbroken"))
    place.create()
    place.work()
    slots = place.slots()
    assert set(slots) == {(0, i) for i in range(6)} | {(g, i) for g in (1, 2) for i in range(3)}
    return slots


@pytest.mark.slow
def test_the_same_search_twice_is_the_same(unbroken: Slots, place: Place):
    place.create()
    place.work()
    place.check_complete(unbroken)


@pytest.mark.slow
def test_two_workers_find_what_one_finds(unbroken: Slots, place: Place):
    place.create()
    for worker in [place.worker(), place.worker()]:
        assert worker.wait(PATIENCE) == 0, place.log.read_text()
    place.check_complete(unbroken)
    assert len({t.user_attrs["worker"]["pid"] for t in place.study().trials}) == 2


def test_a_search_killed_twice_ends_as_the_unbroken_one(unbroken: Slots, place: Place):
    with ending(place.run("--workers", "1")) as process:
        place.wait_for(2, process)
    with ending(place.worker()) as process:
        place.wait_for(7, process)
    place.work()
    place.check_complete(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM"),
        pytest.param(signal.SIGINT, False, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, id="SIGTERM to all", marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    unbroken: Slots, place: Place, number: signal.Signals, to_group: bool
):
    with ending(place.run("--workers", "1")) as process:
        place.wait_for(1, process)
        (os.killpg if to_group else os.kill)(process.pid, number)
        assert process.wait(PATIENCE) == 130, place.log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no worker is left
    assert "Traceback" not in place.log.read_text()
    assert "the same command goes on" in place.log.read_text()
    assert place.in_state(TrialState.RUNNING) == []
    recorded = place.slots()
    assert recorded
    assert all(unbroken[slot] == found for slot, found in recorded.items())
    place.work()
    place.check_complete(unbroken)


@pytest.mark.slow
def test_a_signal_while_the_workers_start_stops_cleanly(place: Place):
    with ending(place.run("--workers", "1")) as process:
        _wait(lambda: _children(process), process)
        time.sleep(0.5)  # the worker is importing
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130, place.log.read_text()
    assert "Traceback" not in place.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds",
    [pytest.param(0.3, id="starting"), pytest.param(8.0, id="at work", marks=pytest.mark.slow)],
)
def test_no_worker_outlives_a_killed_run(place: Place, seconds: float):
    place.file.write_text(FILE.replace("steps = 30", "steps = 20_000"))
    with ending(place.run("--workers", "1")) as process:
        found: list[psutil.Process] = []
        _wait(lambda: found.extend(_children(process)) or found, process)
        (worker,) = found
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        _, alive = psutil.wait_procs([worker], timeout=15)
        assert alive == []


@pytest.mark.slow
@pytest.mark.skipif(not psutil.LINUX, reason="only Linux ends a process that stands still with its parent")
def test_not_even_a_worker_that_stands_still_outlives_a_killed_run(place: Place):
    # It may hold the database's lock, and nobody would be left to end it.
    with ending(place.run("--workers", "1")) as process:
        place.wait_for(1, process)
        (worker,) = _children(process)
        worker.suspend()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        assert psutil.wait_procs([worker], timeout=15)[1] == []


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has just ended
            if "worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def _wait(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_signal_in_the_measuring_phase_leaves_no_process_and_the_same_command_goes_on(
    place: Place, number: signal.Signals
):
    # Two hundred runs of a second or so: whoever waits for all of them is found out.
    place.file.write_text(FILE.replace("seeds = 2", "seeds = 40").replace("steps = 30", "steps = 1_000"))
    place.create()
    place.work()
    with ending(place.run("--workers", "1")) as process:
        _wait(lambda: "measuring" in place.log.read_text(), process)
        time.sleep(8)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.kill(process.pid, number)
        process.wait(20)
        assert process.returncode == (-number if number == signal.SIGKILL else 130)
        assert psutil.wait_procs(children, timeout=10)[1] == []
    assert "Traceback" not in place.log.read_text()


@pytest.mark.slow
def test_two_commands_on_one_file_share_the_work(unbroken: Slots, place: Place):
    with ending(place.run("--workers", "1")) as one, ending(place.run("--workers", "1")) as two:
        assert one.wait(3 * PATIENCE) == 0, place.log.read_text()
        assert two.wait(3 * PATIENCE) == 0, place.log.read_text()
    place.check_complete(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_search_killed_every_few_seconds_ends_as_the_unbroken_one(
    unbroken: Slots, place: Place, workers: str
):
    for seconds in (3, 4, 5, 5.5, 6, 6.5, 7, 8):
        with ending(place.run("--workers", workers)):
            time.sleep(seconds)
    with ending(place.run("--workers", workers)) as process:
        assert process.wait(6 * PATIENCE) == 0, place.log.read_text()
    place.check_complete(unbroken)
