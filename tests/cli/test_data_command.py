"""`optevo data`, and what the commands need of a home folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import TINY, said, stored, write
from PIL import Image

from optevo.tasks import roots


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """CIFAR-10 as folders of one image a class; returns the data root."""
    for part in ("train", "test"):
        for kind in range(10):
            place = tmp_path / "root" / "cifar10" / part / f"kind{kind}"
            place.mkdir(parents=True)
            Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(place / "0.png")
    return tmp_path / "root"


def test_data_check_counts_what_is_read_and_says_what_is_not(
    optevo: Callable[..., Any], images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (images / "cifar-10-batches-py").mkdir()
    (images / "cifar-10-batches-py" / "data_batch_1").touch()
    (images / "cifar10" / "train" / "kind0" / "._0.png").touch()
    for part in ("train", "test"):
        folder = os.fsencode(images / "cifar10" / part)
        os.rename(folder + b"/kind3", folder + b"/caf\xe9")
    Path(os.fsdecode(folder) + "/caf\udce9/a.avif").touch()
    answer = optevo("data", "check", "cifar10", "--data-dir", str(images))
    assert answer.status == 0
    rows = [line.split() for line in answer.out.splitlines() if "cifar10/" in line and "note" not in line]
    assert [[row[i] for i in (3, 5, 9)] for row in rows] == [
        ["cifar10/train", "yes", "10"],
        ["cifar10/test", "yes", "10"],
    ]
    notes = [line for line in answer.out.splitlines() if line.startswith("note: ")]
    assert "cifar10 is read from the images in" in notes[0]
    assert r"left out 1 file, as only .jpg" in notes[1]
    assert r"1 .avif, such as caf\udce9/a.avif" in notes[1]
    monkeypatch.setenv("OPTEVO_CACHE", str(tmp_path / "cache"))
    answer = optevo("data", "get", "cifar10", "--data-dir", str(images))
    assert answer.out == f"cifar10 is complete in {images / 'cifar10'}\n"


@pytest.mark.usefixtures("homeless")
def test_commands_that_need_no_data_need_no_home(
    optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(optevo("data", "check"), "no home folder", "OPTEVO_DATA", "OPTEVO_CACHE")
    said(optevo("data", "get", "mnist"), "no home folder", "OPTEVO_DATA", "OPTEVO_CACHE")
    said(optevo("run", write(TINY.replace("digits", "mnist"))), "no home folder", "OPTEVO_DATA")
    assert not Path("optevo.db").exists()
    assert optevo("data", "check", "digits").status == optevo("data", "get", "digits").status == 0
    given: list[Path] = []
    monkeypatch.setattr("optevo.run.run", lambda *_, data_root, **__: given.append(data_root))
    optevo("run", write(TINY))
    assert given == [roots.NOWHERE]
    stored(trials=1)
    for command in (["status"], ["show", "0"], ["export", "0"]):
        assert optevo(*command).status == 0
