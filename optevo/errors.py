"""Errors that are told in a message; everything else is ours and shows its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave us is wrong. The message says what, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        # A file's name that is no UTF-8 comes with lone surrogates, which nothing can print.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class RunFailed(Exception):
    """The workers could not complete a search, and what they said of it has been printed. Status 1."""
