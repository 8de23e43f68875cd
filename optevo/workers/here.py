"""A search in the process that asked for it, where a task lives in no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from optevo.workers.supervisor import Progress, display
from optevo.workers.worker import Stopped, work


def work_here(
    storage_url: str,
    name: str,
    console: Console,
    progress: Progress,
    *,
    device: str,
    data_root: Path,
    limit: int | None = None,
    stages: bool = False,
    tend: Callable[[], None] = lambda: None,
) -> bool:
    """Be the one worker of a study, and show how it stands.

    Args:
        storage_url: Where the study lies.
        name: Its name.
        console: Where to print.
        progress: What to show.
        device: Where to train.
        data_root: Where data sets lie.
        limit: As of `work`. Default: None.
        stages: As of `work`. Default: False.
        tend: Called after each trial, when the progress has been shown. Default: nothing.

    Returns:
        Whether a stop was requested.

    Raises:
        UserError: See `work`.
        TaskBrokenError: See `work`.
    """
    with threads_kept(), display(console, progress) as show:

        def after() -> None:
            show()
            tend()

        try:
            work(
                storage_url,
                name,
                device=device,
                data_root=data_root,
                parent=None,
                limit=limit,
                stages=stages,
                after=after,
            )
        except Stopped:
            return True
        finally:
            show()
    return False


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """A worker computes with one thread; afterwards torch has as many as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
