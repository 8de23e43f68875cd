"""`optevo correlate`: a cheap evaluation beside a dear one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from comparing import a_run, config, create
from optuna.trial import TrialState, create_trial

from optevo import keys
from optevo.reporting.agreement import agreements, evaluations, screened_agreement
from optevo.reporting.figures.agreement import ranks
from optevo.study.config import StudyConfig
from optevo.training.run import as_stored

pytestmark = pytest.mark.usefixtures("quiet_optuna")
Scores = Sequence[float | str | None]
CHEAP = (0.1, 0.2, 0.3, 0.4, 0.5, None, 0.6, "raced", "gate")
DEAR = (0.2, 0.1, 0.4, 0.3, None, None, 0.9, 0.95, 0.99)


def evaluated(name: str, scores: Scores, seed: int = 3) -> tuple[optuna.Study, StudyConfig]:
    """A study of random candidates, the same for the same seed; None for one that diverged."""
    sampler = {"kind": "random", "n_trials": len(scores)}
    one = config(name, sampler=sampler, seed=seed, space__presets=[])
    study, space = create(one), one.make_space()

    def evaluate(trial: optuna.Trial) -> float:
        candidate, score = space.candidate(space.suggest(trial)), scores[trial.number]
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        trial.set_user_attr(keys.FORMULA, candidate.formula())
        runs = [] if score == "gate" else [as_stored(a_run("digits", 0, None if score is None else 0.5))]
        trial.set_user_attr(keys.RUNS, runs)
        if isinstance(score, float):
            return score
        if score == "raced":
            trial.report(0.45, step=1)
        raise optuna.TrialPruned

    study.optimize(evaluate, n_trials=len(scores))
    return study, one


def test_two_studies_are_matched_by_candidate(in_memory: Callable[..., Any], tmp_path: Path) -> None:
    evaluated("cheap", CHEAP)
    evaluated("dear", DEAR)
    files = {name: tmp_path / f"{name}.csv" for name in ("table", "each")}
    answer = in_memory(
        *("correlate", "cheap", "dear", "--top", "2"),
        *("--csv", str(files["table"]), "--candidates", str(files["each"])),
    )
    assert answer.status == 0, answer
    (row,) = pd.read_csv(files["table"]).to_dict("records")
    each = pd.read_csv(files["each"])
    assert each["first_score"].tolist() == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, math.nan, 0.6], nan_ok=True
    )
    assert each["second_score"].tolist() == pytest.approx(
        [0.2, 0.1, 0.4, 0.3, math.nan, math.nan, 0.9], nan_ok=True
    )
    low = each[["first_score", "second_score"]].fillna(-9)
    assert row["spearman"] == pytest.approx(low.corr("spearman").iloc[0, 1])
    assert row["kendall"] == pytest.approx(low.corr("kendall").iloc[0, 1])
    assert (row["first"], row["second"], row["n"], row["k"]) == ("cheap", "dear", 7, 2)
    assert row["recall"] == 0.5
    assert row["low"] < row["spearman"] < row["high"]
    assert "50% of the best 2" in answer.out


@pytest.mark.parametrize(
    ("others", "options", "said"),
    [
        ((("dear", DEAR, 4),), (), "have no candidate in common"),
        ((("dear", DEAR[:2], 3),), (), "have 2 candidates in common, a rank correlation needs 3"),
        ((("dear", DEAR, 3),), ("--top", "8"), "--top 8: cheap and dear have 7 candidates in common"),
        ((), (), "in one way only"),
        ((("dear", DEAR, 3), ("third", DEAR, 3)), (), "3 studies were named"),
        ((("dear", ("gate",), 3),), (), "'dear' has no trial that was trained to the end"),
    ],
)
def test_what_cannot_be_correlated_is_told(
    in_memory: Callable[..., Any], others: tuple[tuple[str, Scores, int], ...], options: Any, said: str
) -> None:
    evaluated("cheap", CHEAP)
    for name, scores, seed in others:
        evaluated(name, scores, seed)
    answer = in_memory("correlate", "cheap", *(name for name, *_ in others), *options)
    assert answer.status == 2
    assert said in answer.err


def test_stages_and_screening_of_one_study_are_compared_with_what_follows(
    in_memory: Callable[..., Any],
) -> None:
    screening = {"kind": "particle", "initial_size": 4, "n_particles": 3, "n_steps": 1, "n_mutations": 1}
    changes = {"sampler": screening, "evaluation__screening": {"steps": 2}}
    one = config("one", **changes)
    study, space = create(one), one.make_space()

    def evaluate(trial: optuna.Trial) -> float:
        candidate = space.candidate(space.suggest(trial))
        trial.set_user_attr(keys.CANONICAL, candidate.canonical())
        trial.set_user_attr(keys.FORMULA, candidate.formula())
        trial.set_user_attr(keys.SCREENED, trial.number < 4)
        return 0.25 * trial.number

    study.optimize(evaluate, n_trials=7)
    found = screened_agreement(study, one)
    assert found is not None
    assert found.scores == ([0.25, 0.5, 0.75], [1.5, 1.25, 1.0])
    figure = ranks(found)
    assert figure is not None
    assert list(figure.data[1].x) == [3, 2, 1]
    assert list(figure.data[1].y) == [1, 2, 3]
    for stage, scores in ((1, (0.7, 0.8, 0.9)), (2, (0.3, 0.2, None))):
        for number, score in zip((4, 5, 6), scores, strict=True):
            attrs = {keys.STAGE: stage, keys.PROMOTED_FROM: number, keys.CANONICAL: "as a stage calls it"}
            runs = {keys.RUNS: [as_stored(a_run("digits", 0, None))]}
            state = TrialState.COMPLETE if score is not None else TrialState.PRUNED
            study.add_trial(create_trial(state=state, value=score, user_attrs={**attrs, **runs}))
    names = [one.name for one in evaluations(study, one)]
    assert names == ["one, screening", "one, search", "one, stage 1", "one, stage 2"]
    pairs = [(pair.first.name[5:], pair.second.name[5:]) for pair in agreements([(study, one)])]
    expected = ["screening", "search", "stage 1", "stage 2"]
    assert pairs == [*itertools.pairwise(expected), ("screening", "stage 2")]
    assert agreements([(study, one)])[2].scores == ([0.7, 0.8, 0.9], [0.3, 0.2, None])
