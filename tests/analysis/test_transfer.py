"""Winners on what nobody tuned on: runs that go on after a kill, and their paired differences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis import transfer
from optevo.optim import PRESETS
from optevo.optim.candidate import Candidate

CANDIDATES: dict[str, Candidate] = {"adamw": PRESETS["adamw"], "ours": PRESETS["cautious_ortho_conv"]}


def test_runs_go_on_where_they_were_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "runs.csv"
    whole = transfer.measured(CANDIDATES, ["breast_cancer"], [0, 1], 5, path)
    assert whole[["study", "steps", "seed"]].to_dict("list") == {
        "study": ["adamw", "ours"] * 2,
        "steps": [5] * 4,
        "seed": [0, 0, 1, 1],
    }
    assert whole["metric"].between(0.5, 1).all()
    whole[:3].to_csv(path, index=False)
    trained = []
    original = transfer.train

    def noted(*args: object, **options: object) -> object:
        trained.append(options["seed"])
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "train", noted)
    again = transfer.measured(CANDIDATES, ["breast_cancer"], [0, 1], 5, path)
    assert trained == [1]
    pd.testing.assert_series_equal(again["metric"], whole["metric"])


def test_differences_pair_by_seed_and_a_diverged_run_has_nothing():
    runs = pd.DataFrame(
        [
            *({"study": "a", "set": "x", "steps": 5, "seed": s, "metric": 0.5 + s / 10} for s in range(4)),
            *({"study": "b", "set": "x", "steps": 5, "seed": s, "metric": 0.6 + s / 10} for s in range(3)),
            {"study": "b", "set": "x", "steps": 5, "seed": 3, "metric": None},
        ]
    )
    a, b = transfer.differences(runs, "a").to_dict("records")
    assert (a["n"], b["n"]) == (4, 4)
    assert b["difference"] == pytest.approx((0.1 * 3 - 0.8) / 4)
    assert pd.isna(a["difference"])


@pytest.mark.parametrize("name", ["breast_cancer", "residual"])
def test_networks_are_those_that_are_told(name: str):
    make, *_ = transfer.SETS[name]
    model = make().model(torch.Generator().manual_seed(0))
    count = sum(p.numel() for p in model.parameters())
    assert count == {"breast_cancer": 4_130, "residual": 46_970}[name]
    assert f"{count:,}" in (type(make()).__doc__ or "") or name == "breast_cancer"


def test_the_table_is_standardised_by_its_training_part():
    splits = transfer.BreastCancer().load(Path())
    assert [len(splits[key]) for key in ("train", "validation", "test")] == [300, 100, 169]
    torch.testing.assert_close(splits["train"].inputs.mean(0), torch.zeros(30), rtol=0, atol=1e-5)
    torch.testing.assert_close(splits["train"].inputs.std(0), torch.ones(30))
