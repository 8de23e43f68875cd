"""Folders of images as a user has them: listed, and of identical files one is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optevo.errors import UserError
from optevo.tasks.decoded import Shape, decode, key_of
from optevo.tasks.folders import warn
from optevo.tasks.image_files import ImageFiles, difference, list_classes, list_images
from optevo.tasks.mapped import Block
from optevo.tasks.own.options import Shares
from optevo.tasks.roots import decoded_root

#: What the folders of the parts may be called.
PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_SHOWN = 12  # faults that a message lists


@dataclass(frozen=True)
class Source:
    """A set of images that has been listed.

    Attributes:
        labels: Class numbers of train, validation and test, in the order in which `blocks` decodes.
        classes: Names of the classes.
        key: Tells these files and this order from all others.
        channels: What the images have by themselves.
        size: Pixels of a side that they have by themselves.
        blocks: Decodes all images to (channels, height, width).
    """

    labels: Mapping[str, list[int]]
    classes: list[str]
    key: str
    channels: int
    size: int
    blocks: Callable[[Shape], Iterator[Block]]


def folder_source(place: Path, shares: Shares, remedy: str) -> Source:
    """A folder with a folder a class, or with such a folder for train, validation and test.

    What has no folder of its own is drawn from train. Of identical files one is read.

    Raises:
        UserError: The folder can't be read or has another form.
    """
    try:
        while len(inner := list_classes(place)) == 1 and list_classes(place / inner[0]):
            place /= inner[0]  # as archives are unpacked
        given = _parts(place)
        listed = {name: list_images(folder, None) for name, folder in given.items()}
        _check(listed, remedy)
        files = _without_copies(place, listed)
        _check_left(files, listed, remedy)
    except OSError as error:
        raise UserError(f"{place} can't be read ({error}): {remedy}") from error
    missing = [name for name in ("validation", "test") if name not in files]
    drawn = shares.draw([number for _, number, _ in files["train"]], missing)
    train = files["train"]
    files |= {name: [train[i] for i in chosen] for name, chosen in drawn.items()}
    ordered = [one for name in PARTS for one in files[name]]
    return Source(
        labels={name: [number for _, number, _ in files[name]] for name in PARTS},
        classes=listed["train"].classes,
        key=key_of(place, ((path, status) for path, _, status in ordered)),
        channels=3,
        size=64,
        blocks=lambda shape: decode([path for path, _, _ in ordered], shape, remedy),
    )


File = tuple[Path, int, os.stat_result]


def _parts(place: Path) -> dict[str, Path]:
    """The folder of each part that has one; of train alone where the folders are classes."""
    inner = list_classes(place)
    known = {alias: name for name, aliases in PARTS.items() for alias in aliases}
    if "train" not in inner or not known.keys() >= {*inner}:
        return {"train": place}
    given = {known[alias]: place / alias for alias in inner}
    if len(given) < len(inner):
        raise OSError(f"of {', '.join(inner)} two are one part")
    return given


def _check(listed: Mapping[str, ImageFiles], remedy: str) -> None:
    problems = [problem for found in listed.values() for problem in found.problems]
    if not problems:
        classes = listed["train"].classes
        differing = (difference(classes, found.classes, name=name) for name, found in listed.items())
        problems = [f"{listed['train'].folder.parent}: {said}" for said in differing if said]
    if problems:
        more = [f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError("\n".join([*problems[:_SHOWN], *more]) + f": {remedy}")
    for found in listed.values():
        for note in found.notes:
            warn(note)


def _check_left(files: Mapping[str, list[File]], listed: Mapping[str, ImageFiles], remedy: str) -> None:
    """Refuse a class of which copies left nothing."""
    for name, found in listed.items():
        if gone := {*range(len(found.classes))} - {number for _, number, _ in files[name]}:
            folder = found.folder / found.classes[min(gone)]
            raise UserError(
                f"{folder} has no image that isn't in another class or part too, so none of its own: {remedy}"
            )


def _without_copies(place: Path, listed: Mapping[str, ImageFiles]) -> dict[str, list[File]]:
    """The files of each part, of identical ones only the first: in test before validation before train.

    Where identical files are of different classes nobody knows which is right, and none is kept.
    """
    files = {
        name: [(listed[name].folder / path, number, status) for path, number, status in listed[name].files]
        for name in reversed(PARTS)
        if name in listed
    }
    every = [one for part in files.values() for one in part]
    key = key_of(place, ((path, status) for path, _, status in every))
    dropped, notes = _copies(every, decoded_root() / f"{place.name[:40]}-{key[:32]}.copies")
    for note in notes:
        warn(note)
    return {name: [one for one in part if str(one[0]) not in dropped] for name, part in files.items()}


def _copies(files: list[File], kept: Path) -> tuple[set[str], list[str]]:
    """Paths of what is not read, and why; from a file, where these files have been looked at before."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        stored = json.loads(kept.read_text("ascii"))
        return {*stored["dropped"]}, stored["notes"]
    sizes = Counter(status.st_size for _, _, status in files)
    alike, pairs = dict[bytes, list[File]](), dict[str, list[str]]()
    for one in files:
        if sizes[one[2].st_size] > 1:
            with one[0].open("rb") as content:
                alike.setdefault(hashlib.file_digest(content, "sha256").digest(), []).append(one)
    dropped: list[str] = []
    for group in (group for group in alike.values() if len(group) > 1):
        unclear = len({number for _, number, _ in group}) > 1
        dropped += [str(path) for path, _, _ in group[0 if unclear else 1 :]]
        kind = (
            "one image in several classes: none of them is" if unclear else "one image: only one of each is"
        )
        pairs.setdefault(kind, []).append(" and ".join(str(path) for path, _, _ in group[:2]))
    notes = [
        f"{len(found)} times there are identical files, such as {found[0]}. They are {kind} read"
        for kind, found in pairs.items()
    ]
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"dropped": dropped, "notes": notes}), "ascii")
        beside.replace(kept)
    return {*dropped}, notes
