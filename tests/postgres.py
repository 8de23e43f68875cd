"""A PostgreSQL server of one's own in a temporary folder, for tests and scripts.

>>> with Postgres() as server:  # doctest: +SKIP
...     open_storage(server.fresh_url(), create=True)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 60.0  # for the server to start or stop on a busy machine
PASSWORD = "open-sesame"  # the server takes any; messages must show none


class NoPostgres(Exception):
    """PostgreSQL's programs, or its driver, are not installed."""


class Postgres:
    """A server on a free port of the loopback interface; `with` starts it, and nothing is left afterwards.

    Attributes:
        port: Where it listens; the same after `stop` and `start`.

    Raises:
        NoPostgres: Its programs or psycopg are not installed.
    """

    def __init__(self) -> None:
        try:
            import psycopg  # noqa: F401, PLC0415  an extra
        except ImportError:
            raise NoPostgres("psycopg is not installed: pip install 'psycopg[binary]'") from None
        self._programs = _programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def __enter__(self) -> Postgres:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._user: dict[str, Any] = {}
        try:
            if hasattr(os, "geteuid") and os.geteuid() == 0:  # PostgreSQL refuses to run as root
                user, group = _ordinary_user()
                self._user = {"user": user, "group": group, "extra_groups": []}
                os.chown(self._folder, user, group)
            initdb = ["initdb", "-D", "data", "-U", "optevo", "-A", "trust", "-E", "UTF8"]
            self._run(*initdb, "--locale=C", "--no-sync")
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(immediate=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the database that is always there."""
        return self._url("postgres")

    def fresh_url(self) -> str:
        """Of a new empty database."""
        name = f"fresh_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as the server's owner."""
        import psycopg  # noqa: PLC0415

        address: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "dbname": database}
        with psycopg.connect(**address, user="optevo", autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "fsync": "off",
            "max_connections": 100,
        }
        command = [str(self._programs / "postgres"), "-D", "data"]
        command += [f"--{key}={value}" for key, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, env=self._env(), **self._user
            )
        until = time.monotonic() + _SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    log_text = (self._folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{log_text}") from error
            time.sleep(0.1)

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, throwing its clients out.

        Args:
            immediate: As in a crash: it recovers when started. Default: False.
        """
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                self._process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._env(),
            capture_output=True,
            text=True,
            check=False,
            **self._user,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def _env(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C"}

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://optevo:{PASSWORD}@127.0.0.1:{self.port}/{database}"


def _programs() -> Path:
    """The folder of `initdb` and `postgres`; Debian's packages keep them out of the PATH."""
    on_path = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: [len(f.parent.name), f])
    for folder in [*([Path(on_path).resolve().parent] if on_path else []), *reversed(folders)]:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoPostgres("PostgreSQL's programs are not installed: apt-get install postgresql")


def _ordinary_user() -> tuple[int, int]:
    import pwd  # noqa: PLC0415  not everywhere

    users = {entry.pw_name: (entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()}
    return next(users[name] for name in ("postgres", "nobody", "daemon") if name in users)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server, shared by the session's tests: each takes a `fresh_url`."""
    try:
        server = Postgres()
    except NoPostgres as reason:
        pytest.skip(str(reason))
    with server:
        yield server
