"""Images in the archives of MedMNIST: NumPy's arrays in a zip file, read block by block."""

from __future__ import annotations

import contextlib
import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from optevo.errors import UserError
from optevo.tasks.decoded import Shape, key_of
from optevo.tasks.image_pixels import fitted
from optevo.tasks.mapped import Block
from optevo.tasks.own.image_sources import Source

#: What the arrays of the parts begin with.
NAMES = {"train": "train", "validation": "val", "test": "test"}
_BLOCK = 64  # images that are read at a time


def npz_source(path: Path, remedy: str) -> Source:
    """An archive with images and labels of train, val and test.

    Raises:
        UserError: It can't be read or has another form.
    """
    with _told(path, remedy):
        with np.load(path, allow_pickle=False) as archive:
            wanted = [f"{name}_{what}" for name in NAMES.values() for what in ("images", "labels")]
            if lacking := [key for key in wanted if key not in archive]:
                raise ValueError(f"it has no {', '.join(lacking)}, only {', '.join(archive) or 'nothing'}")
            labels = {part: archive[f"{name}_labels"] for part, name in NAMES.items()}
        shapes = {}
        with zipfile.ZipFile(path) as archive:
            for part, name in NAMES.items():
                with archive.open(f"{name}_images.npy") as array:
                    shapes[part] = _header(array)
        known = _check(labels, shapes)
        key = key_of(path, [(path, path.stat())])
    grey = all(len(shape) == 3 or shape[3] == 1 for shape in shapes.values())
    return Source(
        labels={part: np.searchsorted(known, each.ravel()).tolist() for part, each in labels.items()},
        classes=[str(number) for number in known],
        key=key,
        channels=1 if grey else 3,
        size=min(shapes["train"][1:3]),
        blocks=lambda shape: _decode(path, shape, remedy),
    )


def _check(
    labels: dict[str, np.ndarray[Any, Any]], shapes: dict[str, tuple[int, ...]]
) -> np.ndarray[Any, Any]:
    """The class numbers of train.

    Raises:
        ValueError: Labels are not one class number an image, or a part has others than train.
    """
    for part, numbers in labels.items():
        if numbers.dtype.kind not in "iu" or numbers.size != len(numbers):
            raise ValueError(
                f"the labels of {part} are {numbers.dtype} of shape {numbers.shape}, not one class number an "
                "image; several labels an image can't be learned"
            )
        if not shapes[part][0] == len(numbers) > 0:
            raise ValueError(f"{part} has {shapes[part][0]} images and {len(numbers)} labels")
    known = np.unique(labels["train"])
    for part, numbers in labels.items():
        if unseen := {*numbers.ravel().tolist()} - {*known.tolist()}:
            raise ValueError(f"{part} has the label {min(unseen)}, which no image of train has")
    return known


def _header(array: IO[bytes]) -> tuple[int, ...]:
    """The shape of an array of images, which is then read as it lies there.

    Raises:
        ValueError: It holds no 8-bit images.
    """
    version = np.lib.format.read_magic(array)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(array)
    if dtype != np.uint8 or by_columns or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))):
        raise ValueError(f"images are {dtype} {shape}, not uint8 (N, H, W) or (N, H, W, 3)")
    return tuple(shape)


def _decode(path: Path, shape: Shape, remedy: str) -> Iterator[Block]:
    with _told(path, remedy), zipfile.ZipFile(path) as archive:
        for name in NAMES.values():
            with archive.open(f"{name}_images.npy") as array:
                count, *one = _header(array)
                for start in range(0, count, _BLOCK):
                    content = array.read(min(_BLOCK, count - start) * math.prod(one))
                    images = np.frombuffer(content, np.uint8).reshape(-1, *one)
                    yield _fit(images, shape), hashlib.sha256(content).digest()


def _fit(images: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    from PIL import Image  # noqa: PLC0415 - only who has images needs it

    channels_last = images.reshape(*images.shape[:3], -1)
    if (channels_last.shape[3], *channels_last.shape[1:3]) == shape:
        return channels_last.transpose(0, 3, 1, 2)
    return np.stack([fitted(Image.fromarray(one.squeeze()), shape) for one in channels_last])


@contextlib.contextmanager
def _told(path: Path, remedy: str) -> Iterator[None]:
    """What is wrong with the archive is told in a message."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, LookupError) as error:
        raise UserError(
            f"{path} can't be read as a MedMNIST archive ({error or type(error).__name__}): {remedy}"
        ) from error
