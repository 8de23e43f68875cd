"""What a reader is told before the numbers of a comparison."""

from __future__ import annotations

from typing import Any

import pytest
from example_studies import EVALUATION, Loaded, grid, run, search

from optevo.measurement import test_split
from optevo.measurement.fresh_seeds import Result
from optevo.reporting.caveats import caveats
from optevo.reporting.comparison import Entry
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def entry(loaded: Loaded, trial: int = 1, attempt: int = 1, torch: str = "x", **changes: Any) -> Entry:
    study, config = loaded
    runs = tuple(Run(**{**run("digits", seed, 0.9, **changes)}) for seed in (0, 1))
    test = test_split.TestEvaluation(study.study_name, trial, attempt, 20, runs, {"torch": torch})
    return Entry(study, config, Result(trial, ()), test)


def test_a_search_with_nothing_wrong_has_none():
    assert caveats([entry(search())], "metric") == []


@pytest.mark.parametrize(
    ("loaded", "changes", "said"),
    [
        ({"evaluation": {**EVALUATION, "split": "test"}}, {}, "was selected on the test split"),
        ({"space": {"presets": ["evolved"]}}, {}, "names the preset evolved"),
        ({}, {"loss": None, "losses": []}, "its tasks score by themselves"),
        ({}, {"attempt": 2}, "this is reading 2 of the test split"),
        (
            {},
            {"metric": None, "diverged_at": 3},
            "2 of 2 runs diverged, which counts as less than any metric",
        ),
    ],
    ids=["selected on test", "evolved", "scored", "second reading", "diverged"],
)
def test_each_of_them_is_said_with_the_study_s_name(loaded: dict, changes: dict, said: str):
    (caveat,) = caveats([entry(search(n_trials=2, **loaded), **changes)], "metric")
    assert caveat.startswith("one")
    assert said in caveat


def test_other_environments_are_said_once():
    first, second = entry(search(n_trials=2)), entry(search(n_trials=2, name="two"), torch="y")
    (caveat,) = caveats([first, second], "metric")
    assert "different environments" in caveat


def test_other_budgets_of_the_searches_are_said_once():
    first = entry(search(n_trials=2))
    equal = {**EVALUATION, "budget": "flops"}
    (caveat,) = caveats([first, entry(search(n_trials=2, name="two", evaluation=equal))], "metric")
    assert "some with equal operations" in caveat


@pytest.mark.parametrize(
    ("lr", "decay", "said"),
    [
        (1e-3, 0.1, [("weight_decay", "greatest")]),
        (1e-4, 0.0, [("lr", "least")]),  # no decay at all is no end that one could go beyond
        (1e-2, 0.1, [("lr", "greatest"), ("weight_decay", "greatest")]),
        (1e-3, 0.0, []),
    ],
)
def test_a_sweep_s_best_at_an_end_may_not_be_tuned(lr: float, decay: float, said: list[tuple[str, str]]):
    study, config = grid()
    (trial,) = [t.number for t in study.trials if t.params == {"lr": lr, "weight_decay": decay}]
    found = caveats([entry((study, config), trial)], "metric")
    assert [(caveat.split()[3].strip(","), caveat.split()[8]) for caveat in found] == said
