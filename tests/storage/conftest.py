"""A storage on SQLite, and retries that pause no longer than a test may."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from optevo.storage import retrying
from optevo.storage.opening import open_storage


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    opened = open_storage(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    assert isinstance(opened, RDBStorage)
    return opened


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_FIRST_PAUSE", 0.01)
