"""Candidates trained outside a search, in processes of their own: each run is kept as soon as it is done."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from optevo.errors import RunFailed
from optevo.evaluation import BaseBench, make_worker_bench
from optevo.evaluation.archive import read_run
from optevo.evaluation.runs import Run
from optevo.processes import when_orphaned
from optevo.spaces import Candidate

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import optuna

    from optevo.config import StudyConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Measurer:
    """Trains in parallel what the study has not stored yet.

    Args:
        study: Where each run is kept, as an attribute of its own.
        config: What is trained on, and with which budget.
        pool: Of `processes`, for the same configuration.
        prefix: What the attributes' names begin with; runs of another budget have another one.
        progress: Called with the number of runs trained so far.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        pool: ProcessPoolExecutor,
        prefix: str,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.study, self.config, self.pool, self.prefix, self.progress = study, config, pool, prefix, progress
        self.done = 0

    def measure(
        self, candidates: Mapping[str, Candidate], seeds: Sequence[int]
    ) -> dict[str, tuple[Run, ...]]:
        """Every task with each of the seeds, task by task, by the candidate's name."""
        tasks = range(len(self.config.evaluation.tasks))
        names = {name: self._name(candidate) for name, candidate in candidates.items()}
        stored = self.study.user_attrs
        jobs: dict[Future[Run], str] = {}
        # Seed by seed, so that what is there after a kill can be compared.
        for seed in seeds:
            for key, candidate in {names[name]: c for name, c in candidates.items()}.items():
                for task in tasks:
                    if (one := f"{key}:{task}:{seed}") not in stored:
                        jobs[self.pool.submit(train, candidate, task, seed)] = one
        for future in as_completed(jobs):
            if future.exception() is not None:
                for other, key in jobs.items():  # what is done is done
                    if other.done() and other.exception() is None:
                        self._store(key, other.result())
            self._store(jobs[future], future.result())
            self.done += 1
            self.progress(self.done)
        stored = self.study.user_attrs
        return {
            name: tuple(read_run(stored[f"{key}:{task}:{seed}"]) for task in tasks for seed in seeds)
            for name, key in names.items()
        }

    def _store(self, key: str, run: Run) -> None:
        self.study.set_user_attr(key, dataclasses.asdict(run))

    def _name(self, candidate: Candidate) -> str:
        return f"{self.prefix}:{hashlib.sha256(candidate.canonical().encode()).hexdigest()[:12]}"


def again_when_killed(measure: Callable[[], T], attempts: int = 3) -> T:
    """What `measure` returns; where its processes are killed, it goes on with new ones.

    Raises:
        RunFailed: They were killed `attempts` times.
    """
    for left in reversed(range(attempts)):
        try:
            return measure()
        except BrokenProcessPool:
            logger.warning("a measuring process was killed%s", "; measuring goes on" if left else "")
    raise RunFailed(f"{attempts} times a measuring process was killed; the same command goes on")


@contextlib.contextmanager
def processes(config: StudyConfig, devices: Sequence[str], data_root: Path) -> Iterator[ProcessPoolExecutor]:
    """A process a device, ready to `train`; on an error or a stop, none of them trains on."""
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
    try:
        yield pool
    except BaseException:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_here: list[BaseBench] = []  # a pool process's own, made once


def _start(parent: int, config: StudyConfig, free: SimpleQueue[tuple[str, int]], data_root: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    when_orphaned(parent, lambda: os._exit(1))
    device, sharing = free.get()
    _here.append(make_worker_bench(config, device, data_root, sharing))


def train(candidate: Candidate, task: int, seed: int) -> Run:
    """One run, in a process of the pool."""
    return _here[0].run(candidate, task, seed)
