"""A small share of `tests.chaos.chaos`: random signals do not change what a search comes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos.chaos import STUDY, chaos, storages, untroubled

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
