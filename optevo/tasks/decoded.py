"""Images of any size as splits: decoded once into a mapped file, of which each split is a part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optevo.errors import UserError
from optevo.tasks.base import Split, Splits
from optevo.tasks.image_files import file_identity
from optevo.tasks.image_pixels import fit_pixels
from optevo.tasks.mapped import Block, mapped
from optevo.tasks.roots import decoded_root

VERSION = 1  # of how images are decoded
#: Bytes of all images from which on they stay in their file, and a GPU gets them batch by batch.
RESIDENT = 4 * 1024**3
_BLOCK = 64  # images that are decoded at a time
_SHOWN = 12  # faults that a message lists
Shape = tuple[int, int, int]


def read_splits(
    name: str,
    key: str,
    labels: Mapping[str, Sequence[int]],
    shape: Shape,
    blocks: Callable[[], Iterator[Block]],
) -> tuple[Splits, str]:
    """The splits of a set of images, which is decoded first where that wasn't done before.

    Args:
        name: What the file's name begins with.
        key: Of `key_of`.
        labels: Class numbers of each split, in the order in which `blocks` decodes.
        shape: (channels, height, width) of every image.
        blocks: Decodes all of it to this shape.

    Returns:
        The splits, with uint8 (n, channels, height, width) each, and a digest of what was decoded.

    Raises:
        UserError: The decoded images can't be kept. What `blocks` raises is passed on.
    """
    key = f"{key[:32]}-{shape[0]}x{shape[1]}"
    count = sum(map(len, labels.values()))
    pixels, digest = mapped(decoded_root() / f"{name[:40]}-{key}.pixels", key, (count, *shape), blocks)
    splits, begin = {}, 0
    for part, numbers in labels.items():
        inputs = pixels[begin : begin + len(numbers)]
        targets = torch.tensor(numbers, dtype=torch.int64)
        splits[part] = Split(inputs, targets, streamed=pixels.numel() > RESIDENT)
        begin += len(numbers)
    return splits, digest


def key_of(place: Path, files: Iterable[tuple[Path, os.stat_result]]) -> str:
    """What identifies these very files in this very place, see `file_identity`."""
    digest = hashlib.sha256(f"{VERSION} {place.resolve()}".encode(errors="surrogateescape"))
    for path, status in files:
        digest.update(file_identity(path, status))
    return digest.hexdigest()


def decode(paths: list[Path], shape: Shape, remedy: str) -> Iterator[Block]:
    """All images of any size in order, decoded by several threads.

    Args:
        paths: Of the images.
        shape: (channels, height, width) that comes out, see `fit_pixels`.
        remedy: What the user can do, the end of every error message.

    Yields:
        Some images at a time, with a digest of each file.

    Raises:
        UserError: Images can't be read or decoded; all are told at once.
    """

    def read(path: Path) -> tuple[np.ndarray[Any, Any], bytes] | UserError:
        try:
            content = path.read_bytes()
            return fit_pixels(content, path, shape, remedy), hashlib.sha256(content).digest()
        except OSError as error:
            return UserError(f"{path} can't be read ({error.strerror}): {remedy}")
        except UserError as error:
            return error

    faults: list[UserError] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BLOCK):
            images = list(pool.map(read, paths[start : start + _BLOCK]))
            sound = [one for one in images if not isinstance(one, UserError)]
            faults += [one for one in images if isinstance(one, UserError)]
            if len(faults) > _SHOWN:
                break
            if not faults:
                yield np.stack([pixels for pixels, _ in sound]), b"".join(digest for _, digest in sound)
    if faults:
        more = ["… and there may be more"] if len(faults) > _SHOWN else []
        raise UserError("\n".join([*map(str, faults[:_SHOWN]), *more]))
