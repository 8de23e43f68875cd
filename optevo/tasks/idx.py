"""Reading idx files, the format of MNIST and Fashion-MNIST, plain or gzipped, trusting nothing in them.

The format (yann.lecun.com/exdb/mnist): two zero bytes, a type code (8: uint8), the number of dimensions, that
many big-endian 32-bit sizes, then the data.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks.roots import holds

UINT8 = 0x08
_MOST = 2**30  # bytes: twenty times the largest of these files, and little enough to keep in memory


def locate(path: Path) -> Path | None:
    """The file that goes by an idx file's name, a whole one before a damaged one, or None.

    That is the file itself, or its gzipped form, or either under the names that it has elsewhere:
    ``train-images.idx3-ubyte``, in other capitals, or in a folder of the same name, as unpackers make it.

    Raises:
        OSError: The folder can't be read.
    """
    if not path.parent.is_dir():
        return None
    called = [entry for entry in path.parent.iterdir() if _plain(entry.name) == _plain(path.name)]
    called += [
        inner
        for folder in called
        if folder.is_dir()
        for inner in folder.iterdir()
        if _plain(inner.name) == _plain(path.name)
    ]
    usual = [path, path.with_name(path.name + ".gz")]
    files = usual + sorted({*called} - {*usual}, key=lambda file: (file.suffix.lower() == ".gz", file))
    files = [file for file in files if file.is_file()]
    return next(filter(is_whole, files), files[0] if files else None)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gz").replace(".idx", "-idx")


def is_whole(path: Path) -> bool:
    """Whether a file can be read and is as long as its header says, as far as both its ends tell."""
    try:
        with _opened(path) as stream:
            head = stream.read(16)
        if len(head) < 4 or len(head) < (header := 4 + 4 * head[3]):
            return False
        length: int = header + math.prod(struct.unpack(f">{head[3]}I", head[4:header]))
        if not _is_gzipped(path):
            return length == path.stat().st_size
        with path.open("rb") as packed:  # a gzipped file ends with the length of its content
            packed.seek(-4, os.SEEK_END)
            return length == int.from_bytes(packed.read(4), "little")
    except (OSError, EOFError, zlib.error):
        return False


def _is_gzipped(path: Path) -> bool:
    """By name, or by content: some tools unpack on the way and keep the name, others drop it."""
    with path.open("rb") as stream:
        return path.suffix.lower() == ".gz" or stream.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if _is_gzipped(path) else path.open("rb")


def read_idx(path: Path, dimensions: int, remedy: str) -> Tensor:
    """Read one idx file.

    Args:
        path: The file by its usual name; `locate` says what else is taken for it.
        dimensions: How many dimensions it must have: 3 for images, 1 for labels.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        UserError: The file is missing, cut off, too long, or not an idx file of this kind.
    """
    found = locate(path)
    if found is None:
        raise UserError(f"{path} is missing (and so is {path.name}.gz); {holds(path.parent)}: {remedy}")
    header = 4 + 4 * dimensions
    content = _content(found, header + _MOST, remedy)
    if len(content) < header:
        raise UserError(f"{found} is truncated: {len(content)} bytes, less than an idx header: {remedy}")
    expected = bytes([0, 0, UINT8, dimensions])
    if content[:4] != expected:
        raise UserError(
            f"{found} has a wrong magic number: 0x{content[:4].hex()}, not 0x{expected.hex()}, so it is no "
            f"idx file of uint8 in {dimensions} dimensions: {remedy}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        state = "truncated" if len(content) - header < math.prod(shape) else "too long"
        raise UserError(
            f"{found} is {state}: its header says {' x '.join(map(str, shape))} bytes of data, "
            f"there are {len(content) - header}: {remedy}"
        )
    # bytearray: torch refuses to share read-only memory quietly.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(shape)


def _content(path: Path, most: int, remedy: str) -> bytes:
    try:
        with _opened(path) as stream:
            content = stream.read(most + 1)  # a small gzipped file may hold any amount of zeros
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise UserError(f"{path} can't be read ({error}): {remedy}") from error
    if len(content) > most:
        raise UserError(f"{path} is too long: more than {most} bytes: {remedy}")
    return content


def read_labelled(
    images: Path, labels: Path, shape: tuple[int, int, int], classes: int, remedy: str
) -> tuple[Tensor, Tensor]:
    """Read a pair of idx files as one labelled set of grey images.

    Args:
        images: The file of images.
        labels: The file of labels.
        shape: (1, height, width), in pixels, that every image must have.
        classes: Labels must lie in 0 .. classes - 1.
        remedy: What the user can do about a fault.

    Returns:
        uint8 (N, 1, height, width) and int64 (N,).

    Raises:
        UserError: Either file is at fault, or they don't go together.
    """
    pixels = read_idx(images, 3, remedy)
    numbers = read_idx(labels, 1, remedy)
    if tuple(pixels.shape[1:]) != shape[1:]:
        raise UserError(
            f"{images} has images of {pixels.shape[1]} x {pixels.shape[2]} pixels, "
            f"not {shape[1]} x {shape[2]}: {remedy}"
        )
    if len(pixels) != len(numbers):
        raise UserError(f"{images} has {len(pixels)} images but {labels} has {len(numbers)} labels: {remedy}")
    if len(numbers) == 0:
        raise UserError(f"{images} is empty: {remedy}")
    highest = int(numbers.max())
    if highest >= classes:
        place = int(numbers.argmax())
        raise UserError(
            f"{labels} has the label {highest} at position {place}; labels must be 0 to {classes - 1}: "
            f"{remedy}"
        )
    return pixels.unsqueeze(1), numbers.to(torch.int64)
