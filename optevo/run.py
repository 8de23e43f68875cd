"""`optevo run`: create or resume a study, start its workers, and measure what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import torch
from rich.console import Console

from optevo.errors import RunFailed, UserError
from optevo.measurement.fresh_seeds import Result, measure, planned_runs, store_result, stored_result
from optevo.reporting.dashboard.board import Board
from optevo.reporting.progress import SearchProgress, counting
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
from optevo.workers.launcher import Cluster, Launcher
from optevo.workers.supervisor import terminable, trying_tasks


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
    alone, pipeline, scored = int(config.in_process), config.pipeline, isinstance(bench, ScoredBench)
    search_device = "cpu" if scored else device
    stage_device = device if pipeline is None else _rehearse_stages(config, pipeline, device, data_root)
    config.make_space().rehearse()
    if cluster is not None:
        connect(cluster).close()
        devices = worker_devices("cpu" if scored else "auto", None)  # for measuring the best, in the end
    else:
        devices = worker_devices(search_device, alone or workers)
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
    where = None if cluster is None else Cluster(cluster, search_device, workers, own_data_root)
    launcher = Launcher(storage_url, devices, data_root, console, stopped, where)
    if not is_complete(study):
        _tell_of_search(study, config, stored, launcher)
        limit = None if trials is None else counted(study) + trials
        launcher.run(study, config, SearchProgress(study, config), limit, tend=board.tend)
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
        where = where and where._replace(device=stage_device)
        launcher = replace(launcher, devices=stage_devices, cluster=where)
        _train_stages(study, config, pipeline, launcher)
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
    where = None if cluster is None else Cluster(cluster, device, workers, own_data_root)
    launcher = Launcher(storage_url, devices, data_root, console, stopped, where)
    _train_stages(study, config, pipeline, launcher)


def _train_stages(study: optuna.Study, config: StudyConfig, pipeline: Pipeline, launcher: Launcher) -> None:
    """Have workers train the best of a complete search in stages that have begun, to their end."""
    staged = staged_study(study, config, pipeline)
    if is_complete(staged):
        return
    progress = StageProgress(staged, pipeline)
    launcher.console.print(f"study {config.name!r}: {progress.told()}, {launcher.told(config)}")
    launcher.run(staged, config, progress, stages=True)
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
    study: optuna.Study, config: StudyConfig, stored: StudyConfig | None, launcher: Launcher
) -> None:
    """Say whether a search is new, resumed, or goes further than it did, and who works on it."""
    begun = len(study.get_trials(deepcopy=False))
    action = f"resuming study {config.name!r} at trial {begun}" if begun else f"new study {config.name!r}"
    launcher.console.print(f"{action} in {shown(launcher.storage_url)}, {launcher.told(config)}")
    if stored is not None and stored.search() != config.search():
        further = f"sampler.{config.sampler.extent}: {extent(stored)} → {extent(config)}"
        launcher.console.print(f"the search goes further than it did: {further}", highlight=False)


def _measured(study: optuna.Study, stored: StudyConfig, config: StudyConfig) -> Result | None:
    """The result of a study that has nothing left to do."""
    result = stored_result(study, config) if stored == config else None
    if result is None or config.pipeline is None:
        return result
    return result if is_complete(staged_study(study, config, config.pipeline)) else None
