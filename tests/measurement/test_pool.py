"""The pool of real processes that measures: it ends in order, whenever it ends, and without a word."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from small_studies import wait_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")

# The first process to start does all the work, before the others have read what they are to do.
STARTING = """
import os, sys, time
from pathlib import Path
if "--multiprocessing-fork" in sys.orig_argv:
    try:
        os.close(os.open("first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        Path(f"starting-{os.getpid()}").touch()
        time.sleep(float(os.environ["TEST_DELAY"]))
"""
# Without the usual guard: a process that ran it again would measure again.
SCRIPT = """
import signal
from pathlib import Path
import optuna
from optevo.workers.supervisor import terminable
from optevo.measurement.pool import Measurer, again_when_killed, processes
from optevo.optim import PRESETS
from optevo.errors import RunFailed
from optevo.study.config import parse_config

seeds = list(range(4))
sampler = {"kind": "random", "n_trials": 10}
evaluation = {"tasks": ["pool_task:Odd"], "gate": False}
config = parse_config({"name": "one", "sampler": sampler, "evaluation": evaluation}, "this test")
optuna.logging.disable_default_handler()
study = optuna.create_study()

def once():
    with processes(config, ["cpu"] * 2, Path()) as pool:
        return Measurer(study, config, pool, "measured:").measure({"adam": PRESETS["adam"]}, seeds)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
try:
  with terminable():
    print([run.metric for run in again_when_killed(once)["adam"]])
except (RunFailed, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
"""
TASK = """
import os, sys, time
from optevo.tasks import ScoredTask

class Odd(ScoredTask):
    name = "odd"

    def score(self, candidate, seed, steps):
        {body}
        return float(seed)
"""
SECONDS = 120


def start(folder: Path, body: str = "pass", delay: float = 0.0) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    (folder / "sitecustomize.py").write_text(STARTING)
    (folder / "pool_task.py").write_text(TASK.replace("{body}", body))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "TEST_DELAY": str(delay), "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed; nothing of it is left."""
    try:
        printed = process.communicate(timeout=SECONDS)
        wait_for(lambda: not members(process.pid))  # Python's own resource tracker goes last
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, printed
    return printed


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_processes_that_are_still_starting_when_the_work_is_done_end_in_order(tmp_path: Path):
    assert end(start(tmp_path, delay=2.0)) == ("[0.0, 1.0, 2.0, 3.0]\n", "")
    assert list(tmp_path.glob("starting-*"))


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM],
    ids=lambda number: number.name,
)
def test_a_signal_to_all_while_processes_start_leaves_none_and_no_traceback(
    tmp_path: Path, number: signal.Signals
):
    process = start(tmp_path, body="time.sleep(600)", delay=600.0)
    wait_for(lambda: list(tmp_path.glob("starting-*")))
    os.killpg(process.pid, number)
    assert end(process) == ("KeyboardInterrupt \n", "")


def test_a_task_that_exits_in_a_measuring_process_is_a_failed_run(tmp_path: Path):
    out, err = end(start(tmp_path, body="sys.exit(0) if seed == 2 else None"))
    assert out.startswith("RunFailed study 'one': task 'pool_task:Odd' with seed 2 raised SystemExit: 0")
    assert err.startswith("a run failed")


def test_a_task_that_ends_its_measuring_process_is_tried_three_times(tmp_path: Path):
    out, err = end(start(tmp_path, body="os._exit(0) if seed == 3 else None"))
    assert out.startswith("RunFailed 3 times a measuring process was lost")
    assert "Traceback" not in err
    assert err.count("a measuring process was lost") == 3


def test_a_task_that_forks_in_a_measuring_process_answers_once(tmp_path: Path):
    body = "time.sleep(0) if (child := os.fork()) == 0 else os.waitpid(child, 0)"
    out, err = end(start(tmp_path, body=body))
    assert out == "[0.0, 1.0, 2.0, 3.0]\n"
    assert err.count("left the task as if it were its parent; it is ended") == 4
    assert "Traceback" not in err
