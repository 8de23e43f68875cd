"""How far a study is: counts and the best, which a relational database tells without a trial being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, and_, exists, func, select
from sqlalchemy.orm import aliased

from optevo import keys
from optevo.optuna_private import database_of, study_id
from optevo.storage.optuna_rdb import SystemAttr, Trial, UserAttr, Value
from optevo.study.studies import contenders, search_trials

_DECIDING = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Counts:
    """Of a search's trials, see `search_trials`.

    Attributes:
        states: How many are in each state.
        decided: Slots in which a trial is complete or pruned.
        errors: Failed trials that raised something.
        lost: Failed trials whose worker was gone.
        generation: The last of which a trial has a slot, None where there is none.
        best: The highest value of a complete trial, None where there is none; see `contenders`.
    """

    states: Counter[TrialState]
    decided: int
    errors: int
    lost: int
    generation: int | None
    best: float | None


def count(study: optuna.Study) -> Counts:
    """What there is to count of a study of ours, by query where the storage is a relational database.

    Raises:
        ValueError: What is stored as a number is none.
        TypeError: Likewise.
    """
    counted = getattr(database_of(study), "counts", None)
    made: Counts = count_trials(search_trials(study)) if counted is None else counted(study_id(study))
    return made


def count_trials(trials: Sequence[FrozenTrial]) -> Counts:
    """The same of trials that were read."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    ours = map(keys.ours, trials)
    generations = [attrs[keys.GENERATION] for attrs in ours if keys.GENERATION in attrs]
    complete = contenders(trial for trial in trials if trial.state == TrialState.COMPLETE)
    values = [trial.value for trial in complete if trial.value is not None]
    claims = (trial.system_attrs.get(keys.CLAIM) for trial in trials if trial.state in _DECIDING)
    return Counts(
        Counter(trial.state for trial in trials),
        len({tuple(claim[:2]) for claim in claims if claim is not None}),
        sum(keys.ERROR in keys.ours(trial) for trial in failed),
        sum(keys.LOST in trial.system_attrs for trial in failed),
        max(generations, default=None),
        max(values, default=None),
    )


def _named(key: str) -> ColumnElement[bool]:
    """A user attribute of ours, by its present or its earlier name."""
    return UserAttr.key.in_((key, key.removeprefix(keys.PREFIX)))


def count_rows(connection: Connection, study_id: int) -> Counts:
    """The same by query."""
    of_stage = aliased(SystemAttr)  # which some of the queries have besides
    staged = exists().where(of_stage.trial_id == Trial.trial_id, of_stage.key == keys.STAGE_CLAIM)
    of_study, failed = and_(Trial.study_id == study_id, ~staged), Trial.state == TrialState.FAIL

    def one(what: Any, of: Any, *where: ColumnElement[bool], last: Sequence[Any] = ()) -> Any:
        """A value of the rows of a table of trials' things; `last` sorts them, and the first one counts."""
        query = (
            select(what).select_from(of).join(Trial, of.trial_id == Trial.trial_id).where(of_study, *where)
        )
        return connection.execute(query.order_by(*last).limit(1)).scalar()

    states = select(Trial.state, func.count()).where(of_study).group_by(Trial.state)
    # Whoever claims a further attempt, with a third number, does so where the first has ended.
    first = (SystemAttr.value_json != "null", SystemAttr.value_json.not_like("%,%,%"))
    decided = (SystemAttr.key == keys.CLAIM, *first, Trial.state.in_(_DECIDING))
    # Of two numbers in JSON the longer is the larger; a database's own cast would stop at what is none.
    longest = (func.length(UserAttr.value_json).desc(), UserAttr.value_json.desc())
    generation = one(UserAttr.value_json, UserAttr, _named(keys.GENERATION), last=longest)
    complete, greatest = Trial.state == TrialState.COMPLETE, func.max(Value.value)
    screened = exists().where(UserAttr.trial_id == Value.trial_id, UserAttr.key == keys.SCREENED)
    best = one(greatest, Value, complete, ~screened)
    if best is None:  # as in `contenders`
        best = one(greatest, Value, complete)
    return Counts(
        Counter(dict(tuple(row) for row in connection.execute(states))),
        one(func.count(SystemAttr.value_json.distinct()), SystemAttr, *decided),
        one(func.count(), UserAttr, _named(keys.ERROR), failed),
        one(func.count(), SystemAttr, SystemAttr.key == keys.LOST, failed),
        None if generation is None else int(generation),
        None if best is None else float(best),
    )
