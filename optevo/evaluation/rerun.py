"""The best of a finished search, measured again on seeds that it never saw.

The winner of a noisy search is flattered by luck. So its best few are trained anew on one set of fresh seeds,
which names the winner, and winner and presets on another, which gives the numbers to report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.trial import TrialState

from optevo import keys
from optevo.errors import RunFailed
from optevo.evaluation import BaseBench, make_worker_bench
from optevo.evaluation.archive import read_run
from optevo.evaluation.course import total_fitness
from optevo.evaluation.runs import Run
from optevo.processes import when_orphaned
from optevo.spaces import Params, Space
from optevo.study import best_trials, make_space

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import optuna

    from optevo.config import StudyConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One candidate on the report seeds.

    Attributes:
        name: A preset's name, or "trial N" for the winner.
        search: Fitness in the search, None where the search did not evaluate it.
        runs: Task by task, seed by seed.
    """

    name: str
    search: float | None
    runs: tuple[Run, ...]

    @property
    def by_seed(self) -> list[float]:
        """Fitness a seed: the mean over tasks, −1 where any diverged."""
        seeds = sorted({run.seed for run in self.runs})
        return [total_fitness([run for run in self.runs if run.seed == seed]) for seed in seeds]

    @property
    def mean(self) -> float:
        """Mean fitness over the seeds."""
        return statistics.fmean(self.by_seed)

    @property
    def sd(self) -> float:
        """Sample standard deviation of the fitness over the seeds."""
        return statistics.stdev(self.by_seed)

    def metric(self, task: str) -> tuple[float, float] | None:
        """Mean and standard deviation of a task's metric; None where a run diverged."""
        values = [run.metric for run in self.runs if run.task == task]
        known = [value for value in values if value is not None]
        return (statistics.fmean(known), statistics.stdev(known)) if len(known) == len(values) else None


@dataclass(frozen=True)
class Result:
    """What a study came to.

    Attributes:
        winner: The trial's number.
        rows: Presets first, the winner last.
    """

    winner: int
    rows: tuple[Row, ...]

    @property
    def tasks(self) -> list[str]:
        """Task names, in the study's order."""
        return list(dict.fromkeys(run.task for run in self.rows[0].runs))


def stored_result(study: optuna.Study, config: StudyConfig) -> Result | None:
    """The result as it was measured with the configuration's settings, None before."""
    stored = study.user_attrs.get(keys.RERUN)
    if stored is None or stored["settings"] != config.rerun.model_dump(mode="json"):
        return None
    rows = (Row(row["name"], row["search"], _runs(row["runs"])) for row in stored["rows"])
    return Result(stored["winner"], tuple(rows))


def measure(
    study: optuna.Study,
    config: StudyConfig,
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Re-run the best trials and the presets, and name the winner.

    Each candidate is stored as soon as it is measured, so a killed measurement goes on where it was; a trial
    that is a preset, gene for gene, is measured once.

    Args:
        study: A finished search.
        config: Its configuration; `config.rerun` says how many candidates and seeds.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Raises:
        UserError: No trial of the study is complete.
        RunFailed: Its processes were killed, again and again.
    """
    shortlist = {f"trial {t.number}": t for t in best_trials(study, config.rerun.candidates)}
    candidates = {name: trial.params for name, trial in shortlist.items()}
    space = make_space(config)
    presets = space.presets()
    n, first = config.rerun.seeds, max(config.evaluation.seeds) + 1
    choosing, reporting = range(first, first + n), range(first + n, first + 2 * n)

    def once() -> tuple[str, dict[str, tuple[Run, ...]]]:
        with _pool(config, devices, data_root) as pool:
            measurer = _Measurer(study, config, pool, progress)
            winner = next(iter(shortlist))
            if len(shortlist) > 1:
                chosen = measurer.measure(candidates, choosing)
                winner = max(chosen, key=lambda name: Row(name, None, chosen[name]).mean)
            return winner, measurer.measure({**presets, winner: candidates[winner]}, reporting)

    winner, measured = _again_when_killed(once)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = {trial.user_attrs[keys.CANONICAL]: trial.value for trial in trials}
    rows = [
        Row(name, found.get(space.candidate(p).canonical()), measured[name]) for name, p in presets.items()
    ]
    rows.append(Row(winner, shortlist[winner].value, measured[winner]))
    return Result(shortlist[winner].number, tuple(rows))


def _again_when_killed(measure: Callable[[], T], attempts: int = 3) -> T:
    """What is stored already is not measured again."""
    for left in reversed(range(attempts)):
        try:
            return measure()
        except BrokenProcessPool:
            logger.warning("a measuring process was killed%s", "; measuring goes on" if left else "")
    raise RunFailed(f"{attempts} times a measuring process was killed; the same command goes on")


@contextlib.contextmanager
def _pool(config: StudyConfig, devices: Sequence[str], data_root: Path) -> Iterator[ProcessPoolExecutor]:
    """A process a device; on an error or a stop, none of them trains on."""
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


def store_result(study: optuna.Study, config: StudyConfig, result: Result) -> None:
    """Keep the result with the study, under the settings that it was measured with."""
    settings = config.rerun.model_dump(mode="json")
    study.set_user_attr(keys.RERUN, {"settings": settings, **dataclasses.asdict(result)})


class _Measurer:
    """Trains in parallel what the study has not stored yet."""

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        pool: ProcessPoolExecutor,
        progress: Callable[[int], None],
    ) -> None:
        self.study, self.config, self.pool, self.progress = study, config, pool, progress
        self.space = make_space(config)
        self.done = 0

    def measure(self, candidates: Mapping[str, Params], seeds: range) -> dict[str, tuple[Run, ...]]:
        """Every task with each of the seeds, by the candidate's name."""
        tasks = range(len(self.config.evaluation.tasks))
        stored = {name: self._key(params, seeds) for name, params in candidates.items()}
        wanted = {stored[name]: params for name, params in candidates.items()}
        pending = {
            key: [self.pool.submit(_train, params, task, seed) for task in tasks for seed in seeds]
            for key, params in wanted.items()
            if key not in self.study.user_attrs
        }
        for key, futures in pending.items():
            runs = []
            for future in futures:
                runs.append(dataclasses.asdict(future.result()))
                self.done += 1
                self.progress(self.done)
            self.study.set_user_attr(key, runs)
        attrs = self.study.user_attrs
        return {name: _runs(attrs[key]) for name, key in stored.items()}

    def _key(self, params: Params, seeds: range) -> str:
        digest = hashlib.sha256(self.space.candidate(params).canonical().encode()).hexdigest()[:12]
        return f"{keys.RERUN}:{digest}:seeds {seeds.start}-{seeds.stop - 1}"


_here: list[tuple[BaseBench, Space]] = []  # a pool process's own, made once


def _start(parent: int, config: StudyConfig, free: SimpleQueue[tuple[str, int]], data_root: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    when_orphaned(parent, lambda: os._exit(1))
    device, sharing = free.get()
    _here.append((make_worker_bench(config, device, data_root, sharing), make_space(config)))


def _train(params: Params, task: int, seed: int) -> Run:
    bench, space = _here[0]
    return bench.run(space.candidate(params), task, seed)


def _runs(stored: Sequence[dict[str, Any]]) -> tuple[Run, ...]:
    return tuple(read_run(run) for run in stored)
