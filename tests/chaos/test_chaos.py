"""A small share of `tests.chaos.chaos`: random signals do not change what a search comes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.chaos import STUDY, chaos, storages, untroubled
from tests.chaos.outage import TEXT, full_disk, outage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]


@pytest.mark.parametrize("storage", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
@pytest.mark.parametrize("group", [1, 3], ids=["one by one", "in groups"])
def test_random_signals_change_nothing(tmp_path: Path, storage: str, group: int):
    text = STUDY.format(population=8, generations=3, steps=100, group=group)
    expected = untroubled(text, tmp_path)
    with storages(storage, tmp_path) as fresh:
        assert chaos(fresh(), tmp_path, text, expected, workers=3, signals=9, seed=1) == []


@pytest.mark.postgres
def test_a_database_that_goes_away_and_comes_back_changes_nothing(tmp_path: Path):
    assert outage(tmp_path, untroubled(TEXT, tmp_path), seconds=10) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_and_has_room_again_changes_nothing(tmp_path: Path):
    assert full_disk(tmp_path, untroubled(TEXT, tmp_path)) == []
