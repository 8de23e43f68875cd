"""Reading a file as any editor leaves it, and writing one: whole, or as it was before."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import os
import zlib
from pathlib import Path

from optevo.errors import UserError

# UTF-32's first: its mark of the one kind begins like UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_GZIP = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """A text file, UTF-8 unless a byte order mark says otherwise; without the mark, lines as on Unix.

    What gzip has compressed is read as what it was.

    Raises:
        OSError: It can't be read.
        UnicodeDecodeError: It is no text.
    """
    data = path.read_bytes()
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error) as error:
            raise OSError(f"it is damaged: {error}") from None
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8-sig")
    return data.decode(encoding).replace("\r\n", "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; a file that is there is replaced once the new one is on the disk.

    Where the name ends in ``.gz``, the text is compressed. A lone surrogate, which UTF-8 has no place for, is
    written as its escape. What is no file, such as ``/dev/stdout``, is written to as it is.

    Raises:
        UserError: It can't be written: a folder is in the way, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        data = text.encode("utf-8", errors="backslashreplace")
        with beside.open("wb") as file:
            # Without the time, so that the same text is the same file.
            file.write(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
