"""Reaching a Dask scheduler, and through it a Dask worker, without Dask's chatter."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optevo.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10.0
RECONNECT_SECONDS = 60.0  # that a client tries to, before it closes itself
_AGAIN_SECONDS = 1.0
T = TypeVar("T")


def connect(address: str) -> Client:
    """A client of the scheduler at an address, such as ``tcp://10.0.0.1:8786``, or of a scheduler file's.

    Raises:
        UserError: distributed isn't installed, or no scheduler answers.
    """
    try:
        from distributed import Client, Security  # noqa: PLC0415  an extra
        from distributed.versions import VersionMismatchWarning  # noqa: PLC0415
    except ImportError:
        raise UserError("--cluster needs dask.distributed: pip install 'optevo[cluster]'") from None
    # Each broken connection would be told of there, and is here in one line.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"distributed", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)  # see `remote.probe`
    if address.endswith(".json"):
        try:
            address = json.loads(Path(address).read_text())["address"]
        except (OSError, ValueError, LookupError) as e:
            raise UserError(f"cannot use the scheduler file {address}: {e}") from None
    security = Security()  # as Dask's own configuration has it
    try:
        asyncio.run(_greet(address, security.get_connection_args("client")))
        return Client(
            address, security=security, timeout=RECONNECT_SECONDS, set_as_default=False, name="optevo"
        )
    except (OSError, ValueError, ImportError) as e:
        raise UserError(f"no Dask scheduler answers at {address}: {e or 'it says nothing'}") from None


async def _greet(address: str, connection: dict[str, Any]) -> None:
    """Ask who is there: a client would wait for ever for something that takes connections but isn't Dask."""
    from distributed.core import rpc  # noqa: PLC0415

    async with asyncio.timeout(CONNECT_SECONDS), rpc(address, connection_args=connection) as scheduler:
        if (found := (await scheduler.identity())["type"]) != "Scheduler":
            raise ValueError(f"there is a {found}")


async def answered(client: Client, call: Callable[[], Awaitable[T]]) -> T:
    """What a call to the scheduler gives; made again for as long as the connection is broken.

    Raises:
        ConnectionError: The client has closed itself.
    """
    while client.status != "closed":
        with suppress(OSError):
            if client.status != "closing":
                return await call()
        await asyncio.sleep(_AGAIN_SECONDS)
    raise ConnectionError("the scheduler answers no more")


async def run_in(client: Client, address: str, function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns or raises in a Dask worker, past the scheduler's queue."""

    async def run() -> Any:
        options: dict[str, Any] = {"workers": [address], "on_error": "return", "asynchronous": True}
        answer = (await client.run(function, *args, **options))[address]
        if isinstance(answer, OSError):
            raise answer  # not reached; the scheduler will tell when the Dask worker is gone for good
        return answer

    return await answered(client, run)
