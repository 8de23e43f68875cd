"""Trials whose runs look for their learning rate: what they record, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.reporting.frames import cost
from optevo.reporting.text import trial_lines
from optevo.storage.opening import open_storage
from optevo.study.check import check_study
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume
from optevo.tasks import TASKS, ScoredTask
from optevo.training.benches import make_bench
from optevo.training.run import read_run

RATES = {"first": [0.1, 1e-6], "more": [0.01], "epochs": 2, "epoch_steps": 10, "full_epochs": 4}
EASY = RATES | {"first_threshold": 0.0, "threshold": 0.0}
MOST = 3 * 2 * 10 + 40


def config(rates: dict[str, Any], **evaluation: Any) -> StudyConfig:
    chosen = {"tasks": ["digits"], "steps": 40, "seeds": [0, 1], "batch_size": 32, "pruner": "none"}
    return parse_config(
        {
            "name": "rated",
            "space": {"kind": "adamw", "lr": [1e-3]},
            "sampler": {"kind": "random", "n_trials": 2},
            "evaluation": {**chosen, "rates": rates, **evaluation},
        },
        "test",
    )


def study_of(chosen: StudyConfig, folder: Path, n_trials: int = 1) -> optuna.Study:
    bench = make_bench(chosen, "cpu", folder)
    storage = open_storage(f"sqlite:///{folder / 'rated.db'}", create=True)
    study = create_or_resume(chosen, storage, "cpu", bench.rehearse_all())
    study.optimize(Objective(bench, chosen.make_space()), n_trials=n_trials)
    return study


def test_a_trial_keeps_the_rates_and_counts_the_steps_of_its_trials(tmp_path: Path):
    study = study_of(config(EASY), tmp_path)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    runs = [read_run(run) for run in keys.ours(trial)[keys.RUNS]]
    assert [run.lr for run in runs] == [0.01, 0.01]
    assert [run.steps for run in runs] == [MOST, MOST]
    assert [run.fitness for run in runs] == [run.metric for run in runs]
    assert keys.ours(trial)[keys.TRAINED_STEPS] == 2 * MOST == cost(study).steps
    assert max(trial.intermediate_values) == 2 * MOST
    points = sorted(trial.intermediate_values)
    assert all(step % MOST > 60 or step % MOST == 0 for step in points)  # none while rates are tried
    assert check_study(study) == config(EASY)
    assert "learning rate 0.01" in "\n".join(trial_lines(study, config(EASY), trial))


def test_a_candidate_that_learns_at_no_rate_fails_and_says_how_well_it_did(tmp_path: Path):
    study = study_of(config(RATES | {"first_threshold": 0.99}), tmp_path)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.values is None
    attrs = keys.ours(trial)
    assert attrs[keys.PRUNED_BY].startswith("failed: digits, seed 0: best training score 0.")
    assert attrs[keys.PRUNED_BY].endswith("of 0.1, 1e-06; below 0.99")
    assert (attrs[keys.TRAINED_STEPS], attrs[keys.DIVERGED_AT]) == (40, 40)
    assert len(attrs[keys.RUNS]) == 1
    check_study(study)
    assert any(
        "digits, seed 0: best training score" in line for line in trial_lines(study, config(EASY), trial)
    )


@pytest.mark.parametrize("pruner", ["racing", "median"])
def test_trials_go_with_a_pruner(pruner: str, tmp_path: Path):
    study = study_of(config(EASY, pruner=pruner, seeds=[0]), tmp_path, 2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert {max(trial.intermediate_values) for trial in study.trials} == {MOST}


class Own(ScoredTask):
    name = "own"

    def score(self, candidate: Any, seed: int, steps: int) -> float:
        return 0.0


def test_a_task_that_scores_by_itself_has_no_rates_to_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(TASKS, "own", Own)
    with pytest.raises(UserError, match=r"evaluation.rates: the task 'own' scores candidates by itself"):
        make_bench(config(EASY, tasks=["own"]), "cpu", tmp_path)
