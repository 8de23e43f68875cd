"""Storages that many make at once, storages that fail, and what is logged of it."""

from __future__ import annotations

import multiprocessing
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from optevo.storage.errors import unreachable
from optevo.storage.opening import open_storage


def _create(urls: list[str], start: Any) -> None:
    for url in urls:
        start.wait(60)  # that all are here
        optuna.create_study(study_name="one", storage=open_storage(url, create=True), load_if_exists=True)


def made_at_once(urls: list[str], n: int) -> None:
    """Let `n` processes create each database at the same moment."""
    fork = multiprocessing.get_context("fork")  # what they need is imported by now
    start = fork.Barrier(n)
    creators = [fork.Process(target=_create, args=(urls, start)) for _ in range(n)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()
    assert [creator.exitcode for creator in creators] == [0] * n
    assert [len(open_storage(url).get_all_studies()) for url in urls] == [1] * len(urls)


def failing(storage: RDBStorage, times: int, error: Exception, *, after: bool = False) -> list[str]:
    """Let the storage's next commits fail; `after` they were carried out, as if their answer were lost."""
    failed: list[str] = []

    def fail(connection: Any) -> None:
        if len(failed) < times:
            failed.append(str(error))
            if after:
                connection.connection.commit()
            raise unreachable(storage.name, str(error))

    sqlalchemy.event.listen(storage.engine, "commit", fail)
    return failed


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What optevo logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("optevo")]
