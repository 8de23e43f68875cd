"""A task of one's own from study file to exported winner, and what is said where it has a fault."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from command_line import run

from optevo import keys
from optevo.storage.opening import open_storage
from optevo.study.studies import best_trials, load_study

pytestmark = pytest.mark.usefixtures("here")

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text("utf-8")


def block(language: str, word: str) -> str:
    """The block of code in the page about tasks that has a word."""
    return next(
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
        if word in text
    )


@pytest.fixture
def diabetes() -> str:
    """The regression that the page shows; the study file's name."""
    Path("diabetes.py").write_text(block("python", "class Diabetes"))
    Path("diabetes.toml").write_text(block("toml", "diabetes:Diabetes"))
    return "diabetes.toml"


@pytest.mark.slow
def test_the_regression_of_the_page_goes_from_study_file_to_exported_winner(diabetes: str):
    answer = run("run", diabetes, "--workers", "1", "--device", "cpu", "--export", "best.py")
    assert answer.status == 0, answer
    study, _ = load_study(open_storage("sqlite:///optevo.db"), "diabetes")
    best = best_trials(study, 1)[0]
    assert 0.2 < best.value < 1
    assert all(
        r["fitness"] == r["metric"] for t in study.trials for r in keys.ours(t)[keys.RUNS] if r["metric"]
    )
    spec = importlib.util.spec_from_file_location("best", "best.py")
    exported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exported)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = exported.Evolved([weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.square().sum() < 3


def test_a_regression_without_its_two_words_is_told_before_anything_is_stored(
    optevo, diabetes: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "diabetes", raising=False)
    text = Path("diabetes.py").read_text()
    Path("diabetes.py").write_text(re.sub(r' {4}(loss|metric) = ".*"\n', "", text))
    monkeypatch.setattr(logging.getLogger("optevo"), "level", logging.NOTSET)  # and set back afterwards
    answer = optevo("--verbose", "run", diabetes, "--workers", "1", "--device", "cpu")
    assert answer.status == 2, answer
    for words in ("task 'diabetes': loss()", "split 'train'", "float32 (300, 1)", 'loss = "mse"'):
        assert words in answer.err
    assert "Traceback" in caplog.text
    assert "Traceback" not in answer.err.rpartition("optevo: ")[2]
    assert not Path("optevo.db").exists()
