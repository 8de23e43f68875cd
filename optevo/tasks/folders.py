"""Folders of images, decoded once into a checked cache.

Decoding 60,000 small JPEGs takes some twenty seconds on one core, so the tensors are kept in a file. Its
name and its checksum hold a hash of where the folder lies and of each file's path, size, inode and times of
change: one that was replaced has another inode or another time of change (ctime), which nobody can set.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import pickle
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.escaping import printable
from optevo.tasks.image_files import ImageFiles, file_identity, list_images
from optevo.tasks.image_pixels import read_pixels

logger = logging.getLogger(__name__)

#: Part of every cache file's name: raise it when decoding or the file's content changes.
_VERSION = 2
_unkept: set[Path] = set()  # cache folders that were said to be of no use


def read_folder(
    folder: Path, shape: tuple[int, int, int], classes: int, cache: Path, remedy: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Read ``<folder>/<class>/**/*.{jpg,png,...}``, from the cache where it holds just these files.

    What is left out, and classes whose names look alike, are said in a warning.

    Args:
        folder: One part of a data set, e.g. ``.../cifar10/train``.
        shape: (channels, height, width) that every image must have; 1 channel means grey, 3 mean RGB.
        classes: How many classes there must be.
        cache: Where decoded tensors are kept. Several processes may share it.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8 (N, C, H, W), int64 (N,), and the classes' names; ordered by class, then by path.

    Raises:
        UserError: The folder, a class or an image is missing, unreadable or not as it must be.
    """
    try:
        found = list_images(folder, classes)
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error}): {remedy}") from error
    if found.problems:
        raise UserError(f"{found.problems[0]}: {remedy}")
    for note in found.notes:
        warn(note)
    key = _key(found, shape)
    kept = cache / f"{folder.parent.name}-{folder.name}-{key[:32]}.pt"
    loaded = _load_kept(kept, (len(found.files), *shape), classes)
    if loaded is not None:
        return *loaded, found.classes
    logger.info("decoding %d images of %s", len(found.files), printable(str(folder)))
    inputs = _decode([folder / path for path, _, _ in found.files], shape, remedy)
    targets = torch.tensor([number for _, number, _ in found.files], dtype=torch.int64)
    with contextlib.suppress(OSError):
        if _key(list_images(folder, classes), shape) == key:  # else what was decoded has changed meanwhile
            _keep(kept, inputs, targets)
    return inputs, targets, found.classes


def warn(line: str) -> None:
    """Warn of something about the data; a process of a pool only notes what its parent has said already."""
    child = multiprocessing.parent_process() is not None
    logger.log(logging.INFO if child else logging.WARNING, "%s", printable(line))


def _key(found: ImageFiles, shape: tuple[int, int, int]) -> str:
    """What identifies the decoded form of these very files in this very place."""
    digest = hashlib.sha256(f"{_VERSION} {shape} {len(found.classes)}\0".encode())
    digest.update(os.fsencode(os.path.realpath(found.folder)))
    for path, _, status in found.files:
        digest.update(file_identity(path, status))
    return digest.hexdigest()


def _decode(paths: list[Path], shape: tuple[int, int, int], remedy: str) -> Tensor:
    channels, height, width = shape
    pixels = np.empty((len(paths), height, width, channels), dtype=np.uint8)
    for index, path in enumerate(paths):
        pixels[index] = read_pixels(path, shape, remedy)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _fits(inputs: Tensor, targets: Tensor, shape: tuple[int, ...], classes: int) -> bool:
    if inputs.dtype != torch.uint8 or targets.dtype != torch.int64:
        return False
    if tuple(inputs.shape) != shape or tuple(targets.shape) != shape[:1]:
        return False
    return int(targets.min()) >= 0 and int(targets.max()) < classes


def _checksum(path: Path, inputs: Tensor, targets: Tensor) -> str:
    digest = hashlib.sha256(path.name.encode())  # what lies under another name is another folder's
    digest.update(inputs.contiguous().numpy().data)
    digest.update(targets.contiguous().numpy().data)
    return digest.hexdigest()


def _load_kept(path: Path, shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor] | None:
    """What `_keep` wrote, or None where it is missing or damaged. Nothing in the file is ever run."""
    if not os.path.isfile(path):
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        inputs, targets = kept["inputs"], kept["targets"]
        if _fits(inputs, targets, shape, classes) and _checksum(path, inputs, targets) == kept["sha256"]:
            return inputs, targets
        reason = "its checksum is wrong"
    except (
        *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
        *(AssertionError, OverflowError, MemoryError, struct.error, pickle.PickleError),
    ) as error:  # all of these come out of torch's reader
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
    logger.warning("the decoded images in %s are damaged (%s): decoding again", printable(str(path)), reason)
    return None


def _keep(path: Path, inputs: Tensor, targets: Tensor) -> None:
    """Keep decoded tensors. Whole or not at all, also where several processes write the same file."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(handle, "wb") as stream:
            checksum = _checksum(path, inputs, targets)
            torch.save({"inputs": inputs, "targets": targets, "sha256": checksum}, stream)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's writer
        if path.parent not in _unkept:  # once for all parts and data sets
            _unkept.add(path.parent)
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            warn(
                f"can't keep decoded images in {path.parent} ({reason}): they are decoded at every start; "
                "point OPTEVO_CACHE at a folder that can be written"
            )
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
