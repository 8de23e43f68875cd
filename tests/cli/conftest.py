"""The commands that compare and take apart, on a storage in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from measuring import Memory

import optevo.run  # noqa: F401  it binds what the tests replace, and must not do so while it is replaced
from optevo.api import reports
from optevo.storage import opening


@pytest.fixture
def in_memory(optevo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line on a database that lies in memory, since making a file takes most of a test's time."""
    memory = Memory()
    for module in (opening, reports):
        monkeypatch.setattr(module, "open_storage", lambda url, create=False: memory)
    return optevo


@pytest.fixture
def compare(in_memory: Callable[..., Any]) -> Callable[..., Any]:
    """`optevo compare`, on a database in memory."""
    return lambda *arguments: in_memory("compare", *arguments)


@pytest.fixture
def ablate(in_memory: Callable[..., Any], pool: Any) -> Callable[..., Any]:
    """`optevo ablate`, on a database in memory and without processes."""
    return lambda *arguments: in_memory("ablate", "--device", "cpu", "--workers", "1", *arguments)
