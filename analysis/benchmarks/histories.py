"""Studies with a long history of finished trials, made in seconds: as a search by one worker leaves them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optevo import keys
from optevo.samplers.operators import Params
from optevo.spaces import TermSpace
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import create_or_resume
from optevo.training.run import Run

POPULATION, ELITES = 50, 3
SPACE = TermSpace()
_START = datetime.datetime(2026, 1, 1)


def objective(params: Params) -> float:
    """Free, and different from trial to trial."""
    return float(params["lr"] + 1e-3 * params["alpha_0"])


def slot_of(number: int) -> tuple[int, int]:
    """Generation and slot of a trial of that number."""
    if number < POPULATION:
        return 0, number
    generation, slot = divmod(number - POPULATION, POPULATION - ELITES)
    return generation + 1, slot


def finished(number: int, params: Params) -> FrozenTrial:
    """The trial of that number as a sampler alone leaves it, whichever sampler goes on from there."""
    return create_trial(
        params=params,
        distributions=SPACE.distributions(),
        value=objective(params),
        system_attrs={
            **{keys.CLAIM: [*slot_of(number)], keys.PARENTS: [], keys.ORIGIN: "random"},
            "NSGAIISampler:generation": number // POPULATION,
        },
    )


def search(trials: int) -> StudyConfig:
    """A search of more than so many trials of one task and three seeds."""
    sampler = {"kind": "genetic", "population_size": POPULATION, "n_elites": ELITES}
    sampler["n_generations"] = 2 + slot_of(trials)[0]
    evaluation = {"tasks": ["load_stub:Stub"], "seeds": [0, 1, 2], "gate": False, "pruner": "racing"}
    return parse_config({"name": "long", "sampler": sampler, "evaluation": evaluation}, "this benchmark")


def whole(number: int, params: Params, config: StudyConfig) -> FrozenTrial:
    """The same with everything that the objective writes, of a study of `search`; every tenth is pruned."""
    candidate = SPACE.candidate(params)
    digest = hashlib.sha256(f"{number}".encode()).digest()
    steps, fitness = config.evaluation.steps, digest[0] / 256
    losses = tuple(2.3 * 0.83**i + digest[i] / 2560 for i in range(10))
    task = config.evaluation.tasks[0].name
    runs = [Run(task, s, fitness + s / 1e4, fitness, losses[-1], losses, steps, 21.5, None) for s in range(3)]
    worker = {"host": "node1/0b8f7f3c-9d4f-4c0a-8f6d-3a3e4c4b5a6d/pid:[4026531836]", "pid": 4242}
    worker |= {"started": 123456.0, "device": "cpu", "since": "2026-01-01T00:00:00+00:00"}
    generation, slot = slot_of(number)
    attrs = {
        **{keys.GENERATION: generation, keys.SLOT: slot, keys.PARENTS: [], keys.ORIGIN: "random"},
        keys.WORKER: worker,
        keys.FORMULA: candidate.formula(),
        keys.HYPERPARAMETERS: candidate.describe(),
        keys.CANONICAL: candidate.canonical(),
        keys.RUNS: [dataclasses.asdict(run) for run in runs],
        keys.TRAINED_STEPS: 3 * steps,
        keys.SECONDS: 64.5,
        f"{keys.FITNESS_PREFIX}{task}": fitness,
    }
    trial = finished(number, params)
    trial.user_attrs, trial.system_attrs = attrs, {keys.CLAIM: [generation, slot]}
    trial.intermediate_values = {i * steps * 3 // 10: fitness for i in range(1, 11)}
    trial.value = fitness
    if number % 10 == 9:
        trial.state, trial.value = TrialState.PRUNED, fitness / 3
        trial.set_user_attr(keys.PRUNED_BY, "racing: 0.1 a run after 1 of 3, the best quarter had 0.2")
    trial.datetime_start = _START + datetime.timedelta(seconds=number)
    trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=60)
    return trial


def long_study(storage: BaseStorage, trials: int) -> optuna.Study:
    """A study of `search` that has so many whole trials."""
    config, rng = search(trials), np.random.default_rng(0)
    study = create_or_resume(config, storage, "cpu")
    insert(study, [whole(number, SPACE.sample(rng), config) for number in range(trials)])
    return study


def fill(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Give a new study a history, and NSGA-II the parents of its generation."""
    insert(study, trials)
    stored = study.get_trials(deepcopy=False)
    generation = len(stored) // POPULATION
    parents = [t._trial_id for t in stored[POPULATION * (generation - 1) : POPULATION * generation]]
    study._storage.set_study_system_attr(study._study_id, f"NSGAIISampler:parent:{generation}", parents)


def insert(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Add finished trials to a study that is alone in its storage.

    As rows: through Optuna's own interface a trial takes 27 ms, a history of 20,000 nine minutes.
    """
    storage = getattr(study._storage, "_backend", study._storage)
    if not isinstance(storage, RDBStorage):
        study.add_trials(trials)
        return
    rows: dict[str, list[tuple[Any, ...]]] = {
        "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)": [],
        "trial_params (trial_id, param_name, param_value, distribution_json)": [],
        "trial_values (trial_id, objective, value, value_type)": [],
        "trial_user_attributes (trial_id, key, value_json)": [],
        "trial_system_attributes (trial_id, key, value_json)": [],
        "trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)": [],
    }
    heads, params, values, user, system, reports = rows.values()
    texts: dict[str, str] = {}  # of a distribution, by name
    for i, t in enumerate(trials, start=1):
        times = (str(t.datetime_start), str(t.datetime_complete))
        heads.append((i, i - 1, study._study_id, t.state.name, *times))
        for name, value in t.params.items():
            text = texts.get(name) or texts.setdefault(name, distribution_to_json(t.distributions[name]))
            params.append((i, name, t.distributions[name].to_internal_repr(value), text))
        values += [(i, 0, t.value, "FINITE")] * (t.value is not None)
        user += [(i, key, json.dumps(value)) for key, value in t.user_attrs.items()]
        system += [(i, key, json.dumps(value)) for key, value in t.system_attrs.items()]
        reports += [(i, step, value, "FINITE") for step, value in t.intermediate_values.items()]
    mark = "?" if storage.engine.name == "sqlite" else "%s"
    with storage.engine.begin() as connection:
        for into, many in rows.items():
            if many:
                marks = ", ".join([mark] * len(many[0]))
                connection.exec_driver_sql(f"INSERT INTO {into} VALUES ({marks})", many)
