"""`optevo dashboard`: optuna-dashboard with the files of the best trials."""

from __future__ import annotations

# ruff: noqa: PLC0415
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optevo.cli.options import DEFAULT_STORAGE, Storage, console
from optevo.errors import UserError

if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore


def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[str, typer.Option(help="Address to bind; the default is seen by this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    artifact_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="OPTEVO_ARTIFACTS",
            help="Where the best trials' files lie. Default: beside an SQLite database, FILE.artifacts.",
        ),
    ] = None,
) -> None:
    """Serve optuna-dashboard for the database."""
    from optuna_dashboard import run_server

    from optevo.reporting.dashboard.artifacts import artifact_folder
    from optevo.storage.opening import open_storage

    opened = open_storage(storage)
    store = artifact_store(artifact_dir or artifact_folder(storage))
    console.print(f"optuna-dashboard on http://{host}:{port}/ (Ctrl-C ends it)")
    try:
        run_server(opened, host=host, port=port, artifact_store=store)
    except OSError as error:
        raise UserError(f"cannot serve on {host}:{port}: {error.strerror}; try another --port") from None


def artifact_store(folder: Path | None) -> FileSystemArtifactStore | None:
    """The trials' files in a folder, which is made where it is missing; None, and a line, without one."""
    from optuna.artifacts import FileSystemArtifactStore

    if folder is None:
        console.print("no files of trials are shown: this storage has no folder, name one by --artifact-dir")
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)  # a search that begins later will fill it
    except OSError as error:
        if not folder.is_dir():
            console.print(f"no files of trials are shown: cannot make {folder}: {error.strerror}")
            return None
    return FileSystemArtifactStore(folder)
