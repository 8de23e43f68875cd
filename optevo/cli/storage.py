"""`optevo storage`: copy studies between databases, keep them as files, upgrade or serve a database."""

from __future__ import annotations

# ruff: noqa: PLC0415
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from optevo.cli.completion import complete_study
from optevo.cli.options import DEFAULT_STORAGE, Storage, console
from optevo.errors import UserError

app = typer.Typer(
    help="Databases: copy studies, keep them as files, upgrade, serve to other machines.",
    no_args_is_help=True,
)
_STOP_SECONDS = 5.0  # for requests under way


@app.command()
def copy(
    source: Annotated[
        str, typer.Option("--from", help="Where the studies lie.", metavar="URL", show_default=False)
    ],
    target: Annotated[
        str, typer.Option("--to", help="Where to; made if missing.", metavar="URL", show_default=False)
    ],
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies. Default: all.", metavar="[STUDY]...")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Copy although workers are at it: what they finish is missing.")
    ] = False,
) -> None:
    """Copy studies with all trials, as from SQLite to PostgreSQL. One that was cut off is made anew."""
    import optuna

    from optevo.storage.copying import copy_studies

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for line in copy_studies(source, target, studies or (), force=force):
        console.print(line, highlight=False)


@app.command()
def save(
    study: Annotated[
        str, typer.Argument(help="The study.", show_default=False, autocompletion=complete_study)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            help="File to write, or to write over; a name in .gz is compressed.",
            show_default=False,
        ),
    ],
    storage: Storage = DEFAULT_STORAGE,
    force: Annotated[
        bool, typer.Option("--force", help="Save although workers are at it: what they finish is missing.")
    ] = False,
) -> None:
    """Save a study with all trials as one text file, fit for git; `optevo storage load` reads it."""
    import optuna

    from optevo.storage.study_file import save_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of every study, in memory too
    console.print(save_study(storage, study, output, force=force), highlight=False)


@app.command()
def load(
    file: Annotated[
        Path, typer.Argument(help="Written by `optevo storage save`.", metavar="FILE", show_default=False)
    ],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Load a study from a file into a database, which is made if missing."""
    import optuna

    from optevo.storage.study_file import load_file

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console.print(load_file(file, storage), highlight=False)


@app.command()
def upgrade(storage: Storage = DEFAULT_STORAGE) -> None:
    """Bring a database of an older optevo or Optuna up to date. Back it up, and stop its workers, before."""
    from optevo.storage.migrations import upgrade as upgrade_storage

    for line in upgrade_storage(storage):
        console.print(line, highlight=False)


@app.command()
def serve(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[
        str, typer.Option(help="Address to bind; the default is seen by this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535)
    ] = 13000,  # `storage.PROXY_PORT`, which is slow to import
) -> None:
    """Serve a database to workers on other machines, which give --storage grpc://HOST:PORT."""
    from optevo.liveness.processes import STOPS, handling
    from optevo.storage.opening import open_storage, shown

    try:
        from optevo.storage.proxy import start_server
    except (ImportError, RuntimeError) as error:  # missing, or too old for Optuna
        raise UserError(f"serving needs gRPC: try pip install 'optevo[grpc]': {error}") from None
    opened = open_storage(storage, create=True, should_stop=lambda: True)  # it is the clients who wait
    received: list[int] = []  # no threading.Event, whose lock a handler may find held by its own thread

    def request(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    with handling(request, *STOPS):
        server = start_server(opened, host, port)
        shown_host = f"[{host}]" if ":" in host else host
        console.print(
            f"serving {shown(storage)} at grpc://{shown_host}:{port} (Ctrl-C ends it)",
            highlight=False,
        )
        if host not in ("127.0.0.1", "::1", "localhost"):
            console.print(
                "there is no password: whoever reaches this address can read and change every study"
            )
        while not received:
            time.sleep(0.2)
        server.stop(_STOP_SECONDS).wait(2 * _STOP_SECONDS)
