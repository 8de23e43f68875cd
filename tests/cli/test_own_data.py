"""From an empty folder to an exported winner, with no Python written: images, a table, a text."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import run
from PIL import Image

pytestmark = pytest.mark.usefixtures("here")

UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}  # compiling would take most of the time, and has its own tests
STUDY = """
name = "own"

[space]
presets = ["sgd", "adam"]

[sampler]
kind = "genetic"
population_size = 3
n_generations = 1
n_elites = 0

[evaluation]
steps = 30
seeds = [0]
batch_size = 16

[[evaluation.tasks]]
{task}

[rerun]
candidates = 1
seeds = 2
"""


def images() -> str:
    noise = np.random.default_rng(0)
    for number, kind in enumerate(("Grüne Äpfel", "rote Birnen")):
        folder = Path("fruit") / kind
        folder.mkdir(parents=True)
        for i in range(30):
            pixels = noise.integers(0, 120, (20 + i % 3, 24, 3), dtype=np.uint8)
            pixels[..., 1 - number] += 100
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return """kind = "images"
name = "fruit"
path = "fruit"
options = { resolution = 16, width = 4, augmentation = "crop_flip" }"""


def table() -> str:
    noise = np.random.default_rng(0)
    size, kind = noise.normal(size=200), noise.integers(0, 3, 200)
    frame = pd.DataFrame({"size": size, "kind": np.array(["a", "b", "ü"])[kind], "price": 3 * size + kind})
    frame.loc[3, "size"] = np.nan
    frame.to_csv("prices.csv", index=False)
    return """kind = "table"
name = "prices"
path = "prices.csv"
options = { target = "price", sizes = [32] }"""


def text() -> str:
    Path("song.txt").write_text("row row row your boat gently down the stream\n" * 100, encoding="utf-8")
    return """kind = "text"
name = "song"
path = "song.txt"
options = { window = 16, width = 16, layers = 1 }"""


def start(make: str) -> None:
    task = {"images": images, "table": table, "text": text}[make]()
    Path("own.toml").write_text(STUDY.format(task=task), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("images", 0.8), ("table", 0.0), ("text", -30.0)])
def test_own_data_go_from_an_empty_folder_to_an_exported_winner(kind: str, least: float, tmp_path: Path):
    start(kind)
    command = ("run", "own.toml", "--workers", "1", "--device", "cpu", "--export", "best.py")
    answer = run(*command, OPTEVO_CACHE=str(tmp_path / "cache"), **UNCOMPILED)
    assert answer.status == 0, answer
    best = max(float(value) for value in re.findall(r"metric (-?[\d.]+)", answer.out))
    assert best > least
    assert f"kind={kind}" in Path("best.py").read_text("utf-8")
    spec = importlib.util.spec_from_file_location("best", "best.py")
    exported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exported)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = exported.Evolved([weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.square().sum() < 3


@pytest.mark.slow
def test_a_study_is_resumed_where_its_data_lie_elsewhere_but_not_with_other_data(tmp_path: Path):
    start("table")
    command = ("run", "own.toml", "--workers", "1", "--device", "cpu")
    assert run(*command, "--trials", "1", **UNCOMPILED).status == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("prices.csv").rename(elsewhere / "prices.csv")
    lost = run(*command, "--trials", "1", **UNCOMPILED)
    assert lost.status == 2
    assert "there is no" in lost.err
    assert run(*command, "--trials", "1", "--data-dir", str(elsewhere), **UNCOMPILED).status == 0
    content = (elsewhere / "prices.csv").read_text()
    (elsewhere / "prices.csv").write_text(content.replace("ü", "o"))
    changed = run(*command, "--data-dir", str(elsewhere), **UNCOMPILED)
    assert changed.status == 2
    assert "data of prices: " in changed.err
    assert run(*command, "--data-dir", str(elsewhere), "--accept-environment", **UNCOMPILED).status == 0


def test_a_corrupt_file_is_told_before_anything_is_stored(tmp_path: Path, optevo):
    start("images")
    (Path("fruit") / "rote Birnen" / "7.jpg").write_bytes(b"\xff\xd8\xff no picture")
    answer = optevo("run", "own.toml", "--workers", "1", "--device", "cpu")
    assert answer.status == 2
    assert "7.jpg can't be decoded as an image" in answer.err
    assert not Path("optevo.db").exists()
