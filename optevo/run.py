"""`optevo run`: create or resume a study, start its workers, watch them, and measure what came out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import optuna
import torch
from rich.console import Console
from rich.live import Live

from optevo.cluster import DaskCrew
from optevo.config import StudyConfig
from optevo.crew import STOPPED, Crew, LocalCrew
from optevo.errors import UserError
from optevo.evaluation import ScoredBench, make_bench
from optevo.evaluation.bench import worker_devices
from optevo.evaluation.rerun import Result, measure, store_result, stored_result
from optevo.evaluation.stacked import stacks
from optevo.lost import Lookout, fail_lost_trials
from optevo.progress import Progress, fenced, result_markdown, trial_lines
from optevo.scheduler import connect
from optevo.storage import open_storage, shown
from optevo.study import counted, create_or_resume, is_complete, load_study
from optevo.tasks.base import Task

_POLL_SECONDS = 0.5
_LOOKOUT_SECONDS = 5.0
_FAREWELL_SECONDS = 60.0  # for workers to see that the search is complete


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
        What the study came to; None if it is not complete after `trials` more.

    Raises:
        UserError: See `create_or_resume`, `open_storage` and `Bench`; nothing has been written then.
        KeyboardInterrupt: SIGINT or SIGTERM came; what is done has been recorded.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, wherever it comes
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = _measured(config, storage_url)
    if known is not None:
        console.print(f"study {config.name!r} is complete")
        return known
    # What is wrong is found before anything is written. On the CPU: a GPU's memory is the workers'.
    bench = make_bench(config, "cpu", data_root)
    costs = bench.rehearse()
    scored = isinstance(bench, ScoredBench)
    if cluster is not None:
        connect(cluster).close()
        devices = worker_devices("cpu" if scored else "auto", None)  # for measuring the best, in the end
    else:
        devices = worker_devices("cpu" if scored else device, workers)
    study = create_or_resume(
        config,
        open_storage(storage_url, create=True),
        devices[0],
        costs,
        accept_environment=accept_environment,
    )
    if config.evaluation.batch_candidates > 1 and not any(
        isinstance(task, Task) and stacks(task, torch.device(devices[0])) for task, _ in bench.tasks
    ):
        console.print(
            "no task of this study gains by stacking here: batch_candidates trains one after another"
        )
    del bench
    if not is_complete(study):
        begun = len(study.get_trials(deepcopy=False))
        action = f"resuming study {config.name!r} at trial {begun}" if begun else f"new study {config.name!r}"
        where = (
            f"{len(devices)} worker{'s' * (len(devices) > 1)}" if cluster is None else f"Dask at {cluster}"
        )
        console.print(f"{action} in {shown(storage_url)}, {where}")
        # -P: nothing in the current folder is imported but what a study file names.
        command = ["-P", "-m", "optevo", "worker"]
        command += [] if trials is None else ["--limit", str(counted(study) + trials)]
        # The URL goes through the environment, where other users of the machine can't read a password in it.
        env = {"OPTEVO_STORAGE": storage_url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        crew: Crew
        if cluster is None:
            command = [sys.executable, *command, "--data-dir", str(data_root), "--parent", str(os.getpid())]
            each = [
                [*command, "--device", d, "--sharing", str(devices.count(d)), "--", config.name]
                for d in devices
            ]
            crew = LocalCrew(each, {**os.environ, **env})
        else:
            crew = DaskCrew(
                cluster,
                [*command, *(["--data-dir", str(data_root)] if own_data_root else [])],
                env,
                device="cpu" if scored else device,
                workers=workers,
                name_of_study=config.name,
                storage_url=storage_url,
            )
        stopped = _search(study, crew, console, Progress(study, config))
        if stopped:
            raise KeyboardInterrupt
        if not is_complete(study):
            console.print(f"paused at {counted(study)} trials; the same command goes on")
            return None
    console.print("the search is complete; measuring its best on fresh seeds …")
    with console.status("starting") as status:
        result = measure(
            study,
            config,
            devices=devices,
            data_root=data_root,
            progress=lambda done: status.update(f"{done} runs measured"),
        )
    _leave_note(study, config, result)
    store_result(study, config, result)
    return result


def _measured(config: StudyConfig, storage_url: str) -> Result | None:
    """The result of a study that has nothing left to do; its data need not be here."""
    try:
        study, stored = load_study(open_storage(storage_url), config.name)
    except UserError:
        return None  # whatever it is, creating or resuming the study tells
    return stored_result(study, config) if stored == config else None


def _search(study: optuna.Study, crew: Crew, console: Console, progress: Progress) -> bool:
    """Watch the workers until they have ended; whether a stop was requested."""
    lookout, looked, advanced = Lookout(), time.monotonic(), time.monotonic()
    failed = []
    with _forwarded_signals(crew, console) as stopped, _display(console, progress) as show:
        while crew.working:
            time.sleep(_POLL_SECONDS)
            show()
            ended = crew.tend(progress.counted)
            for one in ended:
                if one.replaced:
                    console.print(f"{one.name} was ended by a signal; another takes its place")
                elif one.status not in (0, STOPPED):
                    failed.append(one)
            if ended or time.monotonic() - looked >= _LOOKOUT_SECONDS:
                fail_lost_trials(study, lookout)
                looked = time.monotonic()
                # Others may have completed it, while a cluster has no worker here that could find it out.
                if progress.counted >= progress.total and time.monotonic() - advanced > _FAREWELL_SECONDS:
                    break
            if progress.counted < progress.total:
                advanced = time.monotonic()
        show()
    for one in failed:
        console.print(f"{one.name} ended with status {one.status}:")
        console.print(one.last_words, highlight=False)
    if failed and not stopped and not is_complete(study):
        if all(one.status == 2 for one in failed):
            raise UserError("the workers could not go on; see above")
        raise RuntimeError("workers died, see above; nothing is lost, the same command goes on")
    return bool(stopped)


@contextlib.contextmanager
def _forwarded_signals(crew: Crew, console: Console) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the workers, once, and wait for them; a second one kills."""
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        crew.stop()
        if not received:
            console.print("stopping; what is finished stays recorded (once more kills)")
        received.append(signum)

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
        crew.close()  # at once where all have ended


@contextlib.contextmanager
def _display(console: Console, progress: Progress) -> Iterator[Callable[[], None]]:
    """A live table on a terminal, plain lines elsewhere; yields what to call now and then."""
    if not console.is_terminal:

        def lines() -> None:
            for line in progress.lines():
                console.print(line, highlight=False, soft_wrap=True)

        yield lines
        return
    with Live(progress.table(), console=console, auto_refresh=False) as live:
        yield lambda: live.update(progress.table(), refresh=True)


def _leave_note(study: optuna.Study, config: StudyConfig, result: Result) -> None:
    """The result as a note that optuna-dashboard shows with the study."""
    from optuna_dashboard import save_note  # noqa: PLC0415  slow to import, needed once a study

    winner = fenced(trial_lines(study, config, study.get_trials(deepcopy=False)[result.winner]))
    save_note(study, f"{winner}\n\nMean ± sd:\n\n{result_markdown(result)}\n")
