"""The same promise as test_resume.py on real data with a real network; minutes long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optevo import keys
from optevo.storage.opening import open_storage
from optevo.study.studies import load_study

STUDY = """
name = "fashion-small"
[sampler]
kind = "genetic"
population_size = 8
n_generations = 3
[evaluation]
tasks = ["fashion_mnist"]
steps = 100
seeds = [0]
[rerun]
candidates = 1
seeds = 2
"""


def start(folder: Path, storage: str, data_root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "optevo", "run", "study.toml", "--storage", storage, "--workers", "2"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OPTEVO_DATA": str(data_root)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def outcome(folder: Path, name: str) -> dict[tuple[int, int], tuple[dict, float | None]]:
    study, _ = load_study(open_storage(f"sqlite:///{folder / name}"), None)
    trials = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert not [t for t in study.trials if t.state.name == "RUNNING"]
    slots = {(keys.ours(t)[keys.GENERATION], keys.ours(t)[keys.SLOT]): (t.params, t.value) for t in trials}
    assert len(slots) == len(trials) == 18
    return slots


@pytest.mark.slow
def test_a_fashion_mnist_search_killed_half_way_ends_as_the_unbroken_one(
    tmp_path: Path, data_root: Path
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    begin = time.perf_counter()
    assert start(tmp_path, "sqlite:///unbroken.db", data_root).wait() == 0
    unbroken = time.perf_counter() - begin

    broken = start(tmp_path, "sqlite:///broken.db", data_root)
    time.sleep(0.5 * unbroken)
    os.killpg(broken.pid, signal.SIGKILL)
    broken.wait()
    study, _ = load_study(open_storage(f"sqlite:///{tmp_path / 'broken.db'}"), None)
    done = sum(t.state.name in ("COMPLETE", "PRUNED") for t in study.trials)
    assert 0 < done < 18
    assert start(tmp_path, "sqlite:///broken.db", data_root).wait() == 0

    first, second = outcome(tmp_path, "unbroken.db"), outcome(tmp_path, "broken.db")
    assert first == second
