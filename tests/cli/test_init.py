"""`optevo init`: what it writes runs as it stands, and it writes over nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run, said

from optevo.cli.starts import STARTS, STUDY
from optevo.study.config import load_config
from optevo.training.benches import make_bench

UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}


@pytest.mark.parametrize("task", STARTS)
def test_what_is_written_can_be_searched(
    optevo: Callable[..., Any], task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPTEVO_CACHE", str(tmp_path / "cache"))
    answer = optevo("init", "my search", "--task", task)
    assert answer.status == 0, answer
    assert "cd 'my search'" in answer.out
    assert "optevo run search.toml" in answer.out
    monkeypatch.chdir("my search")
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    config = load_config(Path("search.toml"))
    assert config.name == "my_search"
    bench = make_bench(config, "cpu", tmp_path)
    bench.rehearse()
    # The batch is of the training examples, and no search ends before it has trained for an epoch or so.
    (_, splits), *_ = bench.tasks
    assert len(splits["train"]) > 2 * config.evaluation.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("task", STARTS)
def test_what_is_written_runs_as_it_stands(
    here: None, task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("init", "--task", task, "first").status == 0
    monkeypatch.chdir("first")
    environment = {"OPTEVO_CACHE": str(tmp_path / "cache"), **UNCOMPILED}
    answer = run("run", "search.toml", "--workers", "1", "--trials", "3", **environment)
    assert answer.status == 0, answer
    found = run("top", "1", "--json")
    assert json.loads(found.out)["trials"][0]["fitness"] is not None
    assert run("export", "best").status == 0


def test_nothing_is_overwritten(optevo: Callable[..., Any]) -> None:
    assert optevo("init").status == 0
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert {*before} == {"search.toml", "my_task.py"}
    said(optevo("init"), "my_task.py and search.toml", "another folder")
    Path("search.toml").unlink()
    said(optevo("init"), "my_task.py")
    assert [path.name for path in Path().iterdir()] == ["my_task.py"]


def test_what_cannot_be_written_is_refused(optevo: Callable[..., Any]) -> None:
    Path("file").touch()
    said(optevo("init", "file"), "file is a file")
    said(optevo("init", "file/below"), "file")
    said(optevo("init", "--task", "imagse"), "imagse", "images")
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_every_line_of_the_study_file_fits_and_says_what_it_is() -> None:
    for start in STARTS.values():
        text = STUDY.format(name="x", task=start.task, steps=start.steps, batch_size=start.batch_size)
        assert max(map(len, text.splitlines())) <= 100
        assert len(re.findall(r"# \w", text)) >= 10
