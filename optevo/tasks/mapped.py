"""Pixels decoded once into a file that is mapped: batches are read from it, and it is never read whole.

Data may so be larger than memory. What the system keeps of the file in memory is shared by all processes
and given back when memory is short.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from optevo.errors import UserError

#: Pixels, uint8 (n, C, H, W), and the bytes that they were decoded from.
Block = tuple[np.ndarray, bytes]
_DIGEST = 32  # bytes


def mapped(
    path: Path, key: str, shape: tuple[int, int, int, int], blocks: Callable[[], Iterator[Block]]
) -> tuple[Tensor, str]:
    """What a file holds; where it is missing, cut or without its seal, it is made first.

    The file has the pixels, the digest of what they were decoded from, and a seal. It is whole or not there:
    it is written under another name, which is kept from one kill to the next start alone. Nobody reads all
    pixels to see whether they are the ones that were written. Of several processes one decodes and the others
    wait.

    Args:
        path: Of the file, whose folder is made.
        key: Of what is decoded and how; a file with another one is of no use.
        shape: (N, C, H, W).
        blocks: Decodes all of it, in order.

    Returns:
        uint8 (N, C, H, W), which can't be written to, and the digest, in hexadecimal digits.

    Raises:
        UserError: The folder or file can't be written. What `blocks` raises is passed on.
    """
    try:
        if (found := _read(path, key, shape)) is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if _read(path, key, shape) is None:  # else another process has made it meanwhile
                _write(path, key, shape, blocks())
        found = _read(path, key, shape)
    except OSError as error:
        size = math.prod(shape) / 1e6
        raise UserError(
            f"can't keep {size:,.0f} MB of decoded images in {path.parent} ({error.strerror or error}): "
            "point OPTEVO_CACHE at a folder that can be written and has room"
        ) from error
    if found is None:
        raise UserError(f"{path} was changed while it was written: start again")
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock of a file, which ends with the process that holds it, however that ends."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, key: str, shape: tuple[int, int, int, int], blocks: Iterator[Block]) -> None:
    beside, digest, count = path.with_suffix(".writing"), hashlib.sha256(), 0
    beside.unlink(missing_ok=True)  # of a process that was killed
    if shutil.disk_usage(path.parent).free < math.prod(shape):  # told before an hour of decoding, not after
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        with beside.open("wb") as file:
            for pixels, content in blocks:
                file.write(np.ascontiguousarray(pixels).data)
                digest.update(content)
                count += len(pixels)
            if count != shape[0]:
                raise UserError(f"{count} images were decoded instead of {shape[0]}: start again")
            file.write(digest.digest() + _seal(key, shape, digest.digest()))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _read(path: Path, key: str, shape: tuple[int, int, int, int]) -> tuple[Tensor, str] | None:
    """The file's pixels and digest; None where it is missing, of another size or without its seal."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        digest = _checked(file, key, shape)
        if digest is not None:
            # Read-only: the system refuses a private map that is larger than memory.
            pixels = np.memmap(file, np.uint8, "r", shape=shape)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return torch.from_numpy(pixels), digest.hex()
    return None


def _checked(file: BinaryIO, key: str, shape: tuple[int, int, int, int]) -> bytes | None:
    size = math.prod(shape)
    if os.fstat(file.fileno()).st_size != size + 2 * _DIGEST:
        return None
    file.seek(size)
    digest, seal = file.read(_DIGEST), file.read(_DIGEST)
    return digest if seal == _seal(key, shape, digest) else None


def _seal(key: str, shape: tuple[int, int, int, int], digest: bytes) -> bytes:
    return hashlib.sha256(f"{key} {shape}\0".encode() + digest).digest()
