"""The best graphs of a particle search in stages: the same who fall, whoever works and is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from measuring import Memory
from small_studies import config, dead_worker
from staging import outcome, train, worker

from optevo import keys
from optevo.evaluation.objective import Objective
from optevo.liveness.lost import LivenessMonitor, fail_lost_trials
from optevo.optuna_private import set_trial_user_attr, storage_of
from optevo.storage.copying import copy_into
from optevo.study.config import StudyConfig
from optevo.study.studies import best_trials, create_or_resume, is_complete, load_study
from optevo.training.benches import make_bench

RATES = {
    **{"first": [0.1], "more": [], "epochs": 1, "epoch_steps": 3, "full_epochs": 1},
    **{"first_threshold": 0, "threshold": 0},  # what a few steps reach is enough
}
STAGES: dict[str, Any] = {
    "promote": 4,
    "stages": [
        {"name": "longer", "keep": 2, "steps": 8, "seeds": [0, 1]},
        {"name": "another seed", "keep": 1, "seeds": [2]},
    ],
}


@pytest.fixture(scope="module")
def one() -> StudyConfig:
    return config(
        space={"kind": "graph"},
        sampler={"kind": "particle", "initial_size": 4, "n_particles": 2, "n_steps": 1, "n_mutations": 2},
        evaluation={"tasks": ["digits"], "steps": 5, "seeds": [0], "rates": RATES, "screening": {"steps": 4}},
    )


@pytest.fixture(scope="module")
def search(one: StudyConfig) -> optuna.Study:
    """A finished one."""
    study = create_or_resume(one, Memory(), "cpu")
    objective = Objective(make_bench(one, "cpu", Path()), one.make_space())
    while not is_complete(study):
        study.optimize(objective, n_trials=1)
    return study


def copied(search: optuna.Study) -> optuna.Study:
    storage = Memory()
    copy_into(storage_of(search), search, search.trials, storage, None)
    return load_study(storage, "one")[0]


@pytest.fixture(scope="module")
def unbroken(search: optuna.Study, one: StudyConfig) -> optuna.Study:
    study = copied(search)
    train(study, one, **STAGES)
    return study


def test_the_fittest_graphs_go_on(unbroken: optuna.Study, one: StudyConfig):
    found = sorted(outcome(unbroken))
    entered = [trial.number for trial in best_trials(unbroken, 4)]
    assert [source for stage, _, source, _ in found if stage == 0] == entered
    best = sorted(
        (-value, entered.index(source), source)
        for stage, _, source, value in found
        if stage == 0 and value is not None
    )
    assert [source for stage, _, source, _ in found if stage == 1] == [source for *_, source in best[:2]]
    for trial in unbroken.trials:
        attrs = keys.ours(trial)
        if keys.STAGE in attrs:
            source = unbroken.trials[attrs[keys.PROMOTED_FROM]]
            assert attrs[keys.CANONICAL] == keys.ours(source)[keys.CANONICAL]
            # With the 3 of its rate.
            assert {run["steps"] for run in attrs[keys.RUNS]} == {3 + (8 if attrs[keys.STAGE] == 1 else 5)}


def test_killed_and_resumed_by_two_they_end_as_the_unbroken_ones(
    search: optuna.Study, unbroken: optuna.Study, one: StudyConfig
):
    study = copied(search)
    train(study, one, most=2, **STAGES)
    staged, _ = worker(study, one)
    lost = staged.ask()  # and its process dies
    set_trial_user_attr(study, lost, keys.WORKER, dead_worker())
    assert fail_lost_trials(study, LivenessMonitor()) == [lost.number]
    train(study, one, workers=2, **STAGES)
    assert outcome(study) == outcome(unbroken)
    assert [stage for stage, *_ in sorted(outcome(study), key=str)] == [0] * 4 + [1] * 2
