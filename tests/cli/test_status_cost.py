"""`optevo status` reads counts: nothing of it grows with the number of trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from command_line import Answer
from optuna.trial import TrialState, create_trial
from small_studies import config, create, dead_worker, fitness

from optevo import keys
from optevo.storage import reading
from optevo.storage.opening import open_storage


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Statements that databases are given, and trials that are read."""
    seen: list[tuple[str, int]] = []
    real = reading.read_heads

    def read_heads(*args: Any, **options: Any) -> Any:
        heads = real(*args, **options)
        seen.append(("trials", len(heads)))
        return heads

    monkeypatch.setattr("optevo.storage.database.read_heads", read_heads)
    execute = sqlalchemy.engine.Connection._execute_context  # type: ignore[attr-defined]

    def count(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(("statement", 1))
        return execute(self, *args, **options)

    monkeypatch.setattr(sqlalchemy.engine.Connection, "_execute_context", count)
    return seen


def test_its_cost_does_not_grow(optevo: Callable[..., Answer], cost: list[tuple[str, int]]):
    study = create("sqlite:///optevo.db")
    costs = []
    for n in (3, 9):
        study.optimize(fitness, n_trials=n)
        del cost[:]
        assert optevo("status").status == 0
        costs.append([(what, sum(n for w, n in cost if w == what)) for what in ("statement", "trials")])
    assert costs[0] == costs[1]
    assert costs[0][1] == ("trials", 0)
    study._storage.set_trial_user_attr(study.ask()._trial_id, keys.WORKER, dead_worker())
    del cost[:]
    assert "1 gone" in optevo("status").out
    assert [n for what, n in cost if what == "trials"] == [1]


def test_it_tells_of_what_cannot_be_counted(optevo: Callable[..., Answer]):
    for name in ("one", "two", "three"):
        study = create("sqlite:///optevo.db", name=name)
        study.optimize(fitness, n_trials=2)
        if name == "two":
            study.trials[-1]
            study.add_trial(
                create_trial(state=TrialState.FAIL, user_attrs={keys.GENERATION: "a word that is long"})
            )
        if name == "three":
            study._storage.set_trial_user_attr(study.ask()._trial_id, keys.WORKER, "abc")
    answer = optevo("status")
    assert answer.status == 0
    assert "Traceback" not in answer.out
    assert answer.out.count("damaged") + answer.out.count("wrong") >= 1
    assert f"2/{config().n_trials}" in answer.out


def test_a_proxys_are_counted_too(optevo: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch):
    """And any other storage's that is no relational database: by reading."""
    create("sqlite:///optevo.db").optimize(fitness, n_trials=3)
    expected = optevo("status").out
    monkeypatch.setattr("optevo.optuna_private.database_of", lambda study: study._storage)
    monkeypatch.setattr("optevo.storage.counting.database_of", lambda study: study._storage)
    assert optevo("status").out == expected
    assert isinstance(open_storage("sqlite:///optevo.db"), optuna.storages.RDBStorage)
