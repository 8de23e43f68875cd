"""Errors that are told in a message; everything else is ours and shows its traceback."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

# Where no line is a user's: optevo, the standard library, and what is imported from nowhere.
_OTHERS = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), "<")


class UserError(Exception):
    """Something the user gave us is wrong. The message says what, where, and what to do.

    The command line prints it without a traceback and exits with status 2.

    Example:
        >>> import optevo
        >>> try:
        ...     optevo.search(tasks="digit")
        ... except optevo.UserError as error:
        ...     print(error)
        optevo.search(): evaluation.tasks.0.name = "digit": unknown task 'digit': did you mean 'digits'?
    """

    def __init__(self, message: str) -> None:
        # A file's name that is no UTF-8 comes with lone surrogates, which nothing can print.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class RunFailed(Exception):
    """The workers could not complete a search, and what they said of it has been printed. Status 1."""


def told(error: BaseException) -> str:
    """An exception in a line: what it is, and where its author may look."""
    said = f"{type(error).__name__}: {error}".strip().splitlines()
    text = f"{said[0]} …" if len(said) > 1 else said[0].removesuffix(":")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(_OTHERS)]
    if isinstance(error, SyntaxError) or not theirs:
        return text  # it names the line itself
    return f"{text} ({theirs[-1].filename}, line {theirs[-1].lineno})"
