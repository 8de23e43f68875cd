"""Writing a file: whole, or as it was before."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from optevo.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; a file that is there is replaced once the new one is on the disk.

    A lone surrogate, which UTF-8 has no place for, is written as its escape. What is no file, such as
    ``/dev/stdout``, is written to as it is.

    Raises:
        UserError: It can't be written: a folder is in the way, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
