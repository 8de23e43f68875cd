"""Sets of photographs of any size: which files they consist of, and reading them at one resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optevo.errors import UserError
from optevo.tasks import folders
from optevo.tasks.base import Splits
from optevo.tasks.decoded import decode, key_of, read_splits
from optevo.tasks.image_files import SUFFIXES, difference, list_classes, list_images
from optevo.tasks.orders import stratified_order
from optevo.tasks.roots import holds, require_root
from optevo.tasks.sources import PARTS

_CALTECH_TRAIN = 30  # images of each class that train, as is the custom

#: The files of a part with their class numbers.
Files = list[tuple[Path, int]]


@dataclass
class Listed:
    """What there is of a set.

    Attributes:
        place: The folder that was looked at.
        files: Of "train" and "test"; empty where something is wrong.
        problems: What is wrong, as beginnings of sentences.
        notes: What else is to be said.
    """

    place: Path
    files: dict[str, Files] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PhotographSet:
    """A set with a layout of its own.

    Attributes:
        classes: How many.
        archive: Files and folders, below the data root, of the set's own layout: what must be there.
        read: Lists the files of that layout.
        source: Where it is to be had, for messages.
    """

    classes: int
    archive: tuple[str, ...]
    read: Callable[[Path], dict[str, Files]]
    source: str


def _tiny_imagenet(root: Path) -> dict[str, Files]:
    """As its authors pack it. The labels of its test part are not public, so its val part is the test."""
    folder = root / "tiny-imagenet-200"
    found = list_images(folder / "train", 200)
    if found.problems:
        raise UserError(found.problems[0])
    numbers = {name: number for number, name in enumerate(found.classes)}
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    return {
        "train": [(found.folder / path, number) for path, number, _ in found.files],
        "test": [(folder / "val" / "images" / row[0], numbers[row[1]]) for row in rows],
    }


def _matrix(path: Path, key: str) -> Any:
    """A variable of a file of MATLAB's."""
    try:
        from scipy.io import loadmat, matlab  # noqa: PLC0415 - for these sets only
    except ImportError:
        raise UserError(f"{path} needs SciPy, which isn't installed: `pip install scipy`") from None
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[key])
    except (ValueError, TypeError, LookupError, NotImplementedError, matlab.MatReadError) as error:
        raise UserError(f"{path} can't be read ({error})") from error


def _flowers102(root: Path) -> dict[str, Files]:
    """As torchvision has it: the official train and valid parts together, and the test part."""
    folder = root / "flowers-102"
    labels = _matrix(folder / "imagelabels.mat", "labels").astype(int) - 1
    ids = {key: _matrix(folder / "setid.mat", key).astype(int) for key in ("trnid", "valid", "tstid")}
    parts = {"train": [*ids["trnid"], *ids["valid"]], "test": [*ids["tstid"]]}
    return {
        part: [(folder / "jpg" / f"image_{number:05d}.jpg", int(labels[number - 1])) for number in numbers]
        for part, numbers in parts.items()
    }


def _stanford_cars(root: Path) -> dict[str, Files]:
    """As torchvision has it."""
    folder = root / "stanford_cars"
    files = {}
    for part, path in (
        ("train", folder / "devkit" / "cars_train_annos.mat"),
        ("test", folder / "cars_test_annos_withlabels.mat"),
    ):
        rows = _matrix(path, "annotations")
        files[part] = [(folder / f"cars_{part}" / str(row["fname"]), int(row["class"]) - 1) for row in rows]
    return files


def _caltech101(root: Path) -> dict[str, Files]:
    """As torchvision has it, without the background. 30 images of each class train, the others test."""
    folder = root / "caltech101" / "101_ObjectCategories"
    files: dict[str, Files] = {part: [] for part in PARTS}
    names = [name for name in list_classes(folder) if name != "BACKGROUND_Google"]
    for number, name in enumerate(names):
        images = [path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES]
        images.sort(key=_shuffled)
        files["train"] += [(path, number) for path in images[:_CALTECH_TRAIN]]
        files["test"] += [(path, number) for path in images[_CALTECH_TRAIN:]]
    return files


def _shuffled(path: Path) -> bytes:
    """What sorts a class's images into an order without sense that is the same everywhere and for ever."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}".encode(errors="surrogateescape")).digest()


PHOTOGRAPHS = {
    "tiny_imagenet": PhotographSet(
        200,
        (
            "tiny-imagenet-200/train",
            "tiny-imagenet-200/val/images",
            "tiny-imagenet-200/val/val_annotations.txt",
        ),
        _tiny_imagenet,
        "tiny-imagenet-200.zip of Stanford's CS231n, unpacked",
    ),
    "flowers102": PhotographSet(
        102,
        ("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        _flowers102,
        "102flowers.tgz, imagelabels.mat and setid.mat of Oxford's Visual Geometry Group",
    ),
    "stanford_cars": PhotographSet(
        196,
        (
            *("stanford_cars/devkit/cars_train_annos.mat", "stanford_cars/cars_train"),
            *("stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/cars_test"),
        ),
        _stanford_cars,
        "the archives of the Cars196 set, which its authors no longer host",
    ),
    "caltech101": PhotographSet(
        101, ("caltech101/101_ObjectCategories",), _caltech101, "101_ObjectCategories.tar.gz, unpacked"
    ),
}


def listed(name: str, root: Path) -> Listed:
    """What there is of a set: its own layout if it is there, else folders ``<root>/<name>/<part>/<class>/``.

    Raises:
        OSError: A folder can't be read.
    """
    known = PHOTOGRAPHS[name]
    own = [root / path for path in known.archive]
    missing = [path for path in own if not path.exists()]
    by_class = root / name / "train"
    if by_class.is_dir() and missing:
        return _folders(root / name, known.classes)
    found = Listed(root / Path(known.archive[0]).parts[0])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        found.problems.append(
            f"no data for the task {name}: there is neither {missing[0]}{more}, nor {by_class} with a "
            f"folder of images for each class ({holds(found.place if found.place.is_dir() else root)})"
        )
        return found
    try:
        files = known.read(root)
    except (UserError, KeyError, IndexError, ValueError, TypeError) as error:  # damaged
        found.problems.append(f"{found.place} can't be read as {name} ({error})")
        return found
    found.problems = list(_problems(files, known.classes, found.place))
    found.files = {} if found.problems else files
    return found


def _folders(place: Path, classes: int) -> Listed:
    parts = {part: list_images(place / part, classes) for part in PARTS}
    found = Listed(place)
    found.problems = [problem for part in parts.values() for problem in part.problems]
    if not found.problems and (differing := difference(parts["train"].classes, parts["test"].classes)):
        found.problems = [f"{place}: {differing}"]
    found.notes = [note for part in parts.values() for note in part.notes]
    if not found.problems:
        found.files = {
            part: [(one.folder / path, number) for path, number, _ in one.files]
            for part, one in parts.items()
        }
    return found


def _problems(files: dict[str, Files], classes: int, place: Path) -> Iterator[str]:
    for part, of_part in files.items():
        numbers = {number for _, number in of_part}
        if numbers != set(range(classes)):
            yield f"{place} has images of {len(numbers)} classes in its {part} part, not of {classes}"
        absent = [path for path, _ in of_part if not path.is_file()]
        if absent:
            yield f"{len(absent)} of {len(of_part)} images of {part} are missing, such as {absent[0]}"


def remedy(name: str, root: Path) -> str:
    """What a user can do about missing or damaged data, as the end of a message."""
    return (
        f"put {PHOTOGRAPHS[name].source}, at {root / PHOTOGRAPHS[name].archive[0]} and beside it, or images "
        f"in {root / name / 'train' / '<class>'} and {root / name / 'test' / '<class>'}, or point "
        "OPTEVO_DATA or --data-dir at a folder that has them"
    )


def load_photographs(name: str, root: Path, resolution: int) -> Splits:
    """ "train" and "test" of a set, its images cut to squares and resized; decoded once, then mapped.

    Args:
        name: A key of `PHOTOGRAPHS`.
        root: The data root.
        resolution: Pixels of a side.

    Returns:
        uint8 (N, 3, resolution, resolution) and int64 (N,) of each part, on the CPU, in a fixed order. That
        of train is shuffled so that any part of it holds each class in proportion.

    Raises:
        UserError: The set is missing, in part or as a whole, an image is damaged, or the decoded images
            can't be kept.
    """
    require_root(root)
    help_ = remedy(name, root)
    try:
        found = listed(name, root)
        if found.problems:
            raise UserError(f"{found.problems[0]}: {help_}")
        for note in found.notes:
            folders.warn(note)
        files = found.files
        # Train and validation are neighbouring parts of this order, so each is a part of the mapped file.
        order = stratified_order([number for _, number in files["train"]], name)
        files["train"] = [files["train"][place] for place in order]
        paths = [path for part in files.values() for path, _ in part]
        key = key_of(root, ((path, path.stat()) for path in paths))
    except OSError as error:
        raise UserError(f"the data of {name} in {root} can't be read ({error}): {help_}") from error
    labels = {part: [number for _, number in of_part] for part, of_part in files.items()}
    shape = 3, resolution, resolution
    return read_splits(name, key, labels, shape, lambda: decode(paths, shape, help_))[0]
