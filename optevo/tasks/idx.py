"""Reading idx files, the format of MNIST and Fashion-MNIST, plain or gzipped, trusting nothing in them.

The format (yann.lecun.com/exdb/mnist): two zero bytes, a type code (8: uint8), the number of dimensions, that
many big-endian 32-bit sizes, then the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from optevo.errors import UserError

UINT8 = 0x08
_MOST = 2**30  # bytes: twenty times the largest of these files, and little enough to keep in memory


def locate(path: Path) -> Path | None:
    """The file itself, or its gzipped form beside it, or None."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def read_idx(path: Path, dimensions: int, remedy: str) -> Tensor:
    """Read one idx file.

    Args:
        path: The file without ".gz"; the gzipped one is read where only that is there.
        dimensions: How many dimensions it must have: 3 for images, 1 for labels.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        UserError: The file is missing, cut off, too long, or not an idx file of this kind.
    """
    found = locate(path)
    if found is None:
        raise UserError(f"{path} is missing (and so is {path.name}.gz): {remedy}")
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
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
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
