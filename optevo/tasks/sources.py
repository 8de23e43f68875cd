"""Where the data sets lie on disk, and reading them whatever their layout."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks import folders, idx
from optevo.tasks.roots import decoded_root

TEXT_FILE = Path("tinyshakespeare") / "input.txt"
#: What torchvision calls the official parts in the names of idx files.
IDX_PREFIX = {"train": "train", "test": "t10k"}


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
    known, help_ = IMAGES[name], remedy(name, root)
    try:
        layout = layout_of(name, root)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise UserError(f"{root} can't be read ({error}): {help_}") from error
    if layout == "idx":
        prefix = root / known.archive / IDX_PREFIX[part]
        return idx.read_labelled(
            Path(f"{prefix}-images-idx3-ubyte"),
            Path(f"{prefix}-labels-idx1-ubyte"),
            known.shape,
            known.classes,
            help_,
        )
    if layout == "pickled":
        return _load_cifar10(root, part, help_)
    if layout == "folder":
        inputs, targets, classes = folders.read_folder(
            root / name / part, known.shape, known.classes, decoded_root(), help_
        )
        if part == "test":
            trained = folders.list_classes(root / name / "train", known.classes, help_)
            if trained != classes:
                raise UserError(
                    f"{root / name}: the classes of train ({trained}) and test ({classes}) differ: {help_}"
                )
        return inputs, targets
    raise UserError(
        f"no data for the task {name}: there is neither {root / known.archive} nor {root / name / 'train'}: "
        f"{help_}"
    )


def layout_of(name: str, root: Path) -> str | None:
    """Which layout of a set is there: "idx", "pickled", "folder", or None."""
    archive = root / IMAGES[name].archive
    if name == "cifar10" and archive.is_dir():
        return "pickled"
    # An empty folder, such as a failed download leaves, is not yet a layout.
    if name != "cifar10" and any(archive.glob("*-ubyte*")):
        return "idx"
    return "folder" if (root / name / "train").is_dir() or (root / name / "test").is_dir() else None


def _load_cifar10(root: Path, part: str, help_: str) -> tuple[Tensor, Tensor]:
    """CIFAR-10 as its authors pickled it.

    Unpickling runs what a file says, so torchvision first compares the checksums of all batches with the
    published ones.
    """
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - a second of imports that other layouts don't need

    try:
        part_set = CIFAR10(str(root), train=part == "train", download=False)
    except (OSError, RuntimeError) as error:
        archive = root / IMAGES["cifar10"].archive
        raise UserError(f"{archive} is incomplete or damaged ({error}): {help_}") from error
    return torch.from_numpy(part_set.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part_set.targets)


def load_text(root: Path, least: int) -> Tensor:
    """Tiny Shakespeare as uint8 bytes (N,).

    Raises:
        UserError: The file is missing, empty, or shorter than `least` bytes.
    """
    path, help_ = root / TEXT_FILE, remedy("char_lm", root)
    try:
        if not path.exists():
            raise UserError(f"no data for the task char_lm: {path} is missing: {help_}")
        if not (path.is_file() or path.is_dir()):  # a pipe may never end; a folder has its own message
            raise UserError(f"{path} is no regular file: {help_}")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}): {help_}") from error
    if len(content) < max(1, least):
        state = "is empty" if not content else f"is too short: {len(content)} bytes of at least {least}"
        raise UserError(f"{path} {state}: {help_}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
