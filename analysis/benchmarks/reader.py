"""Reading a folder of images: examples a second and peak memory, beside torchvision's.

    python -m analysis.benchmarks.reader [--quick] [--images 4000] [--pixels 128] [--rounds 5]
        [--photographs FOLDER]

JPEGs are made in a temporary folder: of coarse noise at the size that is read, or parts of a folder's
photographs, at 200 to 300 pixels a side. One side is the task of a user's own images, which decodes them once
into a file that is mapped. The other is torchvision's ImageFolder in a DataLoader of two workers, which
decodes them in every epoch. Both crop and mirror at random and give normalised batches of 64; nothing is
trained. A side is a process with one thread for torch; sides take turns, an epoch each. Memory is that of
the process and its children beyond what the process has after its imports: their own, and with what is
mapped of files, which the system takes back when memory is short.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets, transforms

from analysis.benchmarks.common import console, middle, parser, print_header, table
from optevo.tasks.own.images import Images

BATCH = 64
CLASSES = 10
AUGMENT = "crop_flip(padding=4)"
SIDES = ("ours", "torchvision")
NAMES = {"ours": "mapped, one process", "torchvision": "ImageFolder, 2 workers"}


def make_images(folder: Path, images: int, made: Iterator[Image.Image]) -> None:
    """So many JPEGs in ten classes."""
    for number, image in zip(range(images), made, strict=False):
        place = folder / f"class {number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.jpg", quality=90)


def noise(pixels: int) -> Iterator[Image.Image]:
    """Coarse noise without end, which packs about as well as photographs."""
    rng = np.random.default_rng(0)
    while True:
        coarse = rng.integers(0, 256, (pixels // 8, pixels // 8, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)


def crops(source: Path) -> Iterator[Image.Image]:
    """Parts of photographs without end, enlarged or reduced to 200 to 300 pixels a side."""
    rng, paths = np.random.default_rng(0), sorted(source.rglob("*.jpg"))
    while True:
        for path in paths:
            with Image.open(path) as photograph:
                width, height = (int(rng.integers(side // 2, side)) for side in photograph.size)
                left = int(rng.integers(photograph.width - width + 1))
                top = int(rng.integers(photograph.height - height + 1))
                size = tuple(rng.integers(200, 301, 2).tolist())
                part = photograph.convert("RGB").crop((left, top, left + width, top + height))
            yield part.resize(size, Image.Resampling.BICUBIC)


def ours(folder: Path, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of the task of a user's own images; all but a few of them train."""
    task = Images("own", str(folder), resolution=pixels, augmentation=AUGMENT, validation=0.01, test=0.01)
    split = task.load(folder)["train"]
    batches = task.batches(split, BATCH, torch.Generator().manual_seed(0))
    for _ in range(len(split) // BATCH):
        yield next(batches)


def torchvision(folder: Path, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of ImageFolder."""
    steps = [
        *(transforms.Resize(pixels), transforms.CenterCrop(pixels)),
        *(transforms.RandomCrop(pixels, padding=4), transforms.RandomHorizontalFlip()),
        *(transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)),
    ]
    data = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    yield from torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=2, drop_last=True)


def epoch(side: str, folder: Path, pixels: int) -> None:
    """Print seconds to the first batch, examples a second from then on, and bytes before: own, all."""
    torch.set_num_threads(1)
    before = _memory(os.getpid())
    start = time.perf_counter()
    batches = {"ours": ours, "torchvision": torchvision}[side](folder, pixels)
    next(batches)
    first, count = time.perf_counter(), 0
    for inputs, _ in batches:
        count += len(inputs)
    rate = count / (time.perf_counter() - first)
    print(json.dumps([first - start, rate, *before]))


def measured(side: str, folder: Path, pixels: int) -> tuple[float, float, float, float]:
    """Of one epoch: seconds to the first batch, examples a second, peak MB: own, with mapped."""
    command = [sys.executable, "-m", "analysis.benchmarks.reader", "--side", side, str(folder)]
    environment = {**os.environ, "OPTEVO_CACHE": str(folder.parent / "cache"), "OMP_NUM_THREADS": "1"}
    peak = [0, 0]
    with subprocess.Popen(
        [*command, "--pixels", str(pixels)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess, OSError):  # it has ended meanwhile
                children = psutil.Process(process.pid).children(recursive=True)
                found = [_memory(pid) for pid in (process.pid, *(child.pid for child in children))]
                peak = [max(most, sum(now)) for most, now in zip(peak, zip(*found, strict=True), strict=True)]
            time.sleep(0.2)
        assert process.stdout is not None
        seconds, rate, *before = json.loads(process.stdout.read().splitlines()[-1])
    own, every = ((most - was) / 1e6 for most, was in zip(peak, before, strict=True))
    return seconds, rate, own, every


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process as Linux counts them, shared ones in proportion: its own, and with mapped files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes["Pss_Anon"] * 1024, kilobytes["Pss"] * 1024


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=4000)
    made.add_argument("--pixels", type=int, default=128)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--photographs", type=Path, metavar="FOLDER", help="of JPEGs to cut images from")
    made.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.side:
        epoch(arguments.side[0], Path(arguments.side[1]), arguments.pixels)
        return
    images, pixels, rounds = arguments.images, arguments.pixels, arguments.rounds
    if arguments.quick:
        images, pixels, rounds = 300, 16, 1
    cut = arguments.photographs
    size = f"{pixels} x {pixels}" if cut is None else "200 to 300 x 200 to 300"
    print_header(
        f"{images} JPEGs of {size} pixels read as {pixels} x {pixels}, epochs of both sides in turn, "
        f"{rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        make_images(folder, images, noise(pixels) if cut is None else crops(cut))
        first = measured("ours", folder, pixels)
        console.print(
            f"first start: {first[0]:.1f} s until the first batch, peak {first[2]:,.0f} MB of its own; "
            f"files {_megabytes(folder):,.1f} MB, mapped {_megabytes(Path(place) / 'cache'):,.1f} MB"
        )
        found = {side: list[tuple[float, ...]]() for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                found[side].append(measured(side, folder, pixels))
    columns = ("s to first batch", "examples a second", "peak MB, own", "peak MB with mapped")
    shown = table("later starts, median [lowest, highest]", "reader", *columns)
    for side, rows in found.items():
        shown.add_row(NAMES[side], *(middle(list(values), 1) for values in zip(*rows, strict=True)))
    console.print(shown)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
