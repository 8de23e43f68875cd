"""The commands: parse, call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import atexit
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from optevo.cli import data, helps, results, status, task, trials
from optevo.cli import storage as databases
from optevo.cli.correlation import correlate
from optevo.cli.dashboard import dashboard
from optevo.cli.doctor import doctor
from optevo.cli.init import init
from optevo.cli.options import (
    DEFAULT_STORAGE,
    EXIT_STOPPED,
    AcceptEnvironment,
    Cluster,
    DataDir,
    Device,
    Storage,
    Workers,
    console,
    told_when_interrupted,
)
from optevo.cli.promote import print_funnel, promote
from optevo.cli.top import top
from optevo.cli.trials import check_export, print_result, write_export
from optevo.errors import RunFailed, UserError
from optevo.escaping import printable, tolerate_any_text

app = typer.Typer(
    help="Discover deep-learning optimizers. Every search is an Optuna study in a database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=helps.EPILOG,
)
app.add_typer(data.app, name="data")
app.add_typer(databases.app, name="storage")
app.add_typer(task.app, name="task")


def _version(wanted: bool) -> None:
    if wanted:
        from optevo import __version__

        print(f"optevo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell more, such as the tracebacks of a task's faults.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """What goes before the command."""
    console.stderr = False  # until a command's --json says otherwise
    if verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("optevo").setLevel(logging.DEBUG)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A study file, or one that comes with optevo: quickstart.")],
    storage: Storage = DEFAULT_STORAGE,
    workers: Workers = None,
    device: Device = "auto",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many more trials, groups being finished.")
    ] = None,
    data_dir: DataDir = None,
    export_to: Annotated[
        Path | None,
        typer.Option("--export", help="Write the winner to this file when the study is complete."),
    ] = None,
    cluster: Cluster = None,
    accept_environment: AcceptEnvironment = False,
) -> None:
    """Create a study, or resume it: the same command. Ctrl-C stops it cleanly.

    A finished search goes on where its file asks for more generations or trials than it had.
    """
    from optevo.api.exporting import check_exportable
    from optevo.api.searching import search
    from optevo.study.config import load_config

    config = load_config(file)
    if export_to is not None:
        check_export(export_to)
        check_exportable(config)
    with told_when_interrupted():
        result = search(
            config,
            storage=storage,
            workers=workers,
            device=device,
            data_dir=data_dir,
            progress=console,
            stop_after=trials,
            cluster=cluster,
            accept_environment=accept_environment,
        )
    if config.stages:
        print_funnel(result.study, result.config)
    if result.measured is None or not result.complete:
        return
    print_result(result.study, result.config, result.measured)
    if export_to is not None:
        write_export(result.study, result.config, result.best, export_to, "Evolved")


for command in (
    *(status.status, trials.show, trials.export, results.compare, results.ablate),
    *(promote, correlate, results.report, status.repair, top, init, doctor, dashboard),
):
    app.command()(command)


@app.command(hidden=True)
def worker(
    study: str,
    parent: Annotated[int, typer.Option()],
    device: str = "auto",
    data_dir: DataDir = None,
    limit: int | None = None,
    sharing: int = 1,
    stages: bool = False,
) -> None:
    """One worker process; `run` starts these, with the storage in OPTEVO_STORAGE."""
    from optevo.liveness.processes import PipeSafeOutput, die_with_parent
    from optevo.tasks.roots import data_root
    from optevo.workers.pool import EXIT_TASK_BROKEN, EXIT_TERMINATED, EXIT_USER_ERROR, farewell
    from optevo.workers.worker import Stopped, TaskBrokenError, work

    say = farewell()
    storage = os.environ.get("OPTEVO_STORAGE")
    if storage is None:
        raise UserError("set OPTEVO_STORAGE to the database; workers are started by `optevo run`")
    root = data_root(data_dir, needed=False)
    tolerate_any_text("utf-8")  # which those who read it expect, whatever the locale
    die_with_parent()
    sys.stdout = sys.stderr = PipeSafeOutput(sys.stdout)
    try:
        work(
            storage,
            study,
            device=device,
            data_root=root,
            parent=parent,
            limit=limit,
            sharing=sharing,
            stages=stages,
        )
        status = 0
    except TaskBrokenError:
        traceback.print_exc()
        status = EXIT_TASK_BROKEN
    except UserError as error:
        _print_refusal(error)
        status = EXIT_USER_ERROR
    except Stopped:
        status = EXIT_TERMINATED
    say(status)
    sys.exit(status)


helps.add_to(app)


def _print_refusal(error: Exception) -> None:
    # Line by line: what a message quotes may come from a database.
    print("optevo:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)


def main() -> None:
    """The console script: a user's mistake ends in a message and status 2, a fault of ours in a traceback."""
    tolerate_any_text()
    try:
        app(prog_name="optevo")  # by whatever name it was started: completion goes by it
    except SystemExit as end:
        if end.code == EXIT_STOPPED:  # a SIGTERM that comes again while Python ends changes nothing
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
            atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # Python drops its handlers early
        raise
    except (UserError, RunFailed) as error:
        _print_refusal(error)
        sys.exit(2 if isinstance(error, UserError) else 1)
