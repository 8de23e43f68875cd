"""Candidates trained outside a search, in processes of their own: each run is kept as soon as it is done."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optevo.errors import RunFailed, UserError
from optevo.escaping import tolerate_any_text
from optevo.liveness.processes import (
    STOPS,
    OwnProcess,
    install,
    release_signals,
    signals_held,
    when_orphaned,
)
from optevo.optim.candidate import Candidate
from optevo.training.base import Operations
from optevo.training.benches import BaseBench, make_worker_bench
from optevo.training.run import Run, as_stored, read_run

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import SimpleQueue

    import optuna

    from optevo.study.config import StudyConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LEAVE_SECONDS = 60.0  # for processes to end whose work is done; some may still be starting


def form_of(candidate: Candidate) -> str:
    """A candidate's name in attributes: a digest of its canonical form."""
    return hashlib.sha256(candidate.canonical().encode()).hexdigest()[:12]


def run_key(prefix: str, form: str, task: int, seed: int) -> str:
    """The study attribute that keeps a run of the candidate `form`; `task` is its index in the study."""
    return f"{prefix}{form}:{task}:{seed}"


def kept_runs(
    study: optuna.Study, prefix: str, form: str, n_tasks: int, seeds: Sequence[int]
) -> tuple[Run, ...] | None:
    """What is stored of the candidate `form`, task by task, seed by seed; None while a run is missing."""
    stored = study.user_attrs
    wanted = [run_key(prefix, form, task, seed) for task in range(n_tasks) for seed in seeds]
    if any(key not in stored for key in wanted):
        return None
    return tuple(read_run(stored[key]) for key in wanted)


class Measurer:
    """Trains in parallel what the study has not stored yet.

    Args:
        study: Where each run is kept, as an attribute of its own.
        config: What is trained on, and with which budget.
        pool: Of `processes`, for the same configuration.
        prefix: What the attributes' names begin with; runs of another budget have another one.
        progress: Called with the number of runs done so far, those of earlier calls of the program included.
        form: The candidates' name in attributes, where there is one of them. Default: None, see `form_of`.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        pool: Executor,
        prefix: str,
        progress: Callable[[int], None] = lambda done: None,
        *,
        form: str | None = None,
    ) -> None:
        self.study, self.config, self.pool, self.prefix, self.progress = study, config, pool, prefix, progress
        self.form = form
        self.done = 0

    def measure(
        self, candidates: Mapping[str, Candidate], seeds: Sequence[int]
    ) -> dict[str, tuple[Run, ...]]:
        """Every task with each of the seeds, task by task, by the candidate's name."""
        n_tasks = len(self.config.evaluation.tasks)
        stored = self.study.user_attrs
        forms = {name: self.form or form_of(candidate) for name, candidate in candidates.items()}
        jobs: dict[str, Future[Run]] = {}
        # Seed by seed, so that what is there after a kill can be compared.
        for seed in seeds:
            for name, candidate in candidates.items():
                for task in range(n_tasks):
                    key = run_key(self.prefix, forms[name], task, seed)
                    if key in stored:
                        self.done += 1
                    elif key not in jobs:  # else two candidates are the same optimizer
                        with spawning():  # a process that starts meanwhile is the pool's, or isn't
                            jobs[key] = self.pool.submit(train, candidate, task, seed)
        keys = {future: key for key, future in jobs.items()}
        for future in as_completed(keys):
            error = future.exception()
            if error is not None:
                for key, other in jobs.items():  # what is done is done
                    if other.done() and other.exception() is None:
                        self._store(key, other.result())
                # A task's sys.exit is one of its faults: it does not end this process.
                if not isinstance(error, (BrokenProcessPool, UserError, KeyboardInterrupt)):
                    logger.error("a run failed", exc_info=error)
                    index, of_run = keys[future].split(":")[-2:]
                    name = self.config.evaluation.tasks[int(index)].name
                    raise RunFailed(
                        f"study {self.config.name!r}: task {name!r} with seed {of_run} raised "
                        f"{type(error).__name__}: {error}; what was measured is kept"
                    ) from error
            self._store(keys[future], future.result())
            self.done += 1
            self.progress(self.done)
        measured = {}
        for name in candidates:
            runs = kept_runs(self.study, self.prefix, forms[name], n_tasks, seeds)
            assert runs is not None
            measured[name] = runs
        return measured

    def count(self, candidate: Candidate) -> list[Operations] | None:
        """Operations of a training step on each task; None where they can't be counted."""
        with spawning():
            jobs = [self.pool.submit(count, candidate, i) for i in range(len(self.config.evaluation.tasks))]
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in errors:
            if isinstance(error, BrokenProcessPool):
                raise error
            # A task's fault, of which its training tells better.
            logger.warning("operations of a training step were not counted", exc_info=error)
        found = [] if errors else [one for job in jobs if (one := job.result()) is not None]
        return found or None

    def _store(self, key: str, run: Run) -> None:
        self.study.set_user_attr(key, as_stored(run))


def again_when_killed(measure: Callable[[], T], attempts: int = 3) -> T:
    """What `measure` returns; where its processes are killed, it goes on with new ones.

    Raises:
        RunFailed: They were killed `attempts` times.
    """
    for left in reversed(range(attempts)):
        try:
            return measure()
        except BrokenProcessPool:
            logger.warning("a measuring process was lost%s", "; measuring goes on" if left else "")
    raise RunFailed(
        f"{attempts} times a measuring process was lost: something kills it, or a task calls os._exit; what "
        "was measured is kept, the same command goes on"
    )


@contextlib.contextmanager
def processes(config: StudyConfig, devices: Sequence[str], data_root: Path) -> Iterator[Executor]:
    """A process a device, ready to `train`. None outlives the block: those whose work is done end by
    themselves, those still starting once they have started; on an error or a stop, all are killed.
    """
    if config.in_process:
        with _this_process(config, devices[0], data_root) as inline:
            yield inline
        return
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put((device, devices.count(device)))
    pool = ProcessPoolExecutor(
        max_workers=len(devices),
        mp_context=context,
        initializer=_start,
        initargs=(os.getpid(), config, free, data_root),
    )
    # The pool forgets them when it is shut down, before the last of them has ended.
    begun: dict[int, BaseProcess] = getattr(pool, "_processes", {})
    try:
        yield pool
        pool.shutdown(wait=False)
        until = time.monotonic() + _LEAVE_SECONDS
        for process in list(begun.values()):
            process.join(max(0.0, until - time.monotonic()))
    finally:
        with signals_held():
            for process in list(begun.values()):
                process.kill()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _this_process(config: StudyConfig, device: str, data_root: Path) -> Iterator[Executor]:
    """The same without processes, where a task lives in this one."""
    import torch  # noqa: PLC0415  a scored study never needs it

    before = torch.get_num_threads()
    _here.append(make_worker_bench(config.without_screening(), device, data_root))
    try:
        yield _Inline()
    finally:
        _here.clear()
        torch.set_num_threads(before)


class _Inline(Executor):
    """Calls at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `concurrent.futures.Executor`."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """For whatever may start a process of the pool: signals wait, and it runs no main module of the user's.

    Nothing of ours is in that; a script that searches without `if __name__ == "__main__"` would search there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        with signals_held():
            yield
    finally:
        sys.modules["__main__"] = main


_here: list[BaseBench] = []  # a pool process's own, made once


def _start(parent: int, config: StudyConfig, free: SimpleQueue[tuple[str, int]], data_root: Path) -> None:
    install(lambda signum, frame: None, *STOPS)  # the parent, which they reach too, ends us
    release_signals()
    tolerate_any_text()
    when_orphaned(parent, lambda: os._exit(1))
    device, sharing = free.get()
    with OwnProcess():
        _here.append(make_worker_bench(config.without_screening(), device, data_root, sharing))


def train(candidate: Candidate, task: int, seed: int) -> Run:
    """One run, in a process of the pool."""
    with OwnProcess():
        return _here[0].run(candidate, task, seed)


def count(candidate: Candidate, task: int) -> Operations | None:
    """Operations of one training step, in a process of the pool; None where the task scores by itself."""
    with OwnProcess():
        return _here[0].operations(candidate, task)
