"""Where the data sets lie on disk, and reading them whatever their layout."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks import folders, idx
from optevo.tasks.image_files import difference, list_classes, list_images
from optevo.tasks.roots import decoded_root, holds, require_root

TEXT_FILE = Path("tinyshakespeare") / "input.txt"
PARTS = ("train", "test")
#: What torchvision calls the official parts in the names of idx files.
IDX_PREFIX = {"train": "train", "test": "t10k"}
IDX_FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
CIFAR10_BYTES = 10_000 * 3 * 32 * 32  # the pixels of one of its files, which holds more than them
#: Of sets that their authors pickled: the files, and the least bytes of each.
PICKLED = {
    "cifar10": {name: 1 if name.endswith(".meta") else CIFAR10_BYTES for name in BATCHES},
    "cifar100": {"train": 5 * CIFAR10_BYTES, "test": CIFAR10_BYTES, "meta": 1},
}


@dataclass(frozen=True)
class ImageSet:
    """Where an image set lies below the data root and what its images must be.

    Attributes:
        archive: The folder of torchvision's own layout, looked at first.
        shape: (channels, height, width) in pixels.
        classes: Number of classes.
    """

    archive: Path
    shape: tuple[int, int, int]
    classes: int = 10


IMAGES = {
    "mnist": ImageSet(Path("MNIST") / "raw", (1, 28, 28)),
    "fashion_mnist": ImageSet(Path("FashionMNIST") / "raw", (1, 28, 28)),
    "cifar10": ImageSet(Path("cifar-10-batches-py"), (3, 32, 32)),
    "cifar100": ImageSet(Path("cifar-100-python"), (3, 32, 32), 100),
}


def remedy(name: str, root: Path) -> str:
    """What a user can do about missing or damaged data, as the end of a message."""
    return (
        f"run `optevo data get {name}` (delete damaged files first), or put the files below {root}, "
        "or point OPTEVO_DATA or --data-dir at a folder that has them"
    )


def digits_file() -> Path:
    """Scikit-learn's packaged digits, to be read as the file that they are.

    `sklearn.datasets` itself takes longer to import than a search trial takes to run.

    Raises:
        UserError: Scikit-learn isn't installed, or its file is elsewhere.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UserError("the digits task needs scikit-learn, which isn't installed")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not path.is_file():
        raise UserError(f"this version of scikit-learn has its digits elsewhere than in {path}")
    return path


def load_images(name: str, root: Path, part: str) -> tuple[Tensor, Tensor]:
    """One official part of an image set, from torchvision's layout or from ``<root>/<name>/<part>/<class>/``.

    Args:
        name: A key of `IMAGES`.
        root: The data root.
        part: "train" or "test".

    Returns:
        uint8 (N, C, H, W) and int64 (N,) in 0 .. classes - 1, on the CPU, in the files' order.

    Raises:
        UserError: The set is missing, damaged, or of another shape.
    """
    require_root(root)
    known, help_ = IMAGES[name], remedy(name, root)
    try:
        layout = layout_of(name, root)
        if not layout.whole:
            help_ = f"{layout.note}: {help_}"
        if layout.kind == "idx":
            images, labels = list(layout.files)[2 * PARTS.index(part) :][:2]
            return idx.read_labelled(images, labels, known.shape, known.classes, help_)
        if layout.kind == "folder":
            if layout.note:
                folders.warn(layout.note)
            return _load_folder(root / name, part, known, help_)
        if layout.kind == "pickled":
            return _load_pickled(name, root, part, help_)
        places = " and ".join(holds(place) for place in (root / known.archive, root / name))
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise UserError(f"{root} can't be read ({error}): {help_}") from error
    raise UserError(
        f"no data for the task {name}: there is neither {root / known.archive} nor {root / name / 'train'} "
        f"with what belongs there ({places}): {help_}"
    )


@dataclass(frozen=True)
class Layout:
    """In which form a set is there.

    Attributes:
        kind: "idx", "pickled", "folder", or None where there is nothing of the set.
        files: What torchvision's own layout of the set consists of, and where each is, or None.
        note: A line about the other form, where both are there; else "".
        whole: False where both forms are begun and neither is whole.
    """

    kind: str | None
    files: dict[Path, Path | None]
    note: str = ""
    whole: bool = True


def layout_of(name: str, root: Path) -> Layout:
    """Which form of a set is read: torchvision's own if it is whole, else image folders if they are.

    What a failed download leaves, an empty folder or some of the files, so hides nothing. Where neither form
    is whole, it is the one that is begun, torchvision's own first; its own message says what it lacks.

    Raises:
        OSError: A folder can't be read.
    """
    known = IMAGES[name]
    archive, folder = root / known.archive, root / name
    files: dict[Path, Path | None]
    if name in PICKLED:
        kind = "pickled"
        wanted = [archive / file for file in PICKLED[name]]
        files = {file: file if file.is_file() else None for file in wanted}
    else:
        kind = "idx"
        wanted = [archive / f"{IDX_PREFIX[part]}-{what}" for part in PARTS for what in IDX_FILES]
        files = {file: idx.locate(file) for file in wanted}
    there = [file for file in files.values() if file is not None]
    if not (folder / "train").is_dir() and not (folder / "test").is_dir():
        return Layout(kind if there else None, files)
    others = ", ".join(part for part in list_classes(folder) if part not in PARTS)
    note = f"{folder}: only its folders train and test are read, not {others}" if others else ""
    if not there:
        return Layout("folder", files, note)
    whole = [file for file in there if _is_whole(file, name)]
    if len(whole) == len(files):
        return Layout(kind, files, f"{name} is read from {archive}, not from the images in {folder}")
    lacks = f"{archive} is not whole ({len(whole)} of {len(files)} files)"
    if (problem := _folder_problem(root / name, known.classes)) is None:
        used = f"{name} is read from the images in {folder}, as {lacks}"
        return Layout("folder", files, f"{used}; {note}" if note else used)
    note = f"{lacks}, and neither are the images in {folder} ({problem})"
    return Layout(kind, files, note, whole=False)


def _is_whole(file: Path, name: str) -> bool:
    if name not in PICKLED:
        return idx.is_whole(file)
    return file.stat().st_size >= PICKLED[name][file.name]


def _folder_problem(folder: Path, classes: int) -> str | None:
    """What keeps the image folders of a set from being read, as far as can be told without opening one."""
    try:
        listed = [list_images(folder / part, classes) for part in PARTS]
    except OSError as error:
        return str(error)
    problems = [problem for part in listed for problem in part.problems]
    return problems[0] if problems else difference(*(part.classes for part in listed))


def _load_folder(folder: Path, part: str, known: ImageSet, help_: str) -> tuple[Tensor, Tensor]:
    inputs, targets, classes = folders.read_folder(
        folder / part, known.shape, known.classes, decoded_root(), help_
    )
    if part == "test":
        trained = list_classes(folder / "train") if (folder / "train").is_dir() else []
        if differing := difference(trained, classes):
            raise UserError(f"{folder}: {differing}: {help_}")
    return inputs, targets


def _load_pickled(name: str, root: Path, part: str, help_: str) -> tuple[Tensor, Tensor]:
    """CIFAR-10 or CIFAR-100 as its authors pickled it.

    Unpickling runs what a file says, so torchvision first compares the checksums of all batches with the
    published ones.
    """
    from torchvision import datasets  # noqa: PLC0415 - a second of imports that other layouts don't need

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        part_set = kind(str(root), train=part == "train", download=False)
    except (OSError, RuntimeError) as error:
        archive = root / IMAGES[name].archive
        raise UserError(f"{archive} is incomplete or damaged ({error}): {help_}") from error
    return torch.from_numpy(part_set.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part_set.targets)


def load_text(root: Path, least: int) -> Tensor:
    """Tiny Shakespeare as uint8 bytes (N,).

    Raises:
        UserError: The file is missing, empty, or shorter than `least` bytes.
    """
    require_root(root)
    path, help_ = root / TEXT_FILE, remedy("char_lm", root)
    try:
        if not path.exists():
            raise UserError(f"no data for the task char_lm: {path} is missing; {holds(path.parent)}: {help_}")
        if not (path.is_file() or path.is_dir()):  # a pipe may never end; a folder has its own message
            raise UserError(f"{path} is no regular file: {help_}")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}): {help_}") from error
    if len(content) < max(1, least):
        state = "is empty" if not content else f"is too short: {len(content)} bytes of at least {least}"
        raise UserError(f"{path} {state}: {help_}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
