"""`analysis.cost`: trials × runs × steps × operations of a study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis import cost
from optevo.study.config import load_config
from optevo.training import operations

QUICK = Path(__file__).parents[2] / "studies" / "joint" / "quick.toml"


def test_a_search_costs_its_screening_and_its_full_trials(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    counted = operations.Operations(model=900, update=100, adamw=100)
    monkeypatch.setattr(cost, "operations_a_step", lambda *args: counted)
    frame = cost.costs(load_config(QUICK)).set_index("evaluation")
    screening, full = frame.loc["screening"], frame.loc["full"]
    assert (screening["trials"], screening["steps"]) == (24, 100 + 7 * 40)
    assert (full["trials"], full["steps"]) == (4 + 3 * 4 * 3, 200 + 7 * 40)
    assert full["total"] == 40 * 480 * 1000
    cost.main([str(QUICK), "--speed", "1000"])
    assert "at most 28,320 steps, 2.83e+07 operations: 7.9 hours at 1e+03 a second" in capsys.readouterr().out
