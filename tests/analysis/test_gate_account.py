"""`analysis.gate_account`: individuals are drawn and trained by their numbers, and the page has the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import gate_account
from optevo.training.run import Run

ROOT = Path(__file__).parents[2]
STORED = ROOT / "studies" / "results" / "gate_account" / "individuals.csv"
TIMES = ["gate_ms", "seconds"]


class Stub:
    """A bench on which everybody's accuracy is their seed's."""

    def __init__(self, *args: Any) -> None:
        pass

    def run(self, candidate: Any, task: int, seed: int) -> Run:
        metric = None if seed % 5 == 4 else seed / 10
        return Run("digits", seed, seed / 10, metric, 1.0, (), 7, 0.5, None if metric is not None else 3)


def test_the_results_page_has_the_table_of_the_individuals():
    table = gate_account.account(pd.read_csv(STORED))
    assert "\n".join(table) in (ROOT / "docs" / "results.md").read_text("utf-8")


@pytest.mark.parametrize("space", gate_account.SPACES)
def test_what_is_stored_is_what_the_gate_says(space: str):
    stored = pd.read_csv(STORED).query("space == @space").set_index("number")
    assert len(stored) == 2_000
    account = gate_account.Account(space, [])
    for number in (1, 3, 8, 1999):
        account.ask(number)
        assert account.rows[number]["refused"] == stored.loc[number, "refused"]


def test_an_interrupted_account_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(gate_account, "Bench", Stub)
    monkeypatch.setattr(gate_account, "_KEPT", 1)
    monkeypatch.setattr(gate_account, "SPACES", {"graphs": gate_account.SPACES["graphs"]})
    given = ["--individuals", "8", "--trained", "2", "--output"]
    gate_account.main([*given, str(tmp_path / "whole")])
    whole = capsys.readouterr().out
    calls = 0
    while "| graphs |" not in (said := capsys.readouterr().out):
        gate_account.main([*given, str(tmp_path / "parts"), "--seconds", "0"])
        calls += 1
        assert calls < 20
    assert calls > 3
    frames = [pd.read_csv(tmp_path / name / "individuals.csv") for name in ("whole", "parts")]
    pd.testing.assert_frame_equal(*(frame.drop(columns=TIMES) for frame in frames))
    trained = frames[0][frames[0]["steps"].notna()]
    assert trained["refused"].value_counts().tolist() == [2, 2]
    assert "of 8," in whole
    assert "of 8," in said
