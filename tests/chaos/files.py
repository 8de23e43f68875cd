"""Spoilt data files. Each function makes its input from `rng` alone in an empty folder, and reads it."""

from __future__ import annotations

import gzip
import os
import random
import struct
from pathlib import Path

import torch

from optevo.tasks import folders, idx, sources

from . import damage
from .outcomes import Fault, refused

KINDS = ("png", "jpg", "bmp", "gif", "pgm", "tif", "webp")


def idx_files(rng: random.Random, folder: Path) -> str:
    """A pair of small idx files, one of them spoilt, half of them gzipped."""
    n = rng.randint(1, 4)
    images = struct.pack(">4I", 0x803, n, 28, 28) + rng.randbytes(n * 784)
    labels = struct.pack(">2I", 0x801, n) + bytes(rng.randrange(10) for _ in range(n))
    pair = [images, labels]
    which, zipped = rng.randrange(2), rng.random() < 0.5
    within = rng.random() < 0.5  # the fault is in the content, or in what the disk holds
    pair[which] = damage.spoil(pair[which], rng) if within or not zipped else pair[which]
    for place, name in enumerate(("images", "labels")):
        content = gzip.compress(pair[place], mtime=0) if zipped else pair[place]
        content = damage.spoil(content, rng) if zipped and place == which and not within else content
        (folder / (name + ".gz" * zipped)).write_bytes(content)
    read = lambda: idx.read_labelled(folder / "images", folder / "labels", (1, 28, 28), 10, "do this")  # noqa: E731
    return "refused" if refused(read) else "read"


def image_folders(rng: random.Random, folder: Path) -> str:
    """Two classes of small images with one that is spoilt, or a decoded cache that is."""
    from PIL import Image  # noqa: PLC0415

    for kind in ("a", "b"):
        (folder / "set" / "train" / kind).mkdir(parents=True)
        for i in range(2):
            image = Image.frombytes("L", (8, 8), rng.randbytes(64))
            image.save(folder / "set" / "train" / kind / f"{i}.{rng.choice(KINDS)}", lossless=True)
    read = lambda: folders.read_folder(folder / "set" / "train", (1, 8, 8), 2, folder / "cache", "do this")  # noqa: E731
    if rng.random() < 0.3:
        before = read()
        (kept,) = (folder / "cache").iterdir()
        kept.write_bytes(damage.spoil(kept.read_bytes(), rng))
        after = read()
        if not all(torch.equal(x, y) for x, y in zip(before[:2], after[:2], strict=True)):
            raise Fault("a damaged cache was believed")
        return "decoded again"
    file = rng.choice(sorted((folder / "set").rglob("*.*")))
    chance = rng.randrange(8)
    data = file.read_bytes()
    if chance < 5:
        file.write_bytes(damage.spoil(data, rng))
    else:
        file.unlink()
        if chance == 5:
            file.symlink_to(rng.choice(["/etc/passwd", "/dev/zero", "nowhere", file.name, "/"]))
        elif chance == 6:
            os.mkfifo(file)
        else:
            file.mkdir()
    return "refused" if refused(read) else "read"


def text_files(rng: random.Random, folder: Path) -> str:
    """Tiny Shakespeare: any bytes are text, but there must be enough of them."""
    (folder / "tinyshakespeare").mkdir()
    path = folder / "tinyshakespeare" / "input.txt"
    chance = rng.randrange(4)
    if chance < 3:
        path.write_bytes(damage.spoil(rng.randbytes(rng.randrange(300)), rng))
    else:
        os.mkfifo(path) if rng.random() < 0.5 else path.mkdir()
    return "refused" if refused(lambda: sources.load_text(folder, 100)) else "read"
