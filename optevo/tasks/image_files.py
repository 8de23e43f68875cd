"""Which files of a folder are a data set's images: the one list that reading, keeping and `data check` use.

A part of a data set is a folder with one folder a class; classes are numbered in the order of their names'
bytes, as torchvision's ImageFolder does for most names. Within a class, folders are followed to any depth.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optevo.escaping import printable
from optevo.tasks.roots import holds

#: Pillow's names of the formats that are read, and the names of files that are taken for one. Each holds
#: 8-bit pixels that Pillow gives back exactly, or says how many bits it holds; none runs a program (as
#: PostScript does). What a file is, its content says: a PNG may be called .jpg.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_READ = ", ".join(suffixes[0] for suffixes in FORMATS.values())
#: What systems and archivers leave in folders; all that begins with a dot is hidden too ("._cat.png").
_HIDDEN = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"),
    "system volume information",
}
_SHOWN = 12  # names that a message lists


def file_identity(path: str | Path, status: os.stat_result) -> bytes:
    """What tells a file from one that took its place: path, size, times of change and inode."""
    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return b"\0%b\0%b" % (os.fsencode(path), times.encode())


@dataclass
class ImageFiles:
    """What was found in one part of a data set.

    Attributes:
        folder: The part.
        classes: The names of the classes' folders, by their numbers.
        files: Each image, in order: its path below `folder`, the number of its class, and its status.
        problems: What keeps the part from being read, each as the beginning of a sentence that ends with a
            remedy. Empty where nothing does.
        left_out: How many files of each kind are no images of this part, and the first of them.
        alike: Names of classes that look the same or nearly.
    """

    folder: Path
    classes: list[str] = field(default_factory=list)
    files: list[tuple[str, int, os.stat_result]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)
    alike: str = ""

    @property
    def notes(self) -> list[str]:
        """Lines for who reads the part: what was left out and why, and which classes look alike."""
        lines = []
        if self.left_out:
            kinds = sorted(self.left_out.items(), key=lambda kind: -kind[1][0])
            listed = [
                f"{count} {printable(kind)}, such as {printable(one)}"
                for kind, (count, one) in kinds[:_SHOWN]
            ]
            total = sum(count for count, _ in self.left_out.values())
            lines.append(
                f"{printable(str(self.folder))}: left out {total} file{'s' * (total > 1)}, as only {_READ} "
                f"files in a class's folder are read: {'; '.join(listed)}"
            )
        if self.alike:
            lines.append(f"{printable(str(self.folder))}: {self.alike}")
        return lines

    def leave_out(self, path: str) -> None:
        """Count a file, by its path below `folder`, that is no image of this part."""
        suffix = os.path.splitext(path)[1].lower()
        kind = "in no class's folder" if suffix in SUFFIXES else suffix or "without a suffix"
        count, one = self.left_out.get(kind, (0, path))
        self.left_out[kind] = (count + 1, min(one, path))


def list_classes(folder: Path) -> list[str]:
    """The names of a part's classes by their numbers.

    Raises:
        OSError: There is no such folder, or it can't be read.
    """
    return _entries(folder)[0]


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The classes of a part, and what lies beside them; both in order."""
    with os.scandir(folder) as entries:
        seen = sorted(
            ((entry.name, entry.is_dir()) for entry in entries if not _hidden(entry.name)),
            key=lambda entry: os.fsencode(entry[0]),
        )
    return [name for name, is_dir in seen if is_dir], [name for name, is_dir in seen if not is_dir]


def list_images(folder: Path, classes: int | None) -> ImageFiles:
    """The images of a part, which must have so many classes; None is for two or more.

    Links are followed, wherever they lead: only what decodes as an image is ever kept of a file. Nothing is
    opened; what is wrong with what was found is in `ImageFiles.problems`.

    Raises:
        OSError: A folder or the status of an image can't be read, as with a link to nowhere or in a circle.
    """
    found = ImageFiles(folder)
    if not folder.is_dir():
        found.problems.append(f"the folder {folder} is missing; {holds(folder.parent)}")
        return found
    found.classes, loose = _entries(folder)
    for name in loose:
        found.leave_out(name)
    found.alike = look_alikes(found.classes)
    if len(found.classes) < 2 if classes is None else len(found.classes) != classes:
        listed = ", ".join(map(printable, found.classes[:_SHOWN])) or "none"
        alike = f"; {found.alike}" if found.alike else ""
        wanted = classes or "two or more"
        found.problems.append(
            f"{folder} has {len(found.classes)} class folders ({listed}), not {wanted}{alike}"
        )
    for number, name in enumerate(found.classes):
        images = sorted(_walk(found, name), key=lambda image: os.fsencode(image[0]))
        if not images:
            others = "".join(f"; {line}" for line in found.notes)
            found.problems.append(f"{folder / name} has no {_READ} files{others}")
        for path, status in images:
            if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
                found.problems.append(f"{folder / path} is no regular file")
            elif not status.st_size:
                found.problems.append(f"{folder / path} is empty (0 bytes), so it can't be decoded")
        found.files += [(path, number, status) for path, status in images]
    return found


def _walk(found: ImageFiles, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """The images of one class with their paths below the part, in no order."""
    root = found.folder
    waiting = [(name, frozenset([_identity(os.stat(root))]))]
    while waiting:
        path, above = waiting.pop()
        here = _identity(os.stat(root / path))
        if here in above:
            raise OSError(f"{root / path} is a link that leads back to a folder that it lies in")
        with os.scandir(root / path) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}"
                if _hidden(entry.name):
                    continue
                if entry.name.lower().endswith(SUFFIXES):
                    yield below, entry.stat()
                elif entry.is_dir():
                    waiting.append((below, above | {here}))
                else:
                    found.leave_out(below)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def difference(train: Sequence[str], test: Sequence[str], *, name: str = "test") -> str | None:
    """How the classes of train and another part differ, as the middle of a sentence; None if they don't."""
    if train == test:
        return None
    only = [sorted({*one} - {*other}, key=os.fsencode) for one, other in ((train, test), (test, train))]
    listed = [f"only there: {', '.join(map(ascii, names[:_SHOWN])) or 'none'}" for names in only]
    alike = look_alikes([*only[0], *only[1]])
    return f"the classes of train ({listed[0]}) and {name} ({listed[1]}) differ{'; ' * bool(alike)}{alike}"


def look_alikes(names: Sequence[str]) -> str:
    """Which of these different names differ by Unicode's normal form or by case alone; "" where none do."""
    seen: dict[str, str] = {}
    lines = []
    for name in names:
        plain = unicodedata.normalize("NFC", name)
        other = seen.setdefault(unicodedata.normalize("NFC", plain.casefold()), name)
        if other != name:
            how = "Unicode's normal form" if unicodedata.normalize("NFC", other) == plain else "case"
            lines.append(f"{other!a} and {name!a} differ in {how} alone")
    return "; ".join(lines[:_SHOWN])
