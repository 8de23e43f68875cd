"""Small studies with a cheap objective, for tests of what surrounds the evaluation."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from optevo import keys
from optevo.liveness.lost import worker_identity
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume, is_complete

GENETIC = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 2}
TPE = {"kind": "tpe", "n_trials": 15}
RANDOM = {"kind": "random", "n_trials": 15}


def config(**changes: Any) -> StudyConfig:
    data: dict[str, Any] = {
        "name": "one",
        "seed": 3,
        "space": {"presets": ["sgd", "adam"]},
        "sampler": GENETIC,
        "evaluation": {"tasks": ["digits"], "steps": 5, "seeds": [0]},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            data[section] = {**data[section], name: value}
        else:
            data[section] = value
    return parse_config(data, "test")


def create(place: str | BaseStorage, **changes: Any) -> optuna.Study:
    """A study at a URL, or in a storage; `InMemoryStorage` where no database is meant takes a tenth."""
    storage = open_storage(place, create=True) if isinstance(place, str) else place
    return create_or_resume(config(**changes), storage, "cpu")


def fitness(trial: optuna.Trial) -> float:
    """Cheap, deterministic, of the parameters alone."""
    params = config().make_space().suggest(trial)
    trial.set_user_attr(keys.CANONICAL, config().make_space().candidate(params).canonical())
    return -abs(params["lr"] - 0.003) - 0.01 * params["n_terms"] - 0.001 * params["beta1"]


def finish(study: optuna.Study) -> dict[tuple[int, int], tuple[dict[str, Any], float]]:
    while not is_complete(study):
        study.optimize(fitness, n_trials=1)
    return slots(study)


def slots(study: optuna.Study) -> dict[tuple[int, int], tuple[dict[str, Any], float]]:
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return {(keys.ours(t)[keys.GENERATION], keys.ours(t)[keys.SLOT]): (t.params, t.value) for t in trials}


def dead_worker() -> dict[str, Any]:
    """The identity of a process of this machine that has ended."""
    return dict(_dead_worker())


@functools.cache
def _dead_worker() -> dict[str, Any]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = worker_identity(pid=process.pid)
    process.kill()
    process.communicate()
    return identity


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until `condition` holds; fails where it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
