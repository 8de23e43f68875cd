"""The numbers of an ablation: the frame of its variants, and the account of the gain over tuned AdamW."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from comparing import a_run

from optevo.optim.candidate import WINNER
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.variants import HYPER, SCALED, SCHEDULED, TUNED, variants
from optevo.reporting.ablation import ablation_cells, ablation_frame, account, account_cells, difference
from optevo.reporting.statistics import BETTER, UNDECIDED, UNTESTED, WORSE, holm
from optevo.training.run import Run

ACCOUNT = variants(PRESETS["adamw"], PRESETS["adamw"]).account


def runs_of(scores: Mapping[str, Sequence[float | None]]) -> tuple[Run, ...]:
    return tuple(a_run(task, 2000 + i, s) for task, each in scores.items() for i, s in enumerate(each))


@pytest.fixture
def runs() -> dict[str, tuple[Run, ...]]:
    """Of every variant of the account and some more, on two tasks with four seeds."""
    means = {
        WINNER: 0.8,
        "without GRAD": 0.79,
        "without ADAM_TERM": 0.3,
        HYPER: 0.73,
        SCALED: 0.75,
        TUNED: 0.6,
        SCHEDULED: 0.7,
    }
    rng = np.random.default_rng(0)
    return {
        name: runs_of({task: (mean + rng.normal(0, 0.01, 4)).tolist() for task in ("a", "b")})
        for name, mean in means.items()
    }


def by_seed(runs: Sequence[Run], measure: str = "metric") -> np.ndarray:
    values = [[getattr(run, measure) for run in runs if run.task == task] for task in ("a", "b")]
    return np.mean(values, axis=0)


@pytest.mark.parametrize("measure", ["metric", "fitness"])
def test_the_frame_follows_from_the_runs(runs: dict[str, tuple[Run, ...]], measure: str):
    frame = ablation_frame(runs, measure).set_index("variant")
    assert list(frame.index) == list(runs)
    for name, own in runs.items():
        row, values = frame.loc[name], by_seed(own, measure)
        assert (row["mean"], row["sd"]) == pytest.approx((values.mean(), values.std(ddof=1)))
        assert row["n"] == 4
        if name != WINNER:
            assert row["difference"] == pytest.approx(values.mean() - frame.loc[WINNER, "mean"])


def test_holms_correction_is_over_all_variants_but_the_winner(runs: dict[str, tuple[Run, ...]]):
    frame = ablation_frame(runs, "metric").set_index("variant").drop(index=WINNER)
    expected = holm([difference(runs[name], runs[WINNER], "metric").p for name in frame.index])
    assert list(frame["p_holm"]) == pytest.approx(expected)
    assert frame.loc["without ADAM_TERM", "verdict"] == WORSE
    assert all(p >= own for p, own in zip(frame["p_holm"], frame["p"], strict=True))


def test_a_variant_that_is_the_winner_is_no_different(runs: dict[str, tuple[Run, ...]]):
    frame = ablation_frame({WINNER: runs[WINNER], HYPER: runs[WINNER]}, "metric").set_index("variant")
    assert frame.loc[HYPER, "difference"] == 0
    assert frame.loc[HYPER, "verdict"] == UNDECIDED


@pytest.mark.parametrize("measure", ["metric", "fitness"])
def test_a_variant_that_diverges_is_below_any_and_is_not_tested(measure: str):
    runs = {WINNER: runs_of({"a": [0.8, 0.9, 0.8]}), "without GRAD": runs_of({"a": [None, 0.9, 0.8]})}
    frame = ablation_frame(runs, measure)
    row = frame.set_index("variant").loc["without GRAD"]
    assert (row["mean"], row["difference"], row["p"]) == (-math.inf, -math.inf, 1.0)
    assert (row["low"], row["high"], row["verdict"]) == (-math.inf, math.inf, UNTESTED)
    assert math.isnan(row["sd"])
    cells = dict(zip(*(ablation_cells(frame)[i] for i in (0, 2)), strict=True))
    assert (cells["mean ± sd"], cells["− the winner"]) == ("diverged (1 of 3)", "diverged")
    assert (cells["95 % interval"], cells["verdict"]) == ("none", UNTESTED)


@pytest.mark.parametrize("measure", ["metric", "fitness"])
def test_the_accounts_three_parts_add_up_to_the_whole(runs: dict[str, tuple[Run, ...]], measure: str):
    whole, *parts = [estimate for _, estimate, _ in account(runs, measure, ACCOUNT)]
    assert len(parts) == 3
    assert sum(part.mean for part in parts) == pytest.approx(whole.mean, abs=1e-12)
    gain = by_seed(runs[WINNER], measure).mean() - by_seed(runs[TUNED], measure).mean()
    assert whole.mean == pytest.approx(gain)


def test_the_accounts_parts_are_not_tested_where_a_run_diverged(runs: dict[str, tuple[Run, ...]]):
    first = dataclasses.replace(runs[SCHEDULED][0], metric=None, fitness=-1.0, diverged_at=3)
    runs[SCHEDULED] = (first, *runs[SCHEDULED][1:])
    for measure in ("metric", "fitness"):
        parts = account(runs, measure, ACCOUNT)
        cells = [(cell[1], cell[3]) for cell in account_cells(parts)[2:]]
        assert {("diverged", UNTESTED), ("the other diverged", UNTESTED)} < set(cells)
        assert all(math.isfinite(e.mean) == (said != UNTESTED) for _, e, said in parts)


def test_each_part_of_the_account_is_the_step_that_its_name_says(runs: dict[str, tuple[Run, ...]]):
    mean = {name: by_seed(own).mean() for name, own in runs.items()}
    found = {what: estimate.mean for what, estimate, _ in account(runs, "metric", ACCOUNT)}
    assert found == pytest.approx(
        {
            "the winner − tuned AdamW": mean[WINNER] - mean[TUNED],
            "of it the schedule": mean[SCHEDULED] - mean[TUNED],
            "of it the hyperparameters": mean[SCALED] - mean[SCHEDULED],
            "of it the rule": mean[WINNER] - mean[SCALED],
        }
    )


def test_the_accounts_verdicts_are_after_holms_correction():
    """The rule's part, alone, would be called; among four it is not."""
    rng = np.random.default_rng(4)
    noise = {name: rng.normal(0, 0.02, 5) for name in (WINNER, SCALED, SCHEDULED, TUNED)}
    means = {WINNER: 0.60, SCALED: 0.55, SCHEDULED: 0.52, TUNED: 0.50}
    runs = {name: runs_of({"a": (means[name] + noise[name]).tolist()}) for name in means}
    found = account(runs, "metric", ACCOUNT)
    p = [estimate.p for _, estimate, _ in found]
    for (_, estimate, verdict), adjusted in zip(found, holm(p), strict=True):
        called = adjusted < 0.05 and (estimate.low > 0 or estimate.high < 0)
        assert verdict == ((BETTER if estimate.mean > 0 else WORSE) if called else UNDECIDED)
    assert any(adjusted >= 0.05 and one < 0.05 for one, adjusted in zip(p, holm(p), strict=True))


@pytest.mark.parametrize("missing", [TUNED, SCHEDULED, SCALED])
def test_without_adamws_variants_there_is_no_account(runs: dict[str, tuple[Run, ...]], missing: str):
    del runs[missing]
    assert account(runs, "metric", ACCOUNT) == []


def test_the_accounts_cells_show_sign_and_interval(runs: dict[str, tuple[Run, ...]]):
    header, *rows = account_cells(account(runs, "metric", ACCOUNT))
    assert len(rows) == 4
    assert {len(row) for row in rows} == {len(header)}
    assert all(row[1][0] in "+-" for row in rows)
    assert all(math.isfinite(float(row[1])) for row in rows)
