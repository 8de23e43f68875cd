"""`optevo task`: whether a task can be searched on, before a search is begun."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from optevo.cli.options import DataDir, Device, console
from optevo.errors import UserError

if TYPE_CHECKING:
    from optevo.tasks import ScoredTask, Task
    from optevo.training.check_data import Finding

app = typer.Typer(help="Tasks: whether one can be searched on.", no_args_is_help=True)


@app.command("check")
def task_check(
    name: Annotated[
        str, typer.Argument(help="A task's name, module:Class, or a study file, for all of its tasks.")
    ],
    only: Annotated[str | None, typer.Option("--only", help="Of a study file's tasks, this one.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a run. Two are trained, with Adam.")] = 50,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples a batch. Default: the study file's, or 128.")
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Train a few steps with Adam, and say what is wrong with a task and what to do.

    Looked at are the data (the same every time, no example in two splits, one shape, all classes), model,
    batches, loss, gradients, score, random generators, speed and memory. The exit status is 1 where
    something is wrong.

    Examples: optevo task check rings:Rings, optevo task check rings.toml --only rings
    """
    from optevo.tasks.roots import data_root
    from optevo.workers.supervisor import trying_tasks

    found: dict[str, list[Finding]] = {}
    with trying_tasks():
        tasks, budget = _tasks(name, only)
        if batch_size is not None:
            budget["batch_size"] = batch_size
        root = data_root(data_dir, needed=False)
        from optevo.training.check_task import check_task

        for task in tasks:
            found[task.name] = check_task(task, root, device=device, steps=steps, **budget)
    if as_json:
        rows = {name: [dataclasses.asdict(one) for one in some] for name, some in found.items()}
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for one, some in found.items():
            _print(one, some)
    if any(finding.verdict == "wrong" for some in found.values() for finding in some):
        raise typer.Exit(1)


def _tasks(name: str, only: str | None) -> tuple[list[Task | ScoredTask], dict[str, Any]]:
    """The tasks that a name stands for, and what their study file says of the budget."""
    from optevo.study.config import load_config
    from optevo.tasks import get_task

    if not name.endswith(".toml"):
        if only is not None:
            raise UserError(f"--only chooses among the tasks of a study file, and {name!r} is none")
        return [get_task(name)], {}
    config = load_config(Path(name))
    tasks = [one.make() for one in config.evaluation.tasks]
    if only is not None:
        there = [task.name for task in tasks]
        tasks = [task for task in tasks if task.name == only]
        if not tasks:
            raise UserError(f"{name} has no task {only!r}, but {', '.join(there)}")
    return tasks, config.evaluation.model_dump(include={"batch_size", "precision"})


def _print(task: str, findings: list[Finding]) -> None:
    columns = ("check", "verdict", "found", "what to do")
    table = Table(*(Column(one, overflow="fold") for one in columns), title=task, title_justify="left")
    for one in findings:
        table.add_row(one.check, one.verdict, one.found, one.remedy)
    console.print(table)
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in ("wrong", "look")}
    wrong = f"{counts['wrong']} wrong" if counts["wrong"] else "nothing is wrong"
    console.print(f"{task}: {wrong}" + f", {counts['look']} to look at" * bool(counts["look"]))
