"""Folders of images, decoded once into a checked cache.

A part of a data set is a folder with one folder a class; classes are numbered in the alphabetical order of
their names, as torchvision's ImageFolder does. Decoding 60,000 small JPEGs takes some twenty seconds on one
core, so the tensors are kept in a file whose name is a hash of the folder's manifest (relative paths, sizes,
times) and whose payload carries a checksum.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optevo.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
_MODES = {1: "L", 3: "RGB"}
# Whatever a file's name says, PIL would also read it as PostScript, which runs a program.
_FORMATS = ("JPEG", "PNG")
#: Part of every cache file's name: raise it when decoding changes.
_VERSION = 1


def read_folder(
    folder: Path, shape: tuple[int, int, int], classes: int, cache: Path, remedy: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Read ``<folder>/<class>/*.{jpg,png}``, from the cache where it holds just these files.

    Args:
        folder: One part of a data set, e.g. ``.../cifar10/train``.
        shape: (channels, height, width) that every image must have; 1 channel means grey, 3 mean RGB.
        classes: How many classes there must be.
        cache: Where decoded tensors are kept. Several processes may share it.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8 (N, C, H, W), int64 (N,), and the classes' names; ordered by class, then by file name.

    Raises:
        UserError: The folder, a class or an image is missing, unreadable or of another size or mode.
    """
    files, names = list_images(folder, classes, remedy)
    manifest = hashlib.sha256(f"{_VERSION} {shape} {classes}\n".encode())
    for path, _, status in files:
        manifest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    kept = cache / f"{folder.parent.name}-{folder.name}-{manifest.hexdigest()[:32]}.pt"
    loaded = _load(kept, (len(files), *shape), classes)
    if loaded is not None:
        return *loaded, names
    logger.info("decoding %d images of %s", len(files), folder)
    inputs = _decode([folder / path for path, _, _ in files], shape, remedy)
    targets = torch.tensor([number for _, number, _ in files], dtype=torch.int64)
    _save(kept, inputs, targets)
    return inputs, targets, names


def list_classes(folder: Path, classes: int, remedy: str) -> list[str]:
    """The names of a part's classes in the order of their numbers.

    Raises:
        UserError: There is no such folder, or it has another number of classes.
    """
    if not folder.is_dir():
        raise UserError(f"the folder {folder} is missing: {remedy}")
    try:
        found = sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error}): {remedy}") from error
    if len(found) != classes:
        listed = ", ".join(found[:12]) or "none"
        raise UserError(f"{folder} has {len(found)} class folders ({listed}), not {classes}: {remedy}")
    return found


def list_images(
    folder: Path, classes: int, remedy: str
) -> tuple[list[tuple[str, int, os.stat_result]], list[str]]:
    """Each image of a part, in order, as "class/file", class number and file status; and the classes' names.

    Links are followed, wherever they lead: only what decodes as an image is ever kept of a file.

    Raises:
        UserError: As `list_classes`, or a class has no images, or one of them is no regular file.
    """
    found = list_classes(folder, classes, remedy)
    files = []
    for number, name in enumerate(found):
        try:
            with os.scandir(folder / name) as entries:
                images = sorted(
                    (f"{name}/{entry.name}", entry.stat())
                    for entry in entries
                    if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
                )
        except OSError as error:  # a link to nowhere, or in a circle
            raise UserError(f"{folder / name} can't be read ({error}): {remedy}") from error
        if not images:
            raise UserError(f"{folder / name} has no {', '.join(SUFFIXES)} files: {remedy}")
        for path, status in images:
            if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
                raise UserError(f"{folder / path} is no regular file: {remedy}")
        files += [(path, number, status) for path, status in images]
    return files, found


def _decode(paths: list[Path], shape: tuple[int, int, int], remedy: str) -> Tensor:
    from PIL import Image  # noqa: PLC0415 - only who has image files needs it

    channels, height, width = shape
    pixels = np.empty((len(paths), height, width, channels), dtype=np.uint8)
    for index, path in enumerate(paths):
        try:
            with Image.open(path, formats=_FORMATS) as image:
                if image.size != (width, height) or image.mode != _MODES[channels]:
                    raise UserError(
                        f"{path} is {image.size[0]} x {image.size[1]} pixels in mode {image.mode}, not "
                        f"{width} x {height} in mode {_MODES[channels]}: {remedy}"
                    )
                pixels[index] = np.asarray(image).reshape(height, width, channels)
        except (
            *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError),
            *(zlib.error, struct.error, Image.DecompressionBombError),
        ) as error:  # all of these come out of PIL's readers
            raise UserError(f"{path} can't be decoded as an image ({error}): {remedy}") from error
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _fits(inputs: Tensor, targets: Tensor, shape: tuple[int, ...], classes: int) -> bool:
    if inputs.dtype != torch.uint8 or targets.dtype != torch.int64:
        return False
    if tuple(inputs.shape) != shape or tuple(targets.shape) != shape[:1]:
        return False
    return int(targets.min()) >= 0 and int(targets.max()) < classes


def _checksum(inputs: Tensor, targets: Tensor) -> str:
    digest = hashlib.sha256(inputs.contiguous().numpy().data)
    digest.update(targets.contiguous().numpy().data)
    return digest.hexdigest()


def _load(path: Path, shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor] | None:
    """What `_save` wrote, or None where it is missing or damaged. Nothing in the file is ever run."""
    if not path.is_file():
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        inputs, targets = kept["inputs"], kept["targets"]
        if _fits(inputs, targets, shape, classes) and _checksum(inputs, targets) == kept["sha256"]:
            return inputs, targets
        reason = "its checksum is wrong"
    except (
        *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
        *(AssertionError, OverflowError, MemoryError, struct.error, pickle.PickleError),
    ) as error:  # all of these come out of torch's reader
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
    logger.warning("the decoded images in %s are damaged (%s): decoding again", path, reason)
    return None


def _save(path: Path, inputs: Tensor, targets: Tensor) -> None:
    """Keep decoded tensors. Whole or not at all, also where several processes write the same file."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(handle, "wb") as stream:
            torch.save({"inputs": inputs, "targets": targets, "sha256": _checksum(inputs, targets)}, stream)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's writer
        logger.warning(
            "can't keep the decoded images in %s (%s): they are decoded at every start", path, error
        )
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
