"""`optevo.search` and `optevo.sweep`: a search from Python, and from the command line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from optevo.api.result import SearchResult
from optevo.api.settings import Section, Source, configuration
from optevo.errors import UserError
from optevo.live import make_console
from optevo.storage.opening import open_storage
from optevo.study.studies import load_study
from optevo.tasks.roots import data_root

#: Where studies lie, if neither the argument nor OPTEVO_STORAGE says so.
DEFAULT_STORAGE = "sqlite:///optevo.db"


def search(
    study: Source | None = None,
    *,
    tasks: str | Sequence[str | Mapping[str, Any]] | None = None,
    model: Callable[[], Any] | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    loss: str | Callable[..., Any] = "cross_entropy",
    metric: str | Callable[..., Any] = "accuracy",
    name: str | None = None,
    seed: int | None = None,
    generations: int | None = None,
    population: int | None = None,
    trials: int | None = None,
    steps: int | None = None,
    seeds: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    space: Section | None = None,
    sampler: Section | None = None,
    evaluation: Mapping[str, Any] | None = None,
    rerun: Mapping[str, Any] | None = None,
    storage: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | Console = True,
    stop_after: int | None = None,
    cluster: str | None = None,
    accept_environment: bool = False,
) -> SearchResult:
    """Search for an optimizer, or go on with a search: the same call resumes what is in the database.

    A study is a file, a table of what such a file holds, or described by keyword arguments; those change
    what a file says. A search that is complete returns at once. With more generations or trials than before
    it goes on, and its best are measured again.

    Args:
        study: A study file, its content, or a configuration. Default: None, the arguments say all.
        tasks: What candidates train on: names of tasks, or tables with name and options.
        model: In the place of `tasks`, a function that makes a network of your own. It then trains in this
            process, with one worker.
        train: What it trains on: inputs and targets, two tensors or arrays, or a map-style data set of torch.
        validation: The same, for fitness. Default: a share of 15 % of `train`.
        test: The same, for `compare`. Default: None.
        loss: A name, or of outputs and targets their mean loss. Default: "cross_entropy".
        metric: A name, or of outputs and targets a number, the higher the better. Default: "accuracy".
        name: Of the study. Default: its tasks', "own" with a model.
        seed: Of the search. Default: 0.
        generations: Of a genetic search. Default: 50.
        population: Members of a generation. Default: 50.
        trials: Of a random search or TPE, which have no generations.
        steps: Mini-batches a run. Default: 500.
        seeds: Of the runs: how many, or which. Default: 0 and 1.
        batch_size: Examples a mini-batch. Default: 128.
        space: What is searched: a kind or the table ``[space]`` of a study file. Default: "terms".
        sampler: The same of ``[sampler]``. Default: "genetic"; "random" where `trials` is given.
        evaluation: More keys of ``[evaluation]``.
        rerun: Keys of ``[rerun]``.
        storage: URL of the database. Default: $OPTEVO_STORAGE, else ``sqlite:///optevo.db``.
        workers: Processes. Default: one a core, or one a GPU.
        device: "auto", "cpu", "cuda" or "cuda:N". Default: "auto".
        data_dir: Where data sets lie. Default: $OPTEVO_DATA, else a cache folder.
        progress: Whether to show how the search stands, or the console to show it on. Default: True.
        stop_after: Stop after so many more trials. Default: None, when the search is complete.
        cluster: Address of a Dask scheduler to hand the workers to. Default: None, they run here.
        accept_environment: Go on with another optevo or torch than it was begun with. Default: False.

    Returns:
        What the search has come to.

    Raises:
        UserError: A value is wrong, or the database has another study of this name.
        RunFailed: The workers could not complete the search.
        KeyboardInterrupt: It was stopped; what is done has been recorded.

    Example:
        >>> result = optevo.search(
        ...     tasks="digits", generations=2, population=5, steps=2, seeds=1,
        ...     rerun={"candidates": 1, "seeds": 2}, progress=False,
        ... )
        >>> len(result.study.trials)
        7

        With a network and data of one's own:

        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> result = optevo.search(
        ...     model=lambda: torch.nn.Linear(2, 2), train=(x, (x.sum(1) > 0).long()), name="sums",
        ...     generations=1, population=4, steps=2, seeds=1,
        ...     rerun={"candidates": 1, "seeds": 2}, progress=False,
        ... )
        >>> print(result.name, result.complete)
        sums True
    """
    if model is not None or train is not None:
        if model is None or train is None or tasks is not None:
            raise UserError("a network of your own takes model and train together, and no tasks beside them")
        from optevo.tasks.own.given import give  # noqa: PLC0415  imports torch

        name = name or "own"
        tasks = [give(name, model, train, validation, test, loss=loss, metric=metric)]
    config = configuration(
        study,
        name=name,
        seed=seed,
        tasks=tasks,
        generations=generations,
        population=population,
        trials=trials,
        steps=steps,
        seeds=seeds,
        batch_size=batch_size,
        space=space,
        sampler=sampler,
        evaluation=evaluation,
        rerun=rerun,
    )
    from optevo.run import run  # noqa: PLC0415  imports torch

    url = storage_url(storage)
    with quiet_optuna():
        run(
            config,
            storage_url=url,
            workers=workers,
            device=device,
            data_root=data_root(data_dir, needed=False),
            console=console_for(progress),
            trials=stop_after,
            cluster=cluster,
            own_data_root=data_dir is not None,
            accept_environment=accept_environment,
        )
        return SearchResult(*load_study(open_storage(url), config.name))


def sweep(
    optimizer: str = "adamw",
    *,
    trials: int | None = None,
    space: Mapping[str, Any] | None = None,
    **options: Any,
) -> SearchResult:
    """Tune the learning rate and weight decay of a usual optimizer, which winners are compared with.

    Args:
        optimizer: "adamw", "sgd", "lion" or another kind of space that is a baseline's. Default: "adamw".
        trials: Of TPE, between the least and the greatest values. Default: None, a grid of all values.
        space: More of the sweep: ``lr``, ``weight_decay``, ``schedule``. Default: the optimizer's own.
        **options: As of `search`.

    Returns:
        What the sweep has come to.

    Raises:
        UserError: See `search`.

    Example:
        >>> grid = {"lr": [1e-3, 1e-2], "weight_decay": [0.01], "schedule": "warmup_cosine"}
        >>> result = optevo.sweep(
        ...     "adamw", space=grid, tasks="digits", name="tuned", steps=2, seeds=1,
        ...     rerun={"candidates": 1, "seeds": 2}, progress=False,
        ... )
        >>> result.best.params["lr"] in (1e-3, 1e-2)
        True
    """
    settings = {"space": {"kind": optimizer, **(space or {})}, **options}
    settings.setdefault("sampler", "grid" if trials is None else "tpe")
    tasks = options.get("tasks")
    if isinstance(tasks, str):
        settings.setdefault("name", f"{optimizer}-{tasks}")
    return search(trials=trials, **settings)


def storage_url(storage: str | None) -> str:
    """Where studies lie: the argument, else OPTEVO_STORAGE, else a file in the current folder."""
    return storage or os.environ.get("OPTEVO_STORAGE") or DEFAULT_STORAGE


def console_for(progress: bool | Console) -> Console:
    """What shows how far something is; one that shows nothing where nobody wants to know."""
    if isinstance(progress, Console):
        return progress
    return make_console() if progress else Console(quiet=True, force_terminal=False, force_jupyter=False)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna tells of errors only within the block."""
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        yield
    finally:
        optuna.logging.set_verbosity(before)
