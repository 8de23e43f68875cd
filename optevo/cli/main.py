"""The commands: parse, call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from optevo.cli import results as cli_analysis
from optevo.cli.options import DEFAULT_STORAGE, DataDir, Storage, check_output, console
from optevo.cli.storage import app as storage_app
from optevo.errors import RunFailed, UserError
from optevo.escaping import printable

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.liveness.status import RunningTrial
    from optevo.measurement.fresh_seeds import Result
    from optevo.study.config import StudyConfig

app = typer.Typer(
    help="Discover deep-learning optimizers. Every search is an Optuna study in a database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data = typer.Typer(help="Data sets: what is there, and getting what is not.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(storage_app, name="storage")
for command in (cli_analysis.compare, cli_analysis.ablate, cli_analysis.report):
    app.command()(command)

Study = Annotated[str | None, typer.Option(help="Name of the study; needed where there are several.")]
Which = Annotated[str, typer.Argument(help="`best`, or a trial's number.", metavar="[best|NUMBER]")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A study file, such as studies/quickstart.toml.")],
    storage: Storage = DEFAULT_STORAGE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one a core, or one a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many more trials, groups being finished.")
    ] = None,
    data_dir: DataDir = None,
    export_to: Annotated[
        Path | None,
        typer.Option("--export", help="Write the winner to this file when the study is complete."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Hand the workers to the Dask scheduler at this address.", metavar="ADDRESS"),
    ] = None,
    accept_environment: Annotated[
        bool,
        typer.Option(
            "--accept-environment", help="Go on with another optevo or torch than it was begun with."
        ),
    ] = False,
) -> None:
    """Create a study, or resume it: the same command. Ctrl-C stops it cleanly."""
    from optevo.run import check_exportable
    from optevo.run import run as run_study
    from optevo.study.config import load_config
    from optevo.tasks.roots import data_root

    config = load_config(file)
    if export_to is not None:
        check_output(export_to)
        check_exportable(config)
    try:
        result = run_study(
            config,
            storage_url=storage,
            workers=workers,
            device=device,
            data_root=data_root(data_dir),
            console=console,
            trials=trials,
            cluster=cluster,
            own_data_root=data_dir is not None,
            accept_environment=accept_environment,
        )
    except KeyboardInterrupt:
        console.print("interrupted; what was recorded stays, the same command goes on")
        raise typer.Exit(130) from None
    if result is None:
        return
    study, _ = _load(storage, config.name)
    _print_result(study, config, result)
    if export_to is not None:
        _export(study, config, study.get_trials(deepcopy=False)[result.winner], export_to, "Evolved")


@app.command()
def status(storage: Storage = DEFAULT_STORAGE) -> None:
    """Every study in the database: how far it is, its best so far, and its workers."""
    from optevo.liveness.status import running_trials
    from optevo.storage.opening import open_storage
    from optevo.study.studies import load_study, study_names

    opened = open_storage(storage)
    names = study_names(opened)
    if not names:
        console.print("no study in this database yet")
        return
    names_of_columns = ("study", "sampler", "gen.", "trials", "pruned", "failed", "running", "best", "state")
    table = Table(*(Column(name, overflow="fold") for name in names_of_columns))
    columns = ("study", "worker", "device", "trial", "gen./slot", "last heard of", "state")
    workers = Table(*(Column(name, overflow="fold") for name in columns))
    for name in names:
        try:
            study, config = load_study(opened, name)
        except UserError as error:
            table.add_row(printable(name), *[""] * 7, printable(str(error).partition(";")[0]))
            continue
        at_work = running_trials(study)
        table.add_row(*map(printable, _status_row(study, config, at_work)))
        for one in at_work:
            heard = f"{one.seconds:.0f} s ago"
            row = (name, one.name, one.device, str(one.trial.number), one.slot, heard, one.state)
            workers.add_row(*map(printable, row))
    console.print(table)
    if workers.row_count:
        console.print(workers)


@app.command()
def repair(
    study: Annotated[str, typer.Argument(help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    everything: Annotated[
        bool, typer.Option("--all", help="Take the slots of live workers too; they go on with others.")
    ] = False,
) -> None:
    """Give back what dead workers hold. Seldom needed: `run` does so by itself."""
    from optevo.liveness.status import repair as give_back

    loaded, _ = _load(storage, study)
    found = 0
    for running_trial, requeued in give_back(loaded, everything=everything):
        found += requeued
        what = "given back, to be evaluated again" if requeued else "left alone"
        where = f"generation/slot {running_trial.slot}" if running_trial.slot else "no slot yet"
        name = running_trial.name or "a worker without a name"
        console.print(
            f"trial {running_trial.trial.number}, {where}: {name} is {running_trial.state}, heard of "
            f"{running_trial.seconds:.0f} s ago: {what}"
        )
    console.print(f"{found} trials given back" if found else "nothing was left behind")


@app.command()
def show(which: Which = "best", storage: Storage = DEFAULT_STORAGE, study: Study = None) -> None:
    """A trial: its rule, lineage and runs. `best` is the winner on fresh seeds, once those were measured."""
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.reporting.text import trial_lines

    loaded, config = _load(storage, study)
    result = stored_result(loaded, config)
    if which == "best" and result is not None:
        _print_result(loaded, config, result)
        return
    for line in trial_lines(loaded, config, _pick(loaded, config, which)):
        console.print(line, highlight=False)


@app.command()
def export(
    which: Which = "best",
    output: Annotated[Path, typer.Option(help="The Python file to write.")] = Path("evolved.py"),
    class_name: Annotated[str, typer.Option(help="Name of the optimizer's class.")] = "Evolved",
    storage: Storage = DEFAULT_STORAGE,
    study: Study = None,
) -> None:
    """Write an optimizer as one file that needs torch alone (of a sweep: the package that has its class)."""
    check_output(output)
    loaded, config = _load(storage, study)
    _export(loaded, config, _pick(loaded, config, which), output, class_name)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[str, typer.Option(help="Address to bind; the default is seen by this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
) -> None:
    """Serve optuna-dashboard for the database."""
    from optuna_dashboard import run_server

    from optevo.storage.opening import open_storage

    opened = open_storage(storage)
    console.print(f"optuna-dashboard on http://{host}:{port}/ (Ctrl-C ends it)")
    try:
        run_server(opened, host=host, port=port)
    except OSError as error:
        raise UserError(f"cannot serve on {host}:{port}: {error.strerror}; try another --port") from None


@data.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets. Default: all.")] = None,
    data_dir: DataDir = None,
) -> None:
    """What is there, and its checksums."""
    from optevo.tasks.data import NAMES, check
    from optevo.tasks.roots import data_root

    root = data_root(data_dir)
    console.print(f"data root: {root}")
    columns = ("data set", "file or folder", "found", "bytes", "files", "SHA-256")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for name in names or NAMES:
        for row in check(name, root):
            size = "" if row.size is None else str(row.size)
            count = "" if row.count is None else str(row.count)
            digest = row.sha256 or ""
            known = "" if row.published is None else " (as published)" if row.published else " (other)"
            shown = row.path.relative_to(root) if row.path.is_relative_to(root) else row.path
            table.add_row(name, str(shown), "yes" if row.found else "no", size, count, digest[:16] + known)
    console.print(table)


@data.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="mnist, fashion_mnist, cifar10 or char_lm.")],
    data_dir: DataDir = None,
) -> None:
    """Download a data set, where there is a network."""
    from optevo.tasks.data import get
    from optevo.tasks.roots import data_root

    root = data_root(data_dir)
    get(name, root)
    console.print(f"{name} is complete under {root}")


@app.command(hidden=True)
def worker(
    study: str,
    parent: Annotated[int, typer.Option()],
    device: str = "auto",
    data_dir: DataDir = None,
    limit: int | None = None,
    sharing: int = 1,
) -> None:
    """One worker process; `run` starts these, with the storage in OPTEVO_STORAGE."""
    from optevo.liveness.processes import PipeSafeOutput, die_with_parent
    from optevo.tasks.roots import data_root
    from optevo.workers.pool import EXIT_TASK_BROKEN
    from optevo.workers.worker import TaskBrokenError, work

    storage = os.environ.get("OPTEVO_STORAGE")
    if storage is None:
        raise UserError("set OPTEVO_STORAGE to the database; workers are started by `optevo run`")
    root = data_root(data_dir)
    die_with_parent()
    sys.stdout = sys.stderr = PipeSafeOutput(sys.stdout)
    try:
        work(storage, study, device=device, data_root=root, parent=parent, limit=limit, sharing=sharing)
    except TaskBrokenError:
        traceback.print_exc()
        sys.exit(EXIT_TASK_BROKEN)


def _status_row(study: optuna.Study, config: StudyConfig, at_work: list[RunningTrial]) -> list[str]:
    from optuna.trial import TrialState

    from optevo import keys
    from optevo.samplers import sampler_of
    from optevo.study.studies import counted, is_complete

    sampler, trials = sampler_of(study), study.get_trials(deepcopy=False)
    by_state = {state: [t for t in trials if t.state == state] for state in TrialState}
    complete = by_state[TrialState.COMPLETE]
    gone = sum(running_trial.state != "live" for running_trial in at_work)
    lost = sum(keys.LOST in t.system_attrs for t in by_state[TrialState.FAIL])
    generation = str(max((t.user_attrs.get(keys.GENERATION, 0) for t in trials), default=""))
    state = "running" if len(at_work) > gone else "idle"
    if is_complete(study):
        done = keys.RERUN in study.user_attrs or config.rerun.candidates == 0
        state = "complete" if done else "complete, not measured"
    if config.evaluation.split == "test":
        state += ", on the test split"
    return [
        study.study_name,
        config.sampler.kind,
        generation if sampler.has_generations and sampler.n_generations != 1 else "",
        f"{counted(study)}/{config.n_trials}",
        str(len(by_state[TrialState.PRUNED])),
        str(sum(keys.ERROR in t.user_attrs for t in by_state[TrialState.FAIL]))
        + (f", {lost} lost" * (lost > 0)),
        str(len(at_work)) + f", {gone} gone" * (gone > 0),
        f"{max(t.value or 0.0 for t in complete):.4f}" if complete else "",
        state,
    ]


def _load(storage: str, name: str | None) -> tuple[optuna.Study, StudyConfig]:
    from optevo.storage.opening import open_storage
    from optevo.study.studies import load_study

    return load_study(open_storage(storage), name)


def _pick(study: optuna.Study, config: StudyConfig, which: str) -> FrozenTrial:
    """The trial that `best` or a number names."""
    from optevo.measurement.fresh_seeds import stored_result
    from optevo.study.studies import best_trials

    trials = study.get_trials(deepcopy=False)
    if which == "best":
        result = stored_result(study, config)
        return trials[result.winner] if result else best_trials(study, 1)[0]
    if not which.isdecimal() or len(which) > 9:
        raise UserError(f"{which!r} is neither `best` nor a trial's number")
    if int(which) >= len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {which}; it has {len(trials)} trials from 0 on"
        )
    return trials[int(which)]


def _print_result(study: optuna.Study, config: StudyConfig, result: Result) -> None:
    from optevo.reporting.text import result_table, trial_lines

    console.print(result_table(result))
    for line in trial_lines(study, config, study.get_trials(deepcopy=False)[result.winner]):
        console.print(line, highlight=False, soft_wrap=True)


def _export(
    study: optuna.Study, config: StudyConfig, trial: FrozenTrial, output: Path, class_name: str
) -> None:
    from optevo import __version__, keys
    from optevo.measurement.fresh_seeds import stored_result

    if keys.CANONICAL not in trial.user_attrs:
        raise UserError(f"trial {trial.number} has no optimizer to export: it is {trial.state.name}")
    evaluation = config.evaluation
    provenance = {
        "study": study.study_name,
        "trial": str(trial.number),
        "fitness in search": str(trial.value),
        "tasks": ", ".join(
            " ".join([t.name, *(f"{k}={v}" for k, v in t.options.items())]) for t in evaluation.tasks
        ),
        "split": evaluation.split,
        "steps": str(evaluation.steps),
        "seeds": ", ".join(map(str, evaluation.seeds)),
        "environment": str(study.user_attrs[keys.ENVIRONMENT]),
        "written by": f"optevo {__version__}",
    }
    result = stored_result(study, config)
    if result is not None and result.winner == trial.number:
        row = result.rows[-1]
        provenance["fitness on fresh seeds"] = f"{row.mean:.4f} ± {row.sd:.4f}, n = {len(row.by_seed)}"
    try:
        source = config.make_space().candidate(trial.params).source(class_name, provenance)
    except ValueError as error:
        raise UserError(str(error)) from None
    output.write_text(source, encoding="utf-8")
    importable = output.suffix == ".py" and output.stem.isidentifier()
    console.print(f"wrote {output}" + f": from {output.stem} import {class_name}, scheduler" * importable)


def main() -> None:
    """The console script: a user's mistake ends in a message and status 2, a fault of ours in a traceback."""
    try:
        app()
    except UserError as error:
        # Line by line: what a message quotes may come from a database.
        print("optevo:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        sys.exit(2)
    except RunFailed as error:
        print(f"optevo: {error}", file=sys.stderr)
        sys.exit(1)
