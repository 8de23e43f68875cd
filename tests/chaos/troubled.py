"""A task that makes trouble for its process, and trains as digits does all the same."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from optevo.errors import UserError
from optevo.tasks.vision import Digits

FORKS, EXITS = 0.3, 0.1  # of the runs
STATUSES = (0, 2, 70, 143, 3)  # what a worker says that is done, refuses, gives up or stops; and any other
# An exit while the best are measured costs the command one of its three attempts.
EXITS_WHEN_MEASURING = 1


class Troubled(Digits):
    """Digits; where the environment's `CHAOS_TROUBLE` names a file, it forks or exits now and then.

    When, no seed says: nothing that comes out may depend on it. Each deed is noted there by a word.
    """

    name = "troubled"

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(os.urandom(8))
        self.due: list[str] = []

    def model(self, generator: Any) -> nn.Module:
        """As that of digits; decides on the run's trouble."""
        self.due = []
        if os.environ.get("CHAOS_TROUBLE") and (
            _measures() or "worker" in sys.argv
        ):  # else the command's own
            chance = self.rng.random()
            self.due = ["fork"] * (chance < FORKS) or ["exit"] * (chance < FORKS + EXITS)
        return super().model(generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """As that of digits."""
        if self.due and self.rng.random() < 0.1:
            self._make(self.due.pop())
        return super().loss(model, batch)

    def score(self, model: nn.Module, split: Any) -> float:
        """As that of digits."""
        while self.due:
            self._make(self.due.pop())
        return super().score(model, split)

    def _make(self, trouble: str) -> None:
        notes = Path(os.environ["CHAOS_TROUBLE"])
        measures = _measures()
        if trouble == "exit":
            word = "exit-measuring" if measures else "exit"
            if not measures or notes.read_text().count(word) < EXITS_WHEN_MEASURING:
                _note(notes, word)
                os._exit(self.rng.choice(STATUSES))
            return
        way = self.rng.randrange(7)
        if (child := os.fork()) == 0:
            _leave(way)
            return  # as if it were its parent
        _note(notes, "fork")
        os.waitpid(child, 0)


def _measures() -> bool:
    """Whether this is a process of the pool that measures on fresh seeds."""
    return multiprocessing.parent_process() is not None


def _note(notes: Path, word: str) -> None:
    with notes.open("a") as stream:
        stream.write(f"{word}\n")


def _leave(way: int) -> None:
    if way == 0:
        sys.exit()
    if way == 1:
        sys.exit(2)
    if way == 2:
        raise RuntimeError("of a child")
    if way == 3:
        raise UserError("of a child")
    if way == 4:
        raise asyncio.CancelledError
    if way == 5:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
