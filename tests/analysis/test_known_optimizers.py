"""`analysis.known_optimizers`: optimizers of one study, each against the reference on the same seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measuring import Memory

from analysis import known_optimizers
from optevo import keys
from optevo.errors import UserError
from optevo.measurement.fresh_seeds import Result, Row, store_result
from optevo.reporting.statistics import paired
from optevo.study.config import parse_config
from optevo.study.studies import create_or_resume
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")
METRICS = {"opt10": (0.8, 0.9, 0.85), "adam": (0.7, 0.75, 0.75), "none g": (0.5, None, 0.6)}


def measured(metric: float | None, seed: int) -> Run:
    diverged = 3 if metric is None else None
    fitness = -1.0 if metric is None else metric
    return Run("digits", seed, fitness, metric, 0.5, (1.0,), 9, 0.1, diverged, lr=0.1 if seed else 0.01)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(known_optimizers, "open_storage", lambda url: memory)
    config = parse_config(
        {
            "name": "known",
            "space": {"kind": "known", "names": list(METRICS)},
            "sampler": {"kind": "random", "n_trials": 3},
            "evaluation": {"tasks": ["digits"], "steps": 50, "rates": {"epochs": 1, "epoch_steps": 5}},
            "rerun": {"candidates": 1, "seeds": 3},
        },
        "test",
    )
    study, space = create_or_resume(config, memory, "cpu"), config.make_space()

    def evaluate(trial: Any) -> float:
        trial.set_user_attr(keys.CANONICAL, space.candidate(space.suggest(trial)).canonical())
        return 0.5

    study.optimize(evaluate, n_trials=3)
    assert [trial.params["optimizer"] for trial in study.trials] == list(METRICS)
    rows = [
        Row(name, None, tuple(measured(one, seed) for seed, one in enumerate(each)))
        for name, each in {**METRICS, "trial 0": METRICS["opt10"]}.items()
    ]
    store_result(study, config, Result(0, tuple(rows)))
    return memory


def test_every_optimizer_is_paired_with_the_reference(storage: Any, tmp_path: Path, capsys: Any):
    known_optimizers.main(["known", "--output", str(tmp_path)])
    frame = pd.read_csv(tmp_path / "known.csv").set_index("optimizer")
    assert list(frame.index) == ["opt10", "adam", "none g"]
    best = frame.loc["opt10"]
    gains = np.subtract(METRICS["opt10"], METRICS["adam"])
    expected = paired({"digits": gains.tolist()}, rng=np.random.default_rng(0))
    assert (best["difference"], best["low"], best["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert best["lr"] == 0.1
    assert frame.loc["none g", "diverged"] == 1
    assert pd.isna(frame.loc["adam", "difference"])
    said = capsys.readouterr().out
    assert (tmp_path / "known.md").read_text("utf-8") in said
    assert "| 1 | opt10 | 0.1 | 0.8500 ± 0.0500 | +0.1167 |" in said
    assert "1 of 3 failed" in said


def test_an_unknown_reference_is_refused(storage: Any, tmp_path: Path):
    with pytest.raises(UserError, match="--reference 'sgd'"):
        known_optimizers.main(["known", "--reference", "sgd", "--output", str(tmp_path)])
