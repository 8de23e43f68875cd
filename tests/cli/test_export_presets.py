"""`optevo export PRESET`: without a study, and by a name that is told where it is none."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
import torch
from command_line import said

from optevo.optim import PRESETS


@pytest.mark.parametrize(
    ("preset", "class_name"),
    [("evolved", "Evolved"), ("evolved_modern", "EvolvedModern"), ("opt10", "Opt10")],
)
def test_a_preset_is_written_without_a_study(optevo, preset: str, class_name: str):
    answer = optevo("export", preset)
    assert answer.status == 0, answer
    assert f"from {preset} import {class_name}, scheduler" in answer.out
    assert os.listdir() == [f"{preset}.py"]
    module = runpy.run_path(f"{preset}.py", run_name="imported")
    module["self_check"]()
    p = torch.nn.Parameter(torch.ones(2, 2))
    asked = {"lr": 0.1, "total_steps": 10} if preset == "opt10" else {}
    optimizer = module[class_name]([p], **asked)
    schedule = module["scheduler"](optimizer, 10)
    for _ in range(2):
        p.grad = torch.ones(2, 2)
        optimizer.step()
        schedule.step()
    assert (p < 1).all()
    assert module["PROVENANCE"]["preset"] == preset


def test_a_presets_file_and_class_are_called_as_is_asked(optevo):
    answer = optevo("export", "lion", "--output", "cat.py", "--class-name", "Cat")
    assert "from cat import Cat, scheduler" in answer.out
    assert Path("cat.py").exists()
    said(optevo("export", "lion", "--class-name", "not a name"), "not a name")
    said(optevo("export", "lion", "--output", "torch.py"), "could not be imported")
    assert os.listdir() == ["cat.py"]


def test_a_preset_that_there_is_not_is_told_with_the_nearest(optevo):
    said(optevo("export", "evolvd"), "evolvd", "neither", "did you mean 'evolved'?")
    said(optevo("export", "1234567x"), "optevo export --list")
    assert os.listdir() == []


def test_the_presets_are_listed(optevo):
    lines = optevo("export", "--list").out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert "Δ = " in lines[0]
