"""One worker or two, killed or not: the same genomes and, on a CPU, the same fitness to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState
from study_folders import FILE, SECONDS, Slots, StudyFolder, ending

from optevo import keys

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


def test_the_same_search_twice_is_the_same(unbroken: Slots, folder: StudyFolder):
    folder.create()
    folder.work()
    folder.check_complete(unbroken)


@pytest.mark.slow
def test_two_workers_find_what_one_finds(unbroken: Slots, folder: StudyFolder):
    folder.create()
    for worker in [folder.worker(), folder.worker()]:
        assert worker.wait(SECONDS) == 0, folder.log.read_text()
    folder.check_complete(unbroken)
    assert len({keys.ours(t)[keys.WORKER]["pid"] for t in folder.study().trials}) == 2


def test_a_search_killed_twice_ends_as_the_unbroken_one(unbroken: Slots, folder: StudyFolder):
    with ending(folder.run("--workers", "1")) as process:
        folder.wait_for(2, process)
    with ending(folder.worker()) as process:
        folder.wait_for(7, process)
    folder.work()
    folder.check_complete(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM"),
        pytest.param(signal.SIGINT, False, id="SIGINT"),
        pytest.param(signal.SIGTERM, True, id="SIGTERM to all"),
    ],
)
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    unbroken: Slots, folder: StudyFolder, number: signal.Signals, to_group: bool
):
    with ending(folder.run("--workers", "1")) as process:
        folder.wait_for(1, process)
        (os.killpg if to_group else os.kill)(process.pid, number)
        assert process.wait(SECONDS) == 130, folder.log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no worker is left
    assert "Traceback" not in folder.log.read_text()
    assert "the same command goes on" in folder.log.read_text()
    assert folder.in_state(TrialState.RUNNING) == []
    recorded = folder.slots()
    assert recorded
    assert all(unbroken[slot] == found for slot, found in recorded.items())
    folder.work()
    folder.check_complete(unbroken)


@pytest.mark.slow
def test_a_signal_while_the_workers_start_stops_cleanly(folder: StudyFolder):
    with ending(folder.run("--workers", "1")) as process:
        _wait(lambda: _children(process), process)
        time.sleep(0.5)  # the worker is importing
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(SECONDS) == 130, folder.log.read_text()
    assert "Traceback" not in folder.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [pytest.param(0.3, id="starting"), pytest.param(8.0, id="at work")])
def test_no_worker_outlives_a_killed_run(folder: StudyFolder, seconds: float):
    folder.file.write_text(FILE.replace("steps = 30", "steps = 20_000"))
    with ending(folder.run("--workers", "1")) as process:
        found: list[psutil.Process] = []
        _wait(lambda: found.extend(_children(process)) or found, process)
        (worker,) = found
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
        _, alive = psutil.wait_procs([worker], timeout=15)
        assert alive == []


@pytest.mark.slow
@pytest.mark.skipif(not psutil.LINUX, reason="only Linux ends a process that stands still with its parent")
def test_not_even_a_worker_that_stands_still_outlives_a_killed_run(folder: StudyFolder):
    # It may hold the database's lock, and nobody would be left to end it.
    with ending(folder.run("--workers", "1")) as process:
        folder.wait_for(1, process)
        (worker,) = _children(process)
        worker.suspend()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
        assert psutil.wait_procs([worker], timeout=15)[1] == []


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has just ended
            if "worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def _wait(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_signal_in_the_measuring_phase_leaves_no_process_and_the_same_command_goes_on(
    folder: StudyFolder, number: signal.Signals
):
    # Two hundred runs of a second or so: whoever waits for all of them is found out.
    folder.file.write_text(FILE.replace("seeds = 2", "seeds = 40").replace("steps = 30", "steps = 1_000"))
    folder.create()
    folder.work()
    with ending(folder.run("--workers", "1")) as process:
        _wait(lambda: "measuring" in folder.log.read_text(), process)
        time.sleep(8)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.kill(process.pid, number)
        process.wait(20)
        assert process.returncode == (-number if number == signal.SIGKILL else 130)
        assert psutil.wait_procs(children, timeout=10)[1] == []
    assert "Traceback" not in folder.log.read_text()


@pytest.mark.slow
def test_two_commands_on_one_file_share_the_work(unbroken: Slots, folder: StudyFolder):
    with ending(folder.run("--workers", "1")) as one, ending(folder.run("--workers", "1")) as two:
        assert one.wait(3 * SECONDS) == 0, folder.log.read_text()
        assert two.wait(3 * SECONDS) == 0, folder.log.read_text()
    folder.check_complete(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_search_killed_every_few_seconds_ends_as_the_unbroken_one(
    unbroken: Slots, folder: StudyFolder, workers: str
):
    for seconds in (3, 4, 5, 5.5, 6, 6.5, 7, 8):
        with ending(folder.run("--workers", workers)):
            time.sleep(seconds)
    with ending(folder.run("--workers", workers)) as process:
        assert process.wait(6 * SECONDS) == 0, folder.log.read_text()
    folder.check_complete(unbroken)
