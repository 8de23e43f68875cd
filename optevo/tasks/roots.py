"""Where data sets lie, and what is decoded of them. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(explicit: Path | str | None = None) -> Path:
    """The folder that holds the data sets: the argument, else $OPTEVO_DATA, else one in the user's cache.

    The last is ``$XDG_CACHE_HOME/optevo/data``, by default ``~/.cache/optevo/data``. It need not exist yet.
    """
    if explicit is None and not os.environ.get("OPTEVO_DATA"):
        return _user_cache() / "data"
    return Path(explicit if explicit is not None else os.environ["OPTEVO_DATA"]).expanduser()


def decoded_root() -> Path:
    """Where decoded images are kept: ``$OPTEVO_CACHE/decoded``, else ``decoded`` in the user's cache."""
    chosen = os.environ.get("OPTEVO_CACHE")
    return (Path(chosen).expanduser() if chosen else _user_cache()) / "decoded"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "optevo"
