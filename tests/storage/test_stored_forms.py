"""What studies have stored of a candidate's form, this code knows it by: nothing stored is orphaned."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from optevo import keys
from optevo.storage.study_file import read_study
from optevo.study.studies import load_study

RESULTS = Path(__file__).parents[2] / "studies" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_a_stored_form_is_one_of_the_candidate_of_its_parameters(path: Path, quiet_optuna: None):
    study, config = load_study(read_study(path), None)
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    assert trials
    for trial in trials:
        candidate = config.make_space().candidate(trial.params)
        assert keys.ours(trial)[keys.CANONICAL] == candidate.canonical()
