"""Sweeps of a baseline's space: grids, TPE and random search."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from baseline_studies import (
    GRID,
    SPACE,
    complete,
    create,
    describe,
    points,
    sweep,
)
from optuna.samplers import GridSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.samplers import SlotGridSampler
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import is_complete, load_study
from optevo.training.bench import Bench

EVERY = Counter(itertools.product(SPACE["lr"], SPACE["weight_decay"]))


def test_a_grid_evaluates_every_combination_once(url: str, quiet_optuna):
    one = sweep()
    study = create(one, open_storage(url, create=True))
    assert Counter(complete(study, one)) == EVERY
    assert one.n_trials == len(EVERY) == len(study.trials)


def test_two_interleaved_askers_share_a_grid(quiet_optuna):
    one, storage = sweep(), InMemoryStorage()
    create(one, storage)
    askers = [load_study(storage, one.name)[0] for _ in range(2)]
    while not is_complete(askers[0]):
        asked = [(study, study.ask()) for study in askers]
        for study, trial in reversed(asked):
            study.tell(trial, describe(trial, one))
    assert Counter(points(askers[1])) == EVERY


@pytest.mark.parametrize("described", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("interrupted", [False, True], ids=["failed", "interrupted"])
def test_a_point_that_failed_or_was_interrupted_is_evaluated_again(
    interrupted: bool, described: bool, quiet_optuna
):
    one, storage = sweep(), InMemoryStorage()
    study = create(one, storage)
    lost = []
    for _ in range(2):
        trial = study.ask()
        if described:
            describe(trial, one)
        else:
            trial.suggest_float("lr", 1e-3, 1e-1, log=True)
        if interrupted:
            trial.set_user_attr(keys.INTERRUPTED, True)
        study.tell(trial, state=TrialState.FAIL)
        lost.append((keys.ours(trial)[keys.SLOT], trial.params["lr"]))
    assert Counter(complete(load_study(storage, one.name)[0], one)) == EVERY
    by_slot = {keys.ours(t)[keys.SLOT]: t.params["lr"] for t in study.trials if t.state.name == "COMPLETE"}
    assert all(by_slot[slot] == lr for slot, lr in lost)


def test_a_grid_is_optunas_and_writes_what_optunas_writes(quiet_optuna):
    one = sweep()
    study = create(one)
    complete(study, one)
    theirs = SlotGridSampler(one.make_space().grid(), seed=one.seed)
    assert isinstance(theirs, GridSampler)
    grid = theirs._all_grids
    for trial in study.trials:
        attrs = trial.system_attrs
        assert attrs["search_space"] == {"lr": SPACE["lr"], "weight_decay": SPACE["weight_decay"]}
        assert attrs["grid_id"] == keys.ours(trial)[keys.SLOT]
        assert grid[attrs["grid_id"]] == (trial.params["lr"], trial.params["weight_decay"])
        assert keys.ours(trial)[keys.ORIGIN] == "GridSampler"  # as Optuna calls it
    assert theirs.is_exhausted(study)


def test_a_grids_order_depends_on_the_seed_alone(quiet_optuna):
    orders = []
    for seed in (3, 3, 4, 5):
        one = sweep(seed=seed)
        orders.append(complete(create(one), one))
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) > 1


def test_a_resumed_grid_goes_on_where_it_was(quiet_optuna):
    one, storage = sweep(), InMemoryStorage()
    unbroken = complete(create(one), one)
    create(one, storage).optimize(lambda trial: describe(trial, one), n_trials=3)
    assert complete(create(one, storage), one) == unbroken


@pytest.mark.parametrize("kind", ["tpe", "random"])
@pytest.mark.parametrize("decay", [[0.0, 0.1], [0.0], [0.01], [1e-4, 1e-2]], ids=str)
def test_tpe_and_random_search_a_baselines_space(kind: str, decay: list[float], quiet_optuna):
    one = sweep({"kind": kind, "n_trials": 13}, weight_decay=decay)
    study = create(one)
    found = complete(study, one)
    assert is_complete(study)
    assert len(found) == 13
    assert len({lr for lr, _ in found}) == 13
    assert all(1e-3 <= lr <= 1e-1 and min(decay) <= d <= max(decay) for lr, d in found)


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_search_of_a_baselines_space_is_the_seeds(kind: str, quiet_optuna):
    found = []
    for seed in (3, 3, 4):
        one = sweep({"kind": kind, "n_trials": 4}, seed=seed)
        found.append(complete(create(one), one))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("sampler", "together"),
    [(GRID, 1), (GRID, 3), ({"kind": "random", "n_trials": 3}, 2)],
    ids=["grid", "grid in groups", "random in groups"],
)
def test_a_sweep_is_trained_by_the_objective(sampler, together: int, quiet_optuna):
    """Or refused before it begins."""
    data = {
        "name": "one",
        "space": {"kind": "adamw", "lr": [1e-3, 1e-2], "weight_decay": [0.0]},
        "sampler": sampler,
        "evaluation": {"tasks": ["digits"], "steps": 3, "seeds": [0], "batch_candidates": together},
    }
    try:
        one = parse_config(data, "test")
    except UserError as error:
        assert together > 1
        assert "batch_candidates" in str(error)  # noqa: PT017
        return
    study, objective = create(one), Objective(Bench(one, "cpu", Path()), one.make_space())
    for _ in range(one.n_trials):
        if not is_complete(study):
            study.optimize(objective, n_trials=1, catch=(AssertionError,))
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    for trial in study.trials:
        assert keys.ours(trial)[keys.FORMULA].startswith("adamw: ")
        assert keys.ours(trial)[keys.TRAINED_STEPS] == 3
