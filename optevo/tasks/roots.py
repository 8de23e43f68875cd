"""Where data sets lie, and what is decoded of them. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path

from optevo.errors import UserError
from optevo.escaping import printable

#: The data root where there is none, for commands that may not need one. It can't come to be.
NOWHERE = Path(os.devnull) / "no-OPTEVO_DATA-and-no-home-folder"
_REMEDY = "set OPTEVO_DATA (or --data-dir) to where data sets lie, and OPTEVO_CACHE to where decoded ones may"


def data_root(explicit: Path | str | None = None, *, needed: bool = True) -> Path:
    """The folder that holds the data sets: the argument, else $OPTEVO_DATA, else one in the user's cache.

    The last is ``$XDG_CACHE_HOME/optevo/data``, by default ``~/.cache/optevo/data``. It need not exist yet.

    Args:
        explicit: What the user asked for. Default: None.
        needed: Whether it is an error if none of these is there, as for a user without a home. Otherwise
            `NOWHERE` is returned, which `require_root` refuses once a data set is asked for. Default: True.

    Raises:
        UserError: The user has no home folder, and it is needed.
    """
    if explicit is not None:
        return _expanded(Path(explicit))
    try:
        chosen = os.environ.get("OPTEVO_DATA")
        return _expanded(Path(chosen)) if chosen else _user_cache() / "data"
    except UserError:
        if needed:
            raise
        return NOWHERE


def require_root(root: Path) -> None:
    """Refuse `NOWHERE`.

    Raises:
        UserError: `root` is it.
    """
    if root == NOWHERE:
        raise UserError(f"there is no data root, as there is no home folder: {_REMEDY}")


def decoded_root() -> Path:
    """Where decoded images are kept: ``$OPTEVO_CACHE/decoded``, else ``decoded`` in the user's cache.

    Raises:
        UserError: The user has no home folder, and OPTEVO_CACHE is not set.
    """
    chosen = os.environ.get("OPTEVO_CACHE")
    return (_expanded(Path(chosen)) if chosen else _user_cache()) / "decoded"


def find(path: str, root: Path, what: str) -> Path:
    """Where a user's own data lie: a relative path below the data root, else below the current folder.

    So the same study file finds them on every machine, whose `--data-dir` says where.

    Args:
        path: As the study file has it.
        root: The data root.
        what: Whose data, for messages.

    Raises:
        UserError: There is nothing at any of these places.
    """
    relative = _expanded(Path(path))
    places = [relative] if relative.is_absolute() else [root / relative, Path.cwd() / relative]
    try:
        for place in places:
            if place.exists():
                return place.absolute()
        near = "; ".join(dict.fromkeys(holds(place.parent) for place in places))
    except (OSError, ValueError) as error:  # no right to look, a null byte
        raise UserError(f"{what}: {path!r} can't be looked for ({error})") from error
    raise UserError(
        f"{what}: there is no {' and no '.join(map(str, places))} ({near}); correct its path, which begins "
        "in the folder of --data-dir or OPTEVO_DATA, or in the current one"
    )


def holds(folder: Path) -> str:
    """What lies in a folder, as the end of a sentence, for messages about what doesn't.

    Raises:
        OSError: The folder can't be read.
    """
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(
        f"{entry.name}{' (a folder)' * entry.is_dir()}"
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
    )
    listed = ", ".join(map(printable, names[:12])) + ", …" * (len(names) > 12)
    return f"{folder} has {listed or 'nothing in it'}"


def _user_cache() -> Path:
    return _expanded(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "optevo"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # neither HOME nor an account, as in many containers; or "~nobody"
        raise UserError(f"there is no home folder for {path} ({error}): {_REMEDY}") from None
