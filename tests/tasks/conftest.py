"""Data that the tests of tasks share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_tasks import idx_bytes

from optevo.tasks.photographs import PHOTOGRAPHS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root of random images and bytes, small enough to decode at once."""
    folder = tmp_path_factory.mktemp("root")
    noise = np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("fashion_mnist", (28, 28)), ("cifar10", (32, 32, 3))):
        for part, count in (("train", 6), ("test", 2)):
            for kind in range(10):
                place = folder / name / part / f"class{kind}"
                place.mkdir(parents=True)
                for number in range(count):
                    pixels = noise.integers(0, 256, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
    photographs = {name: (known.classes, 12) for name, known in PHOTOGRAPHS.items()}
    for name, (classes, size) in (photographs | {"cifar100": (100, 32)}).items():
        for kind, part in itertools.product(range(classes), ("train", "test")):
            place = folder / name / part / f"class{kind:03}"
            place.mkdir(parents=True)
            (place / "a.ppm").write_bytes(b"P6 %d %d 255\n%b" % (size, size, noise.bytes(3 * size**2)))
    (folder / "ptb").mkdir()
    for part in ("train", "valid", "test"):
        words = noise.integers(97, 123, (20, 12), dtype=np.uint8)
        (folder / "ptb" / f"ptb.{part}.txt").write_text(
            "".join(" " + " ".join(map(chr, line)) + " \n" for line in words) + " <unk> \n"
        )
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare" / "input.txt").write_bytes(
        noise.integers(32, 127, 8_000, dtype=np.uint8).tobytes()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTEVO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is decoded."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OPTEVO_CACHE", str(folder))
    return folder


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A small set in MNIST's layout; returns the folder of its files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 10)):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(noise.integers(0, 256, (count, 28, 28))))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count) % 10))
    return raw


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A small set in the layout of image folders; returns the folder of its parts."""
    noise = np.random.default_rng(0)
    for part, kind, number in itertools.product(("train", "test"), range(10), range(2)):
        place = tmp_path / "cifar10" / part / f"kind{kind}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / (f"{number}.png" if number else f"{number}.jpg"))
    return tmp_path / "cifar10"
