"""What is written of a trial in one transaction, where Optuna takes one for every attribute."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from optevo.storage.optuna_rdb import NOT_FOUND, Param, Report, SystemAttr, Trial, UserAttr

INSERT: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass
class Writes:
    """What a trial is to get, the later of two values for one name."""

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)  # as a database has them
    user_attrs: dict[str, str] = field(default_factory=dict)  # JSON
    system_attrs: dict[str, str] = field(default_factory=dict)  # JSON
    reports: dict[int, float] = field(default_factory=dict)

    def add(self, later: Writes) -> None:
        """Take others in."""
        self.params |= later.params
        self.user_attrs |= later.user_attrs
        self.system_attrs |= later.system_attrs
        self.reports |= later.reports

    def show(self, trial: FrozenTrial) -> None:
        """Give them to a trial as it was read, which has not got them yet."""
        for name, (value, distribution) in self.params.items():
            trial.params[name] = distribution.to_external_repr(value)
            trial.distributions[name] = distribution
        trial.user_attrs.update({key: json.loads(text) for key, text in self.user_attrs.items()})
        trial.system_attrs.update({key: json.loads(text) for key, text in self.system_attrs.items()})
        trial.intermediate_values.update(self.reports)

    @classmethod
    def of(cls, trial: FrozenTrial) -> Writes:
        """What a trial has."""
        return cls(
            {name: (d.to_internal_repr(trial.params[name]), d) for name, d in trial.distributions.items()},
            {key: json.dumps(value) for key, value in trial.user_attrs.items()},
            {key: json.dumps(value) for key, value in trial.system_attrs.items()},
            dict(trial.intermediate_values),
        )

    def write(
        self, connection: Connection, trial_id: int, updatable: Callable[[int, TrialState], None]
    ) -> None:
        """Write them within the connection's transaction.

        Args:
            connection: To SQLite or PostgreSQL.
            trial_id: The trial's.
            updatable: Raises for a finished trial.

        Raises:
            KeyError: There is no such trial.
            optuna.exceptions.UpdateFinishedTrialError: It is finished.
        """
        query = select(Trial.state).where(Trial.trial_id == trial_id).with_for_update()
        state = connection.execute(query).scalar_one_or_none()
        if state is None:
            raise KeyError(NOT_FOUND)
        updatable(trial_id, state)
        insert(connection, {trial_id: self})


def insert(connection: Connection, writes: Mapping[int, Writes]) -> None:
    """A statement a table for all of them, by the id of a trial that is there and may get them."""
    rows: dict[tuple[Any, str], list[dict[str, Any]]] = {}
    for trial_id, one in writes.items():
        for name, (value, distribution) in one.params.items():
            text = distribution_to_json(distribution)
            row = {"param_name": name, "param_value": value, "distribution_json": text}
            rows.setdefault((Param, "param_name"), []).append({"trial_id": trial_id, **row})
        for model, attrs in ((UserAttr, one.user_attrs), (SystemAttr, one.system_attrs)):
            of_all = rows.setdefault((model, "key"), [])
            of_all += [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in attrs.items()]
        for step, report in one.reports.items():
            stored, kind = Report.intermediate_value_to_stored_repr(report)
            row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
            rows.setdefault((Report, "step"), []).append({"trial_id": trial_id, **row})
    for (model, name), of_all in rows.items():
        if of_all:
            connection.execute(_upsert(connection.dialect.name, model, name, tuple(of_all[0])), of_all)


@functools.cache
def _upsert(dialect: str, model: Any, name: str, columns: tuple[str, ...]) -> Any:
    """Insert rows of trials, or write over those that have the same trial and `name`."""
    statement = INSERT[dialect](model)
    new = {column: statement.excluded[column] for column in columns if column not in ("trial_id", name)}
    return statement.on_conflict_do_update(index_elements=["trial_id", name], set_=new)
