"""The study files that come with optevo: those of `studies/`, beside the code or inside the package."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from optevo.naming import nearest

_PACKAGE = Path(__file__).parents[1]


@functools.cache
def studies() -> dict[str, Path]:
    """The files by name, their path in the folder without suffix: ``quickstart``, ``fair/evolved``."""
    # A wheel has the folder inside, a checkout beside the package.
    folders = (_PACKAGE / "studies", _PACKAGE.parent / "studies")
    folder = next((one for one in folders if (one / "quickstart.toml").is_file()), _PACKAGE)
    files = sorted(folder.rglob("*.toml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_study(path: Path) -> Path:
    """`path`, or where there is no such file, the study that comes with optevo under this name."""
    return path if os.path.exists(path) else studies().get(path.as_posix(), path)


def explain_missing(path: Path) -> str:
    """What to say of a study file that is not there: what comes with optevo under a name like it."""
    there = studies()
    found = next((name for name in _tails(path) if name in there), None) or nearest(path.as_posix(), there)
    if found is not None:
        return f"did you mean {found!r}, a study that comes with optevo?"
    return f"studies that come with optevo are {', '.join(name for name in there if '/' not in name)}"


def _tails(path: Path) -> Iterator[str]:
    """What a path ends in, the longest first, without its suffix."""
    parts = Path(str(path).removesuffix(".toml")).parts
    for start in range(len(parts)):
        yield "/".join(parts[start:])
