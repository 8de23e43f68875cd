"""What a database holds that optevo did not write: an error that names it and says what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from optevo.errors import UserError
from optevo.escaping import printable

T = TypeVar("T")
Shapes = Mapping[str, TypeAdapter[Any]]

_NONE: Shapes = {}
REMEDY = "the database is damaged or was changed by another program: use a copy of it from before that"
# What Optuna raises, besides its driver's own errors, on rows that it didn't write.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError),
    ArithmeticError,  # of a time beyond the calendar
)


def readable(what: str, read: Callable[[], T]) -> T:
    """What `read` returns.

    Raises:
        UserError: Optuna can't make sense of the rows; `what` is what the message calls them.
    """
    try:
        return read()
    except _UNREADABLE as error:
        said = printable(f"{type(error).__name__}: {error}"[:200])
        raise UserError(f"{what} can't be read ({said}); {REMEDY}") from None


def check_shapes(where: str, found: Mapping[str, Any], shapes: Shapes, beginnings: Shapes = _NONE) -> None:
    """Refuse values of another shape than their name has, or the beginning of it, if either has one."""
    check_names(where, found)
    for key, value in found.items():
        shape = shapes.get(key)
        if shape is None:
            shape = next((one for beginning, one in beginnings.items() if key.startswith(beginning)), None)
        if shape is not None:
            check_shape(where, key, value, shape)


def check_shape(where: str, key: str, value: Any, shape: TypeAdapter[Any]) -> None:
    """Refuse a value of another shape, with the place in it."""
    try:
        shape.validator.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = printable(f"{repr(first['input'])[:80]}, {first['msg'][:80]}")
        raise UserError(f"{where}: {key!r} is wrong{place and f' at {place}'}: {said}; {REMEDY}") from None


def need(where: str, found: Mapping[str, Any], *names: str) -> None:
    """Refuse a lack of any of the names."""
    for name in itertools.filterfalse(found.__contains__, names):
        raise UserError(f"{where}: {name!r} is missing; {REMEDY}")


def refuse(where: str, key: str, expected: str, value: Any) -> NoReturn:
    """Tell of a value that is not what was expected."""
    raise UserError(f"{where}: {key!r} is {printable(repr(value)[:80])}, expected {expected}; {REMEDY}")


def check_names(where: str, found: Mapping[str, Any]) -> None:
    """Refuse names that are no text."""
    for key in found:
        if type(key) is not str:  # SQLite keeps any type in any column
            raise UserError(f"{where}: an attribute is called {printable(repr(key)[:80])}; {REMEDY}")
