"""Who fell in which stage and whether rankings held: as a frame, in words, as a figure and on the page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from small_studies import config
from staging import Far, pipeline, searched, train, worker

from optevo import keys
from optevo.reporting.figures.search import ranks_by_stage
from optevo.reporting.page.report import write_report
from optevo.reporting.stage_progress import StageProgress
from optevo.reporting.stages import correlations, funnel, funnel_cells, held_cells
from optevo.reporting.text import trial_lines
from optevo.study.studies import best_trials


@pytest.fixture(scope="module")
def funneled() -> optuna.Study:
    """Five enter, one of them diverges in the first stage, three go on."""
    study = searched()
    last = best_trials(study, 5)[0].params["lr"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Far, "diverges", staticmethod(lambda candidate, steps: candidate.lr == last))
        train(study)
    return study


def test_the_funnel_says_who_fell_where_with_which_score(funneled: optuna.Study):
    frame = funnel(funneled, config())
    assert list(frame.groupby("stage").size()) == [5, 5, 3]
    assert list(frame[frame["stage"] == 0]["rank"]) == [1, 2, 3, 4, 5]
    for row in frame[frame["stage"] > 0].to_dict("records"):
        trial = funneled.trials[row["trial"]]
        assert keys.ours(trial)[keys.PROMOTED_FROM] == row["candidate"]
        assert pd.isna(row["fitness"]) if trial.value is None else row["fitness"] == trial.value
    first = frame[frame["stage"] == 1]
    assert first["rank"].isna().sum() == first["pruned_by"].str.startswith("diverged").sum() >= 1
    entered = set(frame[frame["stage"] == 2]["candidate"])
    assert set(first[~first["fell"]]["candidate"]) == entered
    assert list(frame[frame["stage"] == 2]["fell"]) == [False, True, True]


def test_the_table_begins_with_who_came_furthest(funneled: optuna.Study):
    header, *rows = funnel_cells(funnel(funneled, config()))
    assert header == ["trial", "search", "longer", "longest", ""]
    assert [row[-1] for row in rows] == ["", *["fell in longest"] * 2, *["fell in longer"] * 2]
    assert rows[0][3].endswith("(1)")
    assert rows[-1][2] == "no score"
    assert [row[3] for row in rows[-2:]] == ["", ""]


def test_rankings_are_compared_over_who_was_in_both(funneled: optuna.Study):
    frame = funnel(funneled, config())
    held = correlations(frame, np.random.default_rng(0))
    assert [(one.earlier, one.later, one.correlation.n) for one in held] == [
        ("search", "longer", 5),
        ("longer", "longest", 3),
    ]
    ranks = frame.pivot_table(index="candidate", columns="stage", values="rank", dropna=False)
    ranks[1] = ranks[1].fillna(ranks[1].max() + 1)  # who diverged is the last
    assert held[0].correlation.spearman == pytest.approx(ranks[0].corr(ranks[1], method="spearman"))
    assert held[0].correlation.low <= held[0].correlation.spearman <= held[0].correlation.high
    assert held_cells(held)[1][:3] == ["search", "longer", "5"]


def test_a_study_in_the_midst_of_a_stage_is_told_as_far_as_it_is():
    study = searched()
    assert funnel(study, config()).empty
    train(study, most=4)
    frame = funnel(study, config())
    waiting = frame[frame["trial"].isna()]
    assert len(waiting) == 1
    assert not frame["fell"].any()
    assert "waits" in [cell for row in funnel_cells(frame) for cell in row]
    assert len(correlations(frame, np.random.default_rng(0))) == 1
    assert ranks_by_stage(frame) is not None
    staged, objective = worker(study, config())
    progress = StageProgress(staged, pipeline())
    assert progress.told() == "stage 1 of 2, longer: 4 of 5 candidates done"
    while "stage 2" not in progress.told():
        staged.optimize(objective, n_trials=1)
        told = progress.lines()
    assert told[0].startswith("stage 1, longer: best ")
    assert told[0].endswith("promoted: 3 of 5")
    assert progress.counted == 5


def test_a_line_of_the_figure_ends_where_its_candidate_fell(funneled: optuna.Study):
    figure = ranks_by_stage(funnel(funneled, config()))
    ends = sorted(trace.x[-1] for trace in figure.data)
    assert ends == [1, 1, 2, 2, 2]
    assert sum("x-thin" in trace.marker.symbol for trace in figure.data) == 1
    top = next(trace for trace in figure.data if trace.x[-1] == 2 and trace.y[-1] == 1)
    assert top.line.color.startswith("#")
    assert ranks_by_stage(funnel(searched(), config())) is None


def test_the_report_has_the_funnel(funneled: optuna.Study, tmp_path: Path):
    write_report([(funneled, config())], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<h3>Stages</h3>" in page
    assert "fell in longest" in page
    assert "Spearman’s ρ" in page
    write_report([(searched(), config())], tmp_path / "report.html")
    assert "<h3>Stages</h3>" not in (tmp_path / "report.html").read_text("utf-8")


def test_a_trial_of_a_stage_says_so(funneled: optuna.Study):
    trial = funneled.trials[-1]
    lines = trial_lines(funneled, config(), trial)
    assert f"  stage 2, promoted from trial {keys.ours(trial)[keys.PROMOTED_FROM]}" in lines
    assert math.isfinite(trial.value or math.nan)
