"""`optevo run`: create or resume a study, start its workers, watch them, and measure what came out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import optuna
import torch
from rich.console import Console
from rich.live import Live

from optevo.config import StudyConfig
from optevo.errors import UserError
from optevo.evaluation.bench import Bench, worker_devices
from optevo.evaluation.rerun import Result, measure, store_result, stored_result
from optevo.evaluation.stacked import stacks
from optevo.lost import fail_lost_trials
from optevo.progress import Progress, result_markdown, trial_lines
from optevo.storage import open_storage, shown
from optevo.study import counted, create_or_resume, is_complete, load_study

_POLL_SECONDS = 0.5


def run(
    config: StudyConfig,
    *,
    storage_url: str,
    workers: int | None,
    device: str,
    data_root: Path,
    console: Console,
    trials: int | None = None,
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
    devices = worker_devices(device, workers)
    bench = Bench(config, "cpu", data_root)  # what is missing or wrong is found before anything is written
    costs = bench.rehearse()  # on the CPU, for a GPU's memory is the workers'
    study = create_or_resume(config, open_storage(storage_url, create=True), devices[0], costs)
    if config.evaluation.batch_candidates > 1 and not any(
        stacks(task, torch.device(devices[0])) for task, _ in bench.tasks
    ):
        console.print(
            "no task of this study gains by stacking here: batch_candidates trains one after another"
        )
    del bench
    if not is_complete(study, config):
        begun = len(study.get_trials(deepcopy=False))
        action = f"resuming study {config.name!r} at trial {begun}" if begun else f"new study {config.name!r}"
        console.print(f"{action} in {shown(storage_url)}, {len(devices)} worker{'s' * (len(devices) > 1)}")
        limit = None if trials is None else counted(study) + trials
        # -P: nothing in the current folder is imported but what a study file names.
        command = [sys.executable, "-P", "-m", "optevo", "worker"]
        command += ["--data-dir", str(data_root), "--parent", str(os.getpid())]
        command += [] if limit is None else ["--limit", str(limit)]
        commands = [
            [*command, "--device", d, "--sharing", str(devices.count(d)), "--", config.name] for d in devices
        ]
        stopped = _search(study, config, commands, storage_url, console)
        if stopped:
            raise KeyboardInterrupt
        if not is_complete(study, config):
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


def _search(
    study: optuna.Study, config: StudyConfig, commands: list[list[str]], storage_url: str, console: Console
) -> bool:
    """Run worker processes until they have ended; whether a stop was requested."""
    # The URL goes through the environment, where other users of the machine can't read a password in it.
    env = {**os.environ, "OPTEVO_STORAGE": storage_url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    last_words: list[deque[str]] = [deque(maxlen=100) for _ in processes]
    readers = [
        threading.Thread(target=words.extend, args=(process.stdout,), daemon=True)
        for process, words in zip(processes, last_words, strict=True)
    ]
    for reader in readers:
        reader.start()
    progress = Progress(study, config)
    ended: set[int] = set()
    with _forwarded_signals(processes, console) as stopped, _display(console, progress) as show:
        while len(ended) < len(processes):
            time.sleep(_POLL_SECONDS)
            show()
            now = {i for i, process in enumerate(processes) if process.poll() is not None}
            if any(processes[i].returncode for i in now - ended):
                fail_lost_trials(study)
            ended = now
        show()
    for reader in readers:
        reader.join(timeout=5)
    failed = [i for i, process in enumerate(processes) if process.returncode]
    for i in failed:
        console.print(f"a worker ended with status {processes[i].returncode}:")
        console.print("".join(last_words[i]), highlight=False)
    if failed and not stopped and not is_complete(study, config):
        if all(processes[i].returncode == 2 for i in failed):
            raise UserError("the workers could not go on; see above")
        raise RuntimeError("workers died, see above; nothing is lost, the same command goes on")
    return bool(stopped)


@contextlib.contextmanager
def _forwarded_signals(processes: list[subprocess.Popen[str]], console: Console) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the workers, once, and wait for them; a second one kills."""
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.kill() if received else process.terminate()
        if not received:
            console.print("stopping; what is finished stays recorded (once more kills)")
        received.append(signum)

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
        for process in processes:
            if process.poll() is None:  # only when the display itself failed
                process.terminate()


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

    winner = "\n".join(trial_lines(study, config, study.get_trials(deepcopy=False)[result.winner]))
    save_note(study, f"```\n{winner}\n```\n\nMean ± sd:\n\n{result_markdown(result)}\n")
