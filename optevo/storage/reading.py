"""Trials of a relational database, by a statement a table; of many finished ones, most when first asked for.

Optuna makes an object of every row, and two of every parameter's distribution: 28 s for 20,000 trials, most
of which nobody looks at. Finished trials don't change, so what is read of them later is what would have been
read at once.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Select, bindparam, select

from optevo.optuna_private import Gate, trial_id
from optevo.storage.instants import local
from optevo.storage.optuna_rdb import END, START, Param, Report, SystemAttr, Trial, UserAttr, Value
from optevo.study.damage import readable

LAZY_FROM = 100  # so many finished trials are not read whole
_CHUNK = 500  # trials that are read at once; fewer than a statement may have variables
_Rows = Sequence[Any]  # each a sequence of its columns' values


@dataclass(frozen=True, eq=False)
class Part:
    """A table that holds something of trials.

    Attributes:
        columns: What is read of it.
        made: Attributes of Optuna's class, from a trial's rows.
    """

    columns: tuple[Any, ...]
    made: Callable[[_Rows], dict[str, Any]]

    @functools.cached_property
    def query(self) -> Select[Any]:
        """Of the trials with some `ids`, each row with its trial's."""
        of = self.columns[0].class_.trial_id
        return select(of, *self.columns).where(of.in_(bindparam("ids", expanding=True)))


def _params(rows: _Rows) -> dict[str, Any]:
    params, distributions = {}, {}
    for _, name, value, text in sorted(rows):  # as they were suggested
        distributions[name] = distribution = _distribution(text)
        params[name] = distribution.to_external_repr(value)
    return {"_params": params, "_distributions": distributions}


@functools.lru_cache(1024)
def _distribution(text: str) -> BaseDistribution:
    """One for all trials, since nobody changes it: to decode it takes longer than to read the row."""
    return json_to_distribution(text)


def _values(rows: _Rows) -> dict[str, Any]:
    values: list[float] = [0.0] * len(rows)
    for objective, value, kind in rows:
        values[objective] = Value.stored_repr_to_value(value, kind)
    return {"_values": values or None}


def _reports(rows: _Rows) -> dict[str, Any]:
    read = Report.stored_repr_to_intermediate_value
    return {"intermediate_values": {step: read(value, kind) for step, value, kind in rows}}


def _attrs(name: str) -> Callable[[_Rows], dict[str, Any]]:
    return lambda rows: {name: {key: json.loads(text) for key, text in rows}}


VALUES = Part((Value.objective, Value.value, Value.value_type), _values)
PARAMS = Part((Param.param_id, Param.param_name, Param.param_value, Param.distribution_json), _params)
USER_ATTRS = Part((UserAttr.key, UserAttr.value_json), _attrs("_user_attrs"))
SYSTEM_ATTRS = Part((SystemAttr.key, SystemAttr.value_json), _attrs("_system_attrs"))
REPORTS = Part((Report.step, Report.intermediate_value, Report.intermediate_value_type), _reports)
_LATER = {
    "_params": PARAMS,
    "_distributions": PARAMS,
    "_user_attrs": USER_ATTRS,
    "intermediate_values": REPORTS,
}


class StoredTrial(FrozenTrial):
    """A finished trial whose parameters, user attributes and reports are read when first asked for.

    A copy of it is whole, and of Optuna's own class.

    Raises:
        UserError: What is read then cannot be read, or is not what optevo writes.
        KeyError: The trial has been deleted meanwhile.
    """

    __slots__ = ("_batch",)  # beside `__dict__`, which says what a trial is
    _batch: Batch

    def __getattr__(self, name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._batch.read(_LATER[name], self)
        return self.__dict__[name]

    def whole(self) -> FrozenTrial:
        """All of it."""
        for name in _LATER:
            getattr(self, name)
        whole: FrozenTrial = _trial(FrozenTrial, self.__dict__)
        return whole

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, FrozenTrial):
            return NotImplemented
        return self.whole() == (other.whole() if isinstance(other, StoredTrial) else other)

    def __hash__(self) -> int:
        return hash(self.whole())

    def __repr__(self) -> str:
        return repr(self.whole())

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _trial, (FrozenTrial, self.whole().__dict__)


def _trial(kind: type[FrozenTrial], attrs: dict[str, Any]) -> Any:
    made = kind.__new__(kind)
    made.__dict__.update(attrs)
    return made


class Batch:
    """Finished trials that were read together, in the order of their ids.

    Args:
        read: Reads a part of those of the ids that are still there.
        trials: The trials.
        gate: Raises where what was read is nothing to go on with.
    """

    def __init__(
        self,
        read: Callable[[Part, list[int]], dict[int, dict[str, Any]]],
        trials: Sequence[StoredTrial],
        gate: Callable[[], Gate | None],
    ) -> None:
        self._read, self._trials, self._gate = read, trials, gate
        self._places = {trial_id(trial): place for place, trial in enumerate(trials)}
        for trial in trials:
            trial._batch = self

    def read(self, part: Part, trial: StoredTrial) -> None:
        """Complete `trial` and its neighbours by a part."""
        first = self._places[trial_id(trial)] // _CHUNK * _CHUNK
        trials = self._trials[first : first + _CHUNK]
        ids, what = [trial_id(each) for each in trials], f"trial {trial.number}, or one of its neighbours,"
        found, gate = readable(what, lambda: self._read(part, ids)), self._gate()
        if trial_id(trial) not in found:
            raise KeyError(f"trial {trial.number} has been deleted")
        for each in filter(lambda each: trial_id(each) in found, trials):
            made = found[trial_id(each)]
            if gate is not None:
                gate(_trial(FrozenTrial, {**each.__dict__, **made}), {name.strip("_") for name in made})
            each.__dict__.update({name: value for name, value in made.items() if name not in each.__dict__})


def read_part(connection: Connection, part: Part, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """A part of each of some trials, by their ids."""
    rows: dict[int, list[Sequence[Any]]] = {one: [] for one in ids}
    for chunk in _chunks(ids):
        for row in connection.execute(part.query, {"ids": chunk}).all():
            rows[row[0]].append(row[1:])
    return {one: part.made(found) for one, found in rows.items()}


def read_user_attr(connection: Connection, study_id: int, key: str) -> dict[int, Any]:
    """One user attribute of each trial of a study that has it, by the trial's id."""
    of_study = select(Trial.trial_id).where(Trial.study_id == study_id)
    query = select(UserAttr.trial_id, UserAttr.value_json).where(
        UserAttr.key == key, UserAttr.trial_id.in_(of_study)
    )
    return readable(repr(key), lambda: {one: json.loads(text) for one, text in connection.execute(query)})


def read_heads(
    connection: Connection, *where: ColumnElement[bool], ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """What the table of trials has of some, in order, as attributes of Optuna's class.

    Args:
        connection: To the database.
        where: Which.
        ids: The same. Default: None, whichever `where` allows.
    """
    columns = (Trial.trial_id, Trial.number, Trial.state, START, END)
    query = select(*columns).where(*where).order_by(Trial.trial_id)
    rows: list[Any] = []
    if ids is None:
        rows = list(connection.execute(query))
    for chunk in _chunks(sorted(ids or ())):
        rows += connection.execute(query.where(Trial.trial_id.in_(chunk)))
    names = ("_trial_id", "_number", "state", "_datetime_start", "datetime_complete")
    heads = [dict(zip(names, row, strict=True)) for row in rows]
    for head in heads:
        for name in names[3:]:
            head[name] = _local(head[name])
    return heads


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[first : first + _CHUNK] for first in range(0, len(ids), _CHUNK))


def _local(time: datetime.datetime | None) -> datetime.datetime | None:
    # As Optuna has it: naive UTC in the database, naive local time in a trial.
    return None if time is None else local(time.replace(tzinfo=datetime.UTC))


def completed(
    connection: Connection, heads: list[dict[str, Any]], *, lazily: bool = True
) -> tuple[list[FrozenTrial], list[StoredTrial]]:
    """Trials from their heads: all of them, and those that are to be read further when asked for.

    Args:
        connection: To the database.
        heads: As `read_heads` returns them.
        lazily: Whether some may be. Default: True, many finished ones are.
    """
    later = [head for head in heads if head["state"] in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not lazily or len(later) < LAZY_FROM:
        later = []
    late = {head["_trial_id"] for head in later}
    ids = [head["_trial_id"] for head in heads]
    whole = [one for one in ids if one not in late]  # why trials failed, everybody asks
    made = {head["_trial_id"]: dict(head) for head in heads}
    for part, which in (
        *((part, ids) for part in (VALUES, SYSTEM_ATTRS)),
        *((part, whole) for part in (PARAMS, USER_ATTRS, REPORTS)),
    ):
        for one, attrs in read_part(connection, part, which).items():
            made[one].update(attrs)
    trials = [_trial(StoredTrial if one in late else FrozenTrial, attrs) for one, attrs in made.items()]
    return trials, [trial for trial in trials if isinstance(trial, StoredTrial)]
