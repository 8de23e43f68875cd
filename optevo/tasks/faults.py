"""What is wrong with a user's task, told in a message. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from optevo.errors import UserError, told

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def users_code(what: str, owner: object, hint: Callable[[], str] = str) -> Iterator[None]:
    """What a user's code raises within is told in a message; the traceback goes to the log, for debugging.

    What the code of a class or module of optevo's own raises passes, with its traceback.

    Args:
        what: Who runs, such as "task 'rings': load()".
        owner: Whose method runs: an instance of a user's class, or their module's name.
        hint: What to do, or what it was given; called where something was raised. Default: nothing.

    Raises:
        UserError: Something was raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if not is_users(owner):
            raise
        logger.debug("%s raised", what, exc_info=True)
        said = f": {error}" if isinstance(error, UserError) else f" raised {told(error)}"
        raise UserError(f"{what}{said}{hint()}") from error


def is_users(owner: object) -> bool:
    """Whether an instance of a class, or a module of that name, is not optevo's."""
    name = owner if isinstance(owner, str) else type(owner).__module__
    return name.partition(".")[0] != "optevo"


def users_number(what: str, value: object) -> float:
    """A number of Python's, NumPy's or torch's as a float, which may be infinite or NaN.

    Args:
        what: Who returned it, such as "task 'rings': score()".
        value: What was returned.

    Raises:
        UserError: It is no number.
    """
    try:
        if not isinstance(value, (str, bytes, bytearray)):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    said = repr(value)
    shown = said if len(said) <= 60 else f"{said[:60]}…"
    raise UserError(f"{what} returned {shown}, of type {type(value).__name__}: it must return one number")
