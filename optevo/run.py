"""`optevo run`: create or resume a study, start its workers, and measure what came out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from rich.console import Console

from optevo.errors import RunFailed, UserError
from optevo.measurement.fresh_seeds import Result, measure, planned_runs, store_result, stored_result
from optevo.reporting.dashboard.board import Board
from optevo.reporting.progress import Progress, counting
from optevo.reporting.stage_progress import StageProgress
from optevo.reporting.text import trial_lines
from optevo.storage.opening import open_storage, shown
from optevo.study.config import StudyConfig, load_stages
from optevo.study.continuing import extent, resumed
from optevo.study.promotion import begin_stages, check_stages, staged_study, stored_pipeline
from optevo.study.stages import Pipeline
from optevo.study.studies import (
    best_trials,
    check_environment,
    counted,
    create_or_resume,
    is_complete,
    load_study,
    resolved,
)
from optevo.tasks.base import Task
from optevo.training.benches import BaseBench, ScoredBench, make_bench
from optevo.training.devices import worker_devices
from optevo.training.stacked import stacks
from optevo.workers.dask_client import connect
from optevo.workers.dask_pool import DaskPool
from optevo.workers.here import work_here
from optevo.workers.local_pool import LocalPool
from optevo.workers.pool import WorkerPool
from optevo.workers.supervisor import terminable, trying_tasks, watch

#: A Dask cluster: its address, the device, how many workers, and whether `data_root` holds there too.
Cluster = tuple[str, str, int | None, bool]


@terminable()
def run(
    config: StudyConfig,
    *,
    storage_url: str,
    workers: int | None,
    device: str,
    data_root: Path,
    console: Console,
    trials: int | None = None,
    cluster: str | None = None,
    own_data_root: bool = False,
    accept_environment: bool = False,
) -> Result | None:
    """Create the study or resume it, and work on it until it is complete or a stop is requested.

    Args:
        config: The study.
        storage_url: Where it lies; a missing database is made.
        workers: Processes on this machine. None: one a core on a CPU, one a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        data_root: Where data sets lie.
        console: Where to print.
        trials: Stop after so many more trials. Default: None, when the study is complete.
        cluster: Address of a Dask scheduler to hand the workers to. Default: None, they run here.
        own_data_root: Whether `data_root` was asked for, and so holds on the cluster too. Default: False.
        accept_environment: See `create_or_resume`.

    Returns:
        What the study came to; None if it is not complete after `trials` more, or nothing is measured again.

    Raises:
        UserError: See `create_or_resume`, `open_storage` and `Bench`; nothing has been written then.
        RunFailed: The workers could not complete the search; what they said has been printed.
        KeyboardInterrupt: SIGINT or SIGTERM came; what is done has been recorded.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if config.awaited:
        config = resolved(config, open_storage(storage_url))
    config, stored, known = _compared(config, storage_url)
    if known is not None:
        console.print(f"study {config.name!r} is complete")
        return known
    # What is wrong is found before anything is written. On the CPU: a GPU's memory is the workers'.
    with trying_tasks():
        bench = make_bench(config, "cpu", data_root)
        costs, data = bench.rehearse_all(), bench.identities()
    if config.in_process and cluster is not None:
        raise UserError("a model and data given in Python train in its own process: leave the cluster out")
    alone, pipeline = int(config.in_process), config.pipeline
    stage_device = device if pipeline is None else _rehearse_stages(config, pipeline, device, data_root)
    scored = isinstance(bench, ScoredBench)
    config.make_space().rehearse()
    if cluster is not None:
        connect(cluster).close()
        devices = worker_devices("cpu" if scored else "auto", None)  # for measuring the best, in the end
    else:
        devices = worker_devices("cpu" if scored else device, alone or workers)
    stage_devices = [] if pipeline is None or cluster else worker_devices(stage_device, alone or workers)
    stopped: list[int] = []  # signals received; no outage of the database is waited for after one
    study = create_or_resume(
        config,
        open_storage(storage_url, create=True, should_stop=lambda: bool(stopped)),
        devices[0],
        costs,
        data=data,
        accept_environment=accept_environment,
    )
    _tell_of_stacking(bench, devices[0], console)
    del bench
    board = Board(study, config)
    crew = _Crew(storage_url, devices, data_root, console, stopped)
    crew = crew.on(cluster, "cpu" if scored else device, workers, own_data_root)
    if not is_complete(study):
        _tell_of_search(study, config, stored, crew)
        limit = None if trials is None else counted(study) + trials
        _work(study, config, crew, Progress(study, config), limit, tend=board.tend)
        if not is_complete(study):
            if trials is None:
                raise RunFailed(
                    "the workers have ended before the search was complete; nothing is lost: "
                    "the same command goes on"
                )
            board.refresh()
            console.print(f"paused at {counted(study)} trials; the same command goes on")
            return None
    if pipeline is not None:
        begin_stages(study, config, pipeline)
        crew = replace(crew, devices=stage_devices).on(cluster, stage_device, workers, own_data_root)
        _train_stages(study, config, pipeline, crew)
    if config.rerun.candidates == 0:
        board.refresh()
        console.print("the search is complete; nothing is measured again, as [rerun] candidates = 0 says")
        for line in trial_lines(study, config, best_trials(study, 1)[0]):
            console.print(line, highlight=False)
        return None
    console.print("the search is complete; measuring its best on fresh seeds …")
    with counting(console, "fresh seeds", planned_runs(study, config)) as progress:
        return measure_best(study, config, devices=devices, data_root=data_root, progress=progress)


def _tell_of_stacking(bench: BaseBench, device: str, console: Console) -> None:
    """Say so where candidates were to train as one model, and none can here."""
    if bench.config.evaluation.batch_candidates > 1 and not any(
        isinstance(task, Task) and stacks(task, torch.device(device)) for task, _ in bench.tasks
    ):
        console.print(
            "no task of this study gains by stacking here: batch_candidates trains one after another"
        )


@terminable()
def promote(
    name: str,
    file: Path,
    *,
    storage_url: str,
    workers: int | None,
    device: str,
    data_root: Path,
    console: Console,
    cluster: str | None = None,
    own_data_root: bool = False,
    accept_environment: bool = False,
) -> None:
    """Train the best of a stored search in the stages of a file, or go on with that.

    Args:
        name: Of the study.
        file: The stages, see `load_stages`.
        storage_url: Where the study lies.
        workers: As in `run`.
        device: As in `run`.
        data_root: Where data sets lie.
        console: Where to print.
        cluster: As in `run`.
        own_data_root: As in `run`.
        accept_environment: See `check_environment`.

    Raises:
        UserError: There is no such study, its search isn't complete, it was begun with another optevo or
            torch, its best have gone into other stages, or something is wrong with the file, a task or its
            data; nothing has been written then.
        RunFailed: The workers could not complete the stages; what they said has been printed.
        KeyboardInterrupt: SIGINT or SIGTERM came; what is done has been recorded.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stopped: list[int] = []
    study, config = load_study(open_storage(storage_url, should_stop=lambda: bool(stopped)), name)
    pipeline = load_stages(file, config)
    if not is_complete(study):
        raise UserError(f"the search of study {name!r} is not complete: `optevo run` its file again first")
    check_stages(study, config, pipeline)
    if stored_pipeline(study, config) == pipeline and is_complete(staged_study(study, config, pipeline)):
        console.print(f"the stages of study {name!r} are complete")
        return
    device = _rehearse_stages(config, pipeline, device, data_root)
    devices = [] if cluster else worker_devices(device, workers)
    if cluster is not None:
        connect(cluster).close()
    check_environment(study, accept=accept_environment)
    begin_stages(study, config, pipeline)
    crew = _Crew(storage_url, devices, data_root, console, stopped)
    crew = crew.on(cluster, device, workers, own_data_root)
    _train_stages(study, config, pipeline, crew)


@dataclass(frozen=True)
class _Crew:
    """Who works on a study, and where it shows; see `run` for each.

    Attributes:
        stopped: SIGINT and SIGTERM are noted here as they come.
    """

    storage_url: str
    devices: Sequence[str]
    data_root: Path
    console: Console
    stopped: list[int]
    cluster: Cluster | None = None

    def on(self, address: str | None, device: str, workers: int | None, own_data_root: bool) -> _Crew:
        """The same on a Dask cluster, if there is one."""
        return self if address is None else replace(self, cluster=(address, device, workers, own_data_root))

    def told(self, config: StudyConfig) -> str:
        """In words."""
        if config.in_process:
            return "in this process, which alone has its model and data"
        if self.cluster is not None:
            return f"Dask at {self.cluster[0]}"
        return f"{len(self.devices)} worker{'s' * (len(self.devices) > 1)}"


def _work(
    study: optuna.Study,
    config: StudyConfig,
    crew: _Crew,
    progress: Progress | StageProgress,
    limit: int | None = None,
    *,
    stages: bool = False,
    tend: Callable[[], None] = lambda: None,
) -> None:
    """Have a search, or its stages, worked on to the end, or up to `limit` trials; see `watch` for `tend`.

    Raises:
        KeyboardInterrupt: A stop was requested.
    """
    url, data_root, console = crew.storage_url, crew.data_root, crew.console
    if config.in_process:
        stopped = work_here(
            *(url, config.name, console, progress),
            device=crew.devices[0],
            data_root=data_root,
            limit=limit,
            stages=stages,
            tend=tend,
        )
    else:
        options = ["--stages"] * stages + ([] if limit is None else ["--limit", str(limit)])
        pool = _worker_pool(
            config.name, url, crew.devices, options=options, data_root=data_root, cluster=crew.cluster
        )
        stopped = watch(study, pool, console, progress, crew.stopped, tend=tend)
    if stopped:
        raise KeyboardInterrupt


def _train_stages(study: optuna.Study, config: StudyConfig, pipeline: Pipeline, crew: _Crew) -> None:
    """Have workers train the best of a complete search in stages that have begun, to their end."""
    staged = staged_study(study, config, pipeline)
    if is_complete(staged):
        return
    progress = StageProgress(staged, pipeline)
    crew.console.print(f"study {config.name!r}: {progress.told()}, {crew.told(config)}")
    _work(staged, config, crew, progress, stages=True)
    if not is_complete(staged):
        raise RunFailed(
            "the workers have ended before the stages were complete; nothing is lost: "
            "the same command goes on"
        )


def _rehearse_stages(config: StudyConfig, pipeline: Pipeline, device: str, data_root: Path) -> str:
    """Find what is wrong with the tasks of stages; `device`, or the CPU where all score by themselves.

    Raises:
        UserError: Something is.
    """
    kinds = []
    with trying_tasks():
        for stage in pipeline.stages:
            bench = make_bench(config.staged(stage), "cpu", data_root)
            bench.rehearse()
            kinds.append(isinstance(bench, ScoredBench))
            del bench  # before the next one's data is read
    return "cpu" if all(kinds) else device


def measure_best(
    study: optuna.Study,
    config: StudyConfig,
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None],
) -> Result:
    """`fresh_seeds.measure`, with what comes out kept in the study, and as a note and figures there."""
    result = measure(study, config, devices=devices, data_root=data_root, progress=progress)
    Board(study, config).refresh(result)
    store_result(study, config, result)
    return result


def _compared(config: StudyConfig, storage_url: str) -> tuple[StudyConfig, StudyConfig | None, Result | None]:
    """A configuration beside the stored study of its name.

    Returns:
        `config` with what the stored one keeps of how it was begun; the stored one's configuration; and its
        result where it has nothing left to do, whose data need not be here. None: there is none yet.

    Raises:
        UserError: The stored study's best cannot go on with the stages.
    """
    try:
        study, stored = load_study(open_storage(storage_url), config.name)
    except UserError:
        return config, None, None  # whatever it is, creating or resuming the study tells
    config = resumed(config, stored)
    result = _measured(study, stored, config)
    if result is None and config.pipeline is not None:
        check_stages(study, stored, config.pipeline)
    return config, stored, result


def _tell_of_search(
    study: optuna.Study, config: StudyConfig, stored: StudyConfig | None, crew: _Crew
) -> None:
    """Say whether a search is new, resumed, or goes further than it did, and who works on it."""
    begun = len(study.get_trials(deepcopy=False))
    action = f"resuming study {config.name!r} at trial {begun}" if begun else f"new study {config.name!r}"
    crew.console.print(f"{action} in {shown(crew.storage_url)}, {crew.told(config)}")
    if stored is not None and stored.search() != config.search():
        further = f"sampler.{config.sampler.extent}: {extent(stored)} → {extent(config)}"
        crew.console.print(f"the search goes further than it did: {further}", highlight=False)


def _measured(study: optuna.Study, stored: StudyConfig, config: StudyConfig) -> Result | None:
    """The result of a study that has nothing left to do."""
    result = stored_result(study, config) if stored == config else None
    if result is None or config.pipeline is None:
        return result
    return result if is_complete(staged_study(study, config, config.pipeline)) else None


def _worker_pool(
    name: str,
    storage_url: str,
    devices: Sequence[str],
    *,
    options: Sequence[str],
    data_root: Path,
    cluster: Cluster | None,
) -> WorkerPool:
    """Workers on this machine, or on a cluster; `options` are those of `optevo worker`."""
    # -P: nothing in the current folder is imported but what a study file names.
    command = ["-P", "-m", "optevo", "worker", *options]
    data = ["--data-dir", str(data_root)]
    # The URL goes through the environment, where other users of the machine can't read a password in it.
    env = {"OPTEVO_STORAGE": storage_url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if cluster is not None:
        address, device, workers, own_data_root = cluster
        return DaskPool(
            address,
            [*command, *(data if own_data_root else [])],
            env,
            device=device,
            workers=workers,
            name_of_study=name,
            storage_url=storage_url,
        )
    command = [sys.executable, *command, *data, "--parent", str(os.getpid())]
    each = [[*command, "--device", d, "--sharing", str(devices.count(d)), "--", name] for d in devices]
    return LocalPool(each, {**os.environ, **env})
