"""Real signals to `optevo run` and all its processes at once, as Slurm, systemd and `timeout` send them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from small_studies import wait_for
from study_folders import SECONDS, StudyFolder, ending

from optevo import keys

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")

FILE = """
name = "small"
seed = 3
[sampler]
kind = "random"
n_trials = 10
[space]
presets = []
[evaluation]
tasks = ["slow:Slow"]
gate = false
"""
TASK = """
import time
from pathlib import Path
from optevo.tasks import ScoredTask

class Slow(ScoredTask):
    name = "slow"

    def score(self, candidate, seed, steps):
        Path("scoring").touch()
        until = time.monotonic() + {seconds}
        while time.monotonic() < until:
            time.sleep(0.1)
        return 0.5
"""
EXITING = """
import os
from optevo.tasks import ScoredTask

class Slow(ScoredTask):
    name = "slow"

    def score(self, candidate, seed, steps):
        print("about to leave", flush=True)
        os._exit({status})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.chdir(tmp_path)
    return StudyFolder(tmp_path, FILE)


def begin(folder: StudyFolder, task: str) -> None:
    (folder.file.parent / "slow.py").write_text(task)


@pytest.mark.parametrize(
    "again",
    [pytest.param(False, id="once", marks=pytest.mark.slow), pytest.param(True, id="until it ends")],
)
def test_sigterm_to_all_is_one_polite_stop(folder: StudyFolder, again: bool):
    begin(folder, TASK.format(seconds=1.0))
    with ending(folder.run("--workers", "1")) as process:
        wait_for(Path("scoring").exists)
        os.killpg(process.pid, signal.SIGTERM)
        while again and process.poll() is None:
            time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(SECONDS) == 130, folder.log.read_text()
    log = folder.log.read_text()
    assert "Traceback" not in log
    assert "ended with status" not in log
    (trial,) = folder.study().trials  # the first of its two scores is waited for, the second not begun
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs[keys.INTERRUPTED]
    assert keys.LOST not in trial.system_attrs


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_the_slot_is_free(folder: StudyFolder):
    begin(folder, TASK.format(seconds=10 * SECONDS))
    with ending(folder.run("--workers", "1")) as process:
        wait_for(Path("scoring").exists)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(SECONDS) == 130, folder.log.read_text()
    assert "Traceback" not in folder.log.read_text()
    (trial,) = folder.study().trials
    assert trial.state == TrialState.FAIL
    assert keys.LOST in trial.system_attrs


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 2, 70, 143])
def test_a_task_that_ends_its_process_ends_the_run_after_a_while_with_a_word(
    folder: StudyFolder, status: int
):
    begin(folder, EXITING.format(status=status))
    with ending(folder.run("--workers", "1")) as process:
        assert process.wait(3 * SECONDS) == 1
    log = folder.log.read_text()
    assert f"ended with status {status} before it was done; another takes its place" in log
    assert "about to leave" in log
    assert "is tried again, attempt 2: trial 0 lost its worker" in log
    assert "calls os._exit" in log.splitlines()[-1]
    assert "Traceback" not in log
