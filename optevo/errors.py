"""The one error that is the user's to mend; everything else is ours and shows its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave us is wrong. The message says what, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
