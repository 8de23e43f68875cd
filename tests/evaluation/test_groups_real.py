"""Groups of candidates by real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from racing import by_slot

from optevo.storage.opening import open_storage
from optevo.study.config import load_config
from optevo.study.studies import create_or_resume, is_complete, load_study

FILE = """
name = "grouped"
seed = 3

[sampler]
kind = "genetic"
population_size = 7
n_generations = 3
n_elites = 1

[evaluation]
tasks = ["digits"]
steps = 15
seeds = [0, 1]
batch_candidates = 3

[rerun]
candidates = 1
seeds = 2
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_three_real_workers_leave_the_database_that_one_leaves(tmp_path: Path, quiet_optuna: None):
    from optevo.workers.worker import work  # noqa: PLC0415

    (tmp_path / "study.toml").write_text(FILE)
    urls = [f"sqlite:///{tmp_path / name}" for name in ("one.db", "three.db")]
    config = load_config(tmp_path / "study.toml")
    command = [sys.executable, "-m", "optevo", "run", str(tmp_path / "study.toml"), "--workers", "3"]
    command += ["--device", "cpu", "--storage", urls[1]]
    log = (tmp_path / "log.txt").open("w+")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        create_or_resume(config, open_storage(urls[0], create=True), "cpu", {"digits": 1})
        work(urls[0], "grouped", device="cpu", data_root=Path(), parent=os.getppid())
        until = time.monotonic() + 120
        while "the search is complete" not in (tmp_path / "log.txt").read_text():  # measuring has other tests
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        log.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    studies = [load_study(open_storage(url), "grouped")[0] for url in urls]
    one, three = (by_slot(study.get_trials(deepcopy=False)) for study in studies)
    assert is_complete(studies[1])
    assert set(one) == {(0, i) for i in range(7)} | {(g, i) for g in (1, 2) for i in range(6)}
    assert one == three
    assert any(found["value"] > 0.3 for found in one.values())
