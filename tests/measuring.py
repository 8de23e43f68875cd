"""Measurements in this process, a storage in memory that stores as a database does, and tasks for both."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage

from optevo.measurement import pool
from optevo.spaces import Candidate
from optevo.tasks.vision import Digits
from optevo.training.bench import Bench


class Memory(InMemoryStorage):
    """In this process, but what is stored comes back as from a database: as JSON."""

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, json.loads(json.dumps(value)))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, json.loads(json.dumps(value)))


class Inline:
    """A pool that works in this process; remembers (candidate, task, seed) and dies after `lives` of them."""

    asked: list[tuple[Candidate, int, int]]
    lives: int

    def __init__(
        self, max_workers: int, mp_context: Any, initializer: Callable[..., None], initargs: Any
    ) -> None:
        pool._here.clear()
        _parent, one, free, data_root = initargs
        device, _ = free.get()
        pool._here.append(Bench(one, device, data_root))

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pool._here.clear()

    def shutdown(self, *_: object, **__: object) -> None:
        pass

    def submit(
        self, function: Callable[..., Any], candidate: Candidate, task: int, *seed: int
    ) -> Future[Any]:
        future: Future[Any] = Future()
        if function is pool.count:
            future.set_result(function(candidate, task))
        elif len(self.asked) >= self.lives:
            future.set_exception(KeyboardInterrupt())
        else:
            self.asked.append((candidate, task, *seed))
            future.set_result(function(candidate, task, *seed))
        return future


class Other(Digits):
    """Another task, with the digits' data."""

    name = "other"


class Untouchable:
    """In a test split's place: whoever reads anything of it fails."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was touched: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was touched: len")


class Guarded(Digits):
    """Digits whose test split is nobody's business."""

    name = "guarded"

    def load(self, root: Path) -> dict[str, Any]:
        return {**super().load(root), "test": Untouchable()}


class Overall(Digits):
    """A task that is called as the mean over tasks is."""

    name = "overall"
