"""What ends a trial that is not its candidate's fault."""

from __future__ import annotations

from optevo.errors import UserError


class Interrupted(Exception):
    """The worker was asked to stop; the trial's slot is to be evaluated again."""


def machines_fault(error: BaseException) -> bool:
    """Whether another attempt may do better, on this machine or another."""
    if isinstance(error, (Interrupted, UserError, MemoryError, OSError)):
        return True
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be here
        return True
    words = ("allocate memory", "CUDA", "CUBLAS", "CUDNN")  # torch has no classes for these
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
