"""Winners on what nobody tuned on: runs that go on after a kill, and their paired differences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis import transfer
from optevo.optim import PRESETS

OURS = PRESETS["cautious_ortho_conv"]


def test_runs_go_on_where_they_were_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = transfer.measured("ours", OURS, ["breast_cancer"], seeds=[0, 1], steps=5, folder=tmp_path)
    assert whole[["study", "steps", "seed"]].values.tolist() == [["ours", 5, 0], ["ours", 5, 1]]
    assert whole["metric"].between(0.5, 1).all()
    whole[:1].to_csv(tmp_path / "ours.csv", index=False)
    trained = []
    original = transfer.train

    def noted(*args: object, **options: object) -> object:
        trained.append(options["seed"])
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "train", noted)
    again = transfer.measured("ours", OURS, ["breast_cancer"], seeds=[0, 1], steps=5, folder=tmp_path)
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


def test_the_mean_over_sets_has_a_row_of_its_own():
    runs = pd.DataFrame(
        [
            {"study": study, "set": name, "steps": 5, "seed": s, "metric": 0.5 + s / 10 + gain * weight}
            for study, gain in (("a", 0.0), ("b", 0.1))
            for name, weight in (("x", 1), ("y", 2))
            for s in range(3)
        ]
    )
    last = transfer.differences(runs, "a").to_dict("records")[-1]
    assert (last["set"], last["study"], last["n"]) == ("overall", "b", 6)
    assert last["difference"] == pytest.approx(0.15)


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


def test_every_seed_has_a_division_of_the_table_of_its_own(tmp_path: Path):
    divided = [transfer.BreastCancer(split).load(Path())["test"] for split in (0, 2000, 2001)]
    assert all(len(split.targets) == 169 for split in divided)
    assert len({split.targets.sum().item() for split in divided}) == 1, "stratified"
    assert not any(torch.equal(one.inputs, divided[0].inputs) for one in divided[1:])
    options = {"seeds": [2000, 2001], "folder": tmp_path, "steps": 2}
    runs = transfer.measured("x", OURS, ["breast_cancer_splits"], **options)
    assert runs["seed"].tolist() == [2000, 2001]
