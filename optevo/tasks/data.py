"""The data sets as a user meets them: what is there, and fetching what is not."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from optevo.errors import UserError
from optevo.naming import hint
from optevo.tasks import treebank
from optevo.tasks.image_files import ImageFiles, difference, list_images
from optevo.tasks.photographs import PHOTOGRAPHS, listed, remedy
from optevo.tasks.roots import require_root
from optevo.tasks.sources import (
    IMAGES,
    PARTS,
    TEXT_FILE,
    digits_file,
    layout_of,
    load_images,
    load_text,
)

__all__ = ["NAMES", "DataRow", "check", "get", "load_images", "load_text"]

TEXT_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_MOST_TEXT = 2**24  # bytes of a download that should have a million
NAMES = ("digits", *IMAGES, *PHOTOGRAPHS, "char_lm", "ptb")

#: SHA-256 of the unpacked files as their authors published them, by path below the data root.
PUBLISHED = {
    "MNIST/raw/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "MNIST/raw/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "MNIST/raw/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "MNIST/raw/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "FashionMNIST/raw/train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "FashionMNIST/raw/train-labels-idx1-ubyte": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "FashionMNIST/raw/t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
    "ptb/ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb/ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb/ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    "tinyshakespeare/input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
}


@dataclass(frozen=True)
class DataRow:
    """One file or folder that a data set needs, as `check` found it.

    Attributes:
        path: Where it was looked for (and found, if it was).
        found: Whether it is there, with an image at least for a folder.
        size: Bytes, of all images together for a folder; None where nothing was found.
        sha256: Checksum of a file, None for a folder.
        count: Images in a folder, as many as are read; None for a file.
        published: Whether the bytes are those its authors published; None where we don't know those.
        notes: Lines about what is wrong with it, what of it is not read and why, and, with a set's first
            row, in which of several forms the set is read.
    """

    path: Path
    found: bool
    size: int | None = None
    sha256: str | None = None
    count: int | None = None
    published: bool | None = None
    notes: tuple[str, ...] = ()


def check(name: str, root: Path) -> list[DataRow]:
    """What is there of one data set: a row for each file (or, for a folder of images, each part).

    Nothing is decoded; `get` or `Task.load` say whether the content is sound.

    Raises:
        UserError: There is no data set of this name, or a file of it can't be read.
    """
    _known(name)
    try:
        return _rows(name, root)
    except OSError as error:
        raise UserError(f"can't read the data of {name} in {root}: {error}") from error


def _rows(name: str, root: Path) -> list[DataRow]:
    if name == "digits":
        return [_file_row(digits_file(), digits_file(), None)]
    require_root(root)
    if name == "ptb":
        files = [root / treebank.FOLDER / file for file in treebank.FILES.values()]
        return [
            _file_row(file, file if file.is_file() else None, PUBLISHED[f"{treebank.FOLDER}/{file.name}"])
            for file in files
        ]
    if name == "char_lm":
        text = root / TEXT_FILE
        return [_file_row(text, text if text.is_file() else None, PUBLISHED[TEXT_FILE.as_posix()])]
    if name in PHOTOGRAPHS:
        return _photograph_rows(name, root)
    layout = layout_of(name, root)
    if layout.kind == "folder":
        listed = [list_images(root / name / part, IMAGES[name].classes) for part in PARTS]
        rows = [_folder_row(part) for part in listed]
        if differing := difference(*(part.classes for part in listed)):
            rows[-1] = replace(rows[-1], notes=(*rows[-1].notes, f"{root / name}: {differing}"))
    else:
        rows = [
            _file_row(path, found, PUBLISHED.get(path.relative_to(root).as_posix()))
            for path, found in layout.files.items()
        ]
    if layout.note:
        rows[0] = replace(rows[0], notes=(layout.note, *rows[0].notes))
    return rows


def _photograph_rows(name: str, root: Path) -> list[DataRow]:
    found = listed(name, root)
    if not found.files:
        return [DataRow(found.place, found=False, notes=(*found.problems, *found.notes))]
    return [
        DataRow(
            found.place,
            found=True,
            size=sum(path.stat().st_size for path, _ in files),
            count=len(files),
            notes=tuple(found.notes) if part == "train" else (),
        )
        for part, files in found.files.items()
    ]


def get(name: str, root: Path) -> list[DataRow]:
    """Download a data set unless it is there, then read it once to see that it is sound.

    Args:
        name: One of `NAMES`.
        root: The data root; made if it doesn't exist.

    Returns:
        The rows of `check`.

    Raises:
        UserError: The name is unknown, there is no network, or what is there is damaged.
    """
    _known(name)
    if name in IMAGES:
        rows = check(name, root)
        if not all(row.found for row in rows):
            _download(name, root)
        for part in PARTS:
            load_images(name, root, part)
    elif name in PHOTOGRAPHS:
        if not all(row.found for row in check(name, root)):
            _download(name, root)
    elif name == "ptb":
        treebank.load_treebank(root, 1)  # it may not be handed on, so there is nothing to download
    elif name == "char_lm":
        require_root(root)
        if not (root / TEXT_FILE).is_file():
            _download(name, root)
        load_text(root, 1)
    return check(name, root)


def _known(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"there is no data set {name!r}: {hint(name, NAMES)}")


def _download(name: str, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name == "char_lm":
            _fetch(TEXT_URL, root / TEXT_FILE, PUBLISHED[TEXT_FILE.as_posix()])
        else:
            from torchvision import datasets  # noqa: PLC0415 - as above

            kind = {
                "mnist": datasets.MNIST,
                "fashion_mnist": datasets.FashionMNIST,
                "cifar10": datasets.CIFAR10,
                "cifar100": datasets.CIFAR100,
                "flowers102": datasets.Flowers102,
                "caltech101": datasets.Caltech101,
            }
            if name not in kind:
                raise OSError("it can't be had by itself")
            if name in PHOTOGRAPHS:
                kind[name](str(root), download=True)
            else:
                kind[name](str(root), train=True, download=True)
    # URLError is an OSError; torchvision raises RuntimeError; HTTPException is a transfer cut off.
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        if name in PHOTOGRAPHS:
            raise UserError(f"can't download {name} ({reason}): {remedy(name, root)}") from error
        where = IMAGES[name].archive if name in IMAGES else TEXT_FILE
        raise UserError(
            f"can't download {name} to {root} ({reason}). Without a network, put the files at {root / where} "
            "yourself, or point OPTEVO_DATA or --data-dir at a folder that has them"
        ) from error


def _fetch(url: str, path: Path, sha256: str) -> None:
    """Download to a file, whole and as published or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        urllib.request.urlopen(url, timeout=30) as answer,
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
    ):
        temporary = Path(folder) / path.name
        with temporary.open("wb") as stream:
            stream.write(answer.read(_MOST_TEXT))
        if hashlib.sha256(temporary.read_bytes()).hexdigest() != sha256:
            raise OSError(f"what {url} sent is cut off or has changed")
        os.replace(temporary, path)


def _file_row(path: Path, found: Path | None, published: str | None) -> DataRow:
    if found is None:
        return DataRow(path, found=False)
    content = found.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # A compressed file's own checksum depends on the packer, so it says nothing about its content.
    same = None if published is None or found.suffix.lower() == ".gz" else digest == published
    return DataRow(found, found=True, size=len(content), sha256=digest, published=same)


def _folder_row(listed: ImageFiles) -> DataRow:
    notes = (*listed.problems, *listed.notes)
    if not listed.files:
        return DataRow(listed.folder, found=False, notes=notes)
    size = sum(status.st_size for _, _, status in listed.files)
    return DataRow(listed.folder, found=True, size=size, count=len(listed.files), notes=notes)
