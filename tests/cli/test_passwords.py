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


@pytest.mark.parametrize("argv", [["run", "s.toml", "--workers", "1"], ["status"], ["export"], ["show"]])
def test_a_password_is_not_printed(optevo, argv: list[str], monkeypatch: pytest.MonkeyPatch):
    Path("s.toml").write_text(STUDY)
    monkeypatch.setenv("OPTEVO_STORAGE", SECRET_URL)
    answer = optevo(*argv)
    assert answer.status == 2, answer
    assert "127.0.0.1" in answer.err
    for told in answer[1:]:
        assert "topsecret" not in told
        assert "Traceback" not in told


@pytest.mark.slow
def test_a_storage_reaches_the_workers_by_their_environment_alone(tmp_path):
    (tmp_path / "s.toml").write_text(STUDY)
    file = tmp_path / "topsecret.db"
    argv = ["run", "s.toml", "--workers", "2", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "optevo", *argv],
        env={**os.environ, "OPTEVO_STORAGE": f"sqlite:///{file}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
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
