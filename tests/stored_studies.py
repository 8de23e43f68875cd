"""Studies with all that a storage may hold, to see that nothing of them is lost on the way to another."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from small_studies import config, create, dead_worker
from sqlalchemy.engine import make_url

from optevo import keys
from optevo.storage.opening import open_storage


def made(url: str, name: str = "one", *, worker: dict[str, Any] | None = None) -> optuna.Study:
    """A study with trials of every state and all that a trial may hold: two are running, one waits.

    Args:
        url: Of a file of SQLite's that isn't there yet, or else of any database.
        name: The study's.
        worker: Who the two are with. Default: None, a process that has ended.
    """
    path = Path(make_url(url).database or "")
    if url.startswith("sqlite") and name == "one" and not path.exists():
        path.write_bytes(_file_of_one())
        study = create(url)  # which resumes it
    else:
        study = _make(url, name)
    if worker is not None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study._storage.set_trial_user_attr(trial._trial_id, keys.WORKER, worker)
    return study


@functools.cache
def _file_of_one() -> bytes:
    """SQLite's file with that study, made once a process."""
    with tempfile.TemporaryDirectory() as folder:
        study = _make(f"sqlite:///{folder}/a.db", "one")
        study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
        with closing(sqlite3.connect(f"{folder}/a.db")) as connection:
            return connection.serialize()


def _make(url: str, name: str) -> optuna.Study:
    study = create(url, name=name)
    study.set_user_attr("a note", {"winner": 2, "ünïcode": [1.5, None, "\ud800", "\u2028"], "a": {}})
    study.set_user_attr("not finite", [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 2**70])
    study._storage.set_study_system_attr(study._study_id, "dashboard:note", "a\nnote")
    space = config().make_space()
    for n in range(7):
        trial = study.ask()
        space.suggest(trial)
        if n % 2:
            trial.suggest_categorical("another", ["g", "m", None, True, 3])
        trial.set_user_attr(keys.CANONICAL, f"form {n}")
        trial.set_user_attr("anything", [{"task": "digits", "metric": 0.1 + 0.2, "loss": float("inf")}])
        for step, value in ((1, float("-inf")), (10, float("nan")), (100, 0.5)):
            trial.report(value, step)
        if n < 3:
            study.tell(trial, 0.1 * n)
        elif n < 5:
            study.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[n - 3])
    for n in (5, 6):
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, n)
        study._storage.set_trial_user_attr(trial_id, keys.WORKER, dead_worker())
    study.enqueue_trial({"another": None})
    return study


def content(storage: str | optuna.storages.BaseStorage, name: str = "one") -> list[str]:
    """All of a study, a trial an entry, with those that run as a copy has them."""
    opened = open_storage(storage) if isinstance(storage, str) else storage
    study_id = opened.get_study_id_from_name(name)
    attrs = opened.get_study_user_attrs(study_id)
    attrs.pop(keys.COPY_OF, None)
    system = opened.get_study_system_attrs(study_id)
    system.pop(keys.LINES, None)  # of a saved file alone
    entries = [repr((opened.get_study_directions(study_id), sorted(attrs.items()), sorted(system.items())))]
    for trial in opened.get_all_trials(study_id):
        if trial.state == TrialState.RUNNING or keys.LOST in trial.system_attrs:
            trial.state, trial.datetime_complete = TrialState.FAIL, None
            trial.system_attrs.pop(keys.LOST, None)
        tables = (trial.params, trial.distributions, trial.user_attrs, trial.system_attrs)
        times = (trial.datetime_start, trial.datetime_complete, sorted(trial.intermediate_values.items()))
        plain = [sorted(table.items()) for table in tables]
        entries.append(repr((trial.number, trial.state, trial.values, *plain, *times)))
    return entries
