"""Passwords are in no output and on no command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SECRET_URL = "postgresql+psycopg://u:topsecret@127.0.0.1:1/d"
STUDY = """
name = "tiny"
space.presets = ["sgd"]
sampler = {kind = "random", n_trials = 4}
evaluation = {tasks = ["digits"], steps = 40, seeds = [0]}
rerun = {candidates = 1, seeds = 2}
"""


def optevo_run(file: Path, *argv: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "optevo", *argv]
    environment = {**os.environ, **env}
    return subprocess.Popen(
        command, env=environment, cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "s.toml", "--workers", "1"],
        *(pytest.param([command], marks=pytest.mark.slow) for command in ("status", "export", "show")),
    ],
)
def test_a_password_is_not_printed(argv, tmp_path):
    (tmp_path / "s.toml").write_text(STUDY)
    process = optevo_run(tmp_path / "s.toml", *argv, OPTEVO_STORAGE=SECRET_URL)
    out = process.communicate(timeout=100)[0]
    assert process.returncode == 2, out
    assert "topsecret" not in out
    assert "Traceback" not in out


@pytest.mark.slow
def test_a_storage_reaches_the_workers_by_their_environment_alone(tmp_path):
    (tmp_path / "s.toml").write_text(STUDY)
    file = tmp_path / "topsecret.db"
    argv = ["run", "s.toml", "--workers", "2", "--device", "cpu"]
    process = optevo_run(tmp_path / "s.toml", *argv, OPTEVO_STORAGE=f"sqlite:///{file}")
    seen: set[str] = set()
    looks = 0  # after a worker was seen
    while process.poll() is None and looks < 20:
        looks += any(" worker " in line for line in seen)
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                seen.add(" ".join(child.cmdline()))
            except psutil.Error:
                continue
        time.sleep(0.1)
    process.terminate()
    out = process.communicate(timeout=60)[0]
    assert any(" worker " in line for line in seen), out
    assert not any("topsecret" in line for line in seen)
    assert b"topsecret" not in file.read_bytes()
