"""What to say of a name that nobody knows: the nearest one that is known."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

V = TypeVar("V")
_SHORTEST = 3  # characters of a name that may shorten another
_LONGEST = 100  # characters of a name that is compared; the cost grows with the square


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` shortens, or else is most like, whatever its case; None where none is."""
    if not isinstance(name, str) or len(name) > _LONGEST:
        return None
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    asked = name.casefold()
    longer = [one for one in folded if asked != one and _shortens(asked, one)]
    found = [asked] if asked in folded else longer if len(longer) == 1 else []
    found = found or difflib.get_close_matches(asked, folded, n=1)
    return folded[found[0]] if found else None


def _shortens(name: str, other: str) -> bool:
    """Whether `other` has as many words, and each begins with one of `name`: pop_size, population_size."""
    words, whole = name.split("_"), other.split("_")
    return len(name) >= _SHORTEST and len(words) == len(whole) and all(map(str.startswith, whole, words))


def hint(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a message about a name that is unknown: ``did you mean 'adamw'?``

    Args:
        name: The name.
        known: Those that are known.
        otherwise: What to say where none is near. Default: None, all that are known.
    """
    known = list(known)
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"expected one of {', '.join(known)}" if otherwise is None else otherwise


class Registry(dict[str, V]):
    """Things by name; a KeyError says what kind of thing is unknown, and the nearest name.

    Args:
        kind: What they are, for messages.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: object) -> V:
        raise KeyError(f"unknown {self.kind} {name!r}: {hint(name, self)}")


def explain_keywords(cls: type[V]) -> type[V]:
    """Class decorator: the TypeError for an unknown keyword argument says the nearest known one."""
    made: Any = cls
    init = made.__init__
    known = [*inspect.signature(init).parameters][1:]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                said = f"got an unexpected keyword argument {name!r}: {hint(name, known)}"
                raise TypeError(f"{cls.__name__}() {said}")
        init(self, *args, **kwargs)

    made.__init__ = __init__
    return cls
