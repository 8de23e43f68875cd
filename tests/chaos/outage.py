"""A database that goes away in the middle of a search, and a disk that fills up.

    python -m tests.chaos.outage [--seconds 30]

PostgreSQL is stopped (`immediate`, as in a crash) while two workers are at it and started again half a minute
later: the same worker processes go on by themselves. A small tmpfs is filled while a search writes to SQLite
there: the command ends with an error that says so, the database still opens, and once there is room the same
command completes the search. Both end as one worker's search that nothing disturbed; exit status 1 where
they don't. The second part needs root, for mounting.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from optevo.storage.opening import open_storage
from optevo.study.studies import load_study
from tests.chaos.chaos import STUDY, Outcome, Search, outcome, untroubled
from tests.postgres import Postgres

TEXT = STUDY.format(population=10, generations=4, steps=100, group=1)
PATIENCE = 600


def wait(condition: Callable[[], bool], what: str) -> None:
    """Until `condition` holds.

    Raises:
        TimeoutError: It never did.
    """
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.1)


def outage(folder: Path, expected: Outcome, seconds: float) -> list[str]:
    """PostgreSQL is away for so long; what is wrong afterwards."""
    with Postgres() as server:
        search = Search(folder, server.fresh_url(), TEXT, workers=2)
        try:
            wait(lambda: search.counted() >= 12, "no trial ends")
            before = {process.pid for process in search.living()}
            server.stop()
            time.sleep(seconds)
            after = {process.pid for process in search.living()}
            server.start()
            wait(lambda: not search.goes_on(), "the search does not end after the outage")
            slots, faults = outcome(search.study())
        finally:
            search.end()
    log = search.log.read_text()
    if before != after or "another takes its place" in log:
        faults.append("a worker did not outlive the outage")
    if slots != expected:
        faults.append("the outcome differs")
    print(f"PostgreSQL away for {seconds:.0f} s, {len(before)} workers: {'; '.join(faults) or 'identical'}")
    return faults


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes.

    Raises:
        PermissionError: Mounting needs root.
    """
    if os.geteuid():
        raise PermissionError("mounting a tmpfs needs root")
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "optevo", name]
        subprocess.run(command, check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def full_disk(folder: Path, expected: Outcome) -> list[str]:
    """The disk fills up in the middle; what is wrong afterwards."""
    faults = []
    with small_disk(64) as disk:
        url, filler = f"sqlite:///{disk / 'a.db'}", disk / "filler"
        search = Search(folder, url, TEXT, workers=2)
        try:
            wait(lambda: search.counted() >= 12, "no trial ends")
            with contextlib.suppress(OSError), filler.open("wb") as stream:
                while True:
                    stream.write(b"\0" * 4096)
                    stream.flush()
            status = search.process.wait(PATIENCE)
            said = "is full; nothing stored is lost: make room" in search.log.read_text()
            if status != 2 or not said or "Traceback" in search.log.read_text():
                faults.append(f"status {status} and no clear error:\n{search.log.read_text()[-2000:]}")
            kept = len(load_study(open_storage(url), "chaos")[0].trials)  # it opens, with the disk still full
            filler.unlink()
            again = Search(folder, url, TEXT, workers=2)
            try:
                wait(lambda: not again.goes_on(), "the search does not end after room was made")
                slots, more = outcome(again.study())
            finally:
                again.end()
        finally:
            search.end()
    if slots != expected:
        faults.append("the outcome differs")
    faults += more
    print(f"disk full at trial {kept}, then room made: {'; '.join(faults) or 'identical'}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = untroubled(TEXT, folder)
        faults = outage(folder, expected, args.seconds)
        faults += full_disk(folder, expected)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
