"""What may come out of a command or a call that was given nonsense: a result, or a message."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Iterator

from optevo.cli import main as cli
from optevo.errors import UserError

HANG_SECONDS = 20


class Hang(BaseException):
    """It took too long."""


class Fault(Exception):
    """Neither a result nor a proper message."""


@contextlib.contextmanager
def limited(seconds: float = HANG_SECONDS) -> Iterator[None]:
    """Raise `Hang` in the main thread after so many seconds."""

    def ring(*_: object) -> None:
        raise Hang(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refused(call: Callable[[], object]) -> bool:
    """Whether `call` ended in a `UserError` that says something; any other exception passes."""
    try:
        call()
    except UserError as error:
        if not str(error).strip():
            raise Fault("a UserError without a message") from error
        return True
    return False


def command(*argv: str) -> tuple[int, str, str]:
    """`optevo ARGV` in this process: exit status, stdout, stderr."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv, status = ["optevo", *argv], 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    if status not in (0, 2) or "Traceback" in err.getvalue() or (status and not err.getvalue().strip()):
        raise Fault(f"optevo {' '.join(argv)}: status {status}, {err.getvalue()[-2000:]!r}")
    for text in (out.getvalue(), err.getvalue()):
        if odd := [c for c in text if c != "\n" and not c.isprintable()]:
            raise Fault(f"optevo {' '.join(argv)} prints {odd[0]!r}")
    return status, out.getvalue(), err.getvalue()
