"""`optevo promote`: the best of a finished search, trained on in stages."""

from __future__ import annotations

# ruff: noqa: PLC0415, PLR0917
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optevo import keys
from optevo.cli.completion import complete_study
from optevo.cli.options import (
    DEFAULT_STORAGE,
    AcceptEnvironment,
    Cluster,
    DataDir,
    Device,
    Storage,
    Workers,
    console,
    load_one,
    print_cells,
    told_when_interrupted,
)

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig


def promote(
    study: Annotated[
        str,
        typer.Argument(help="The study's name. Its search is complete.", autocompletion=complete_study),
    ],
    stages: Annotated[
        Path, typer.Argument(help="A file with `promote` and [[stages]].", metavar="STAGES.toml")
    ],
    storage: Storage = DEFAULT_STORAGE,
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    cluster: Cluster = None,
    accept_environment: AcceptEnvironment = False,
) -> None:
    """Train a search's best in stages, the best of each going on; the same command resumes."""
    from optevo.run import promote as train_stages
    from optevo.tasks.roots import data_root

    with told_when_interrupted():
        train_stages(
            study,
            stages,
            storage_url=storage,
            workers=workers,
            device=device,
            data_root=data_root(data_dir, needed=False),
            console=console,
            cluster=cluster,
            own_data_root=data_dir is not None,
            accept_environment=accept_environment,
        )
    print_funnel(*load_one(storage, study))


def print_funnel(study: optuna.Study, config: StudyConfig) -> None:
    """Who fell in which stage, and whether rankings held; nothing for a study without stages."""
    if keys.STAGES not in study.user_attrs:
        return
    import numpy as np

    from optevo.reporting.stages import correlations, funnel, funnel_cells, held_cells

    frame = funnel(study, config)
    print_cells("score (and rank) in the search and in each stage", funnel_cells(frame))
    held = correlations(frame, np.random.default_rng(0))
    if held:
        print_cells("did the ranking hold?", held_cells(held))
