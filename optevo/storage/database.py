"""Optuna's relational storage with fewer statements: to read trials, to write them, to count them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import threading
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optevo.optuna_private import Gate, trial_id
from optevo.storage.counting import Counts, count_rows
from optevo.storage.optuna_rdb import NOT_FOUND, Study, Trial, Value, transaction
from optevo.storage.reading import Batch, Part, completed, read_heads, read_part, read_user_attr
from optevo.storage.writing import INSERT, Writes, insert

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_OWN = ("gates", "_known", "_block", "_pending")  # what a pickled one begins anew


class Database(RDBStorage):
    """As Optuna's, whose arguments it takes.

    Attributes:
        gates: By study's id, what old trials must pass when they are read.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._prepare()
        super().__init__(url, **options)

    def _prepare(self) -> None:
        self.gates: dict[int, Gate] = {}
        self._known: dict[int, dict[str, BaseDistribution]] = {}  # by study's id, of trials added finished
        self._block = threading.local()  # what the thread keeps within `together`, by trial's id
        self._pending: dict[int, Writes] = {}  # what is to be written with a trial's state

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in _OWN}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self._prepare()
        super().__setstate__(state)

    @contextlib.contextmanager
    def together(self, *, with_state: bool = False) -> Iterator[None]:
        """Keep what this thread writes to trials within the block, and write it in one transaction.

        That is at the block's end, or `with_state` when the trial's state is set: then with it. Who reads the
        trial through this storage sees it at once. A finished trial is told at the end, or with the state.
        """
        if self.engine.name not in INSERT or getattr(self._block, "kept", None) is not None:
            yield
            return
        kept: dict[int, Writes] = {}
        self._block.kept = kept
        try:
            yield
        finally:
            self._block.kept = None
            if with_state:
                for trial_id, writes in kept.items():
                    self._pending.setdefault(trial_id, Writes()).add(writes)
            else:
                for trial_id, writes in kept.items():
                    self._write(trial_id, writes)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> Any:
        """As Optuna's, but a statement a table writes what a template has, not three a parameter."""
        if template_trial is not None and self._knows(study_id, template_trial):
            return self._insert(study_id, [template_trial], session)[0]
        # Optuna's own way compares distributions with what the study has.
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        if template_trial is not None:
            self._known.setdefault(study_id, {}).update(template_trial.distributions)
        return trial

    def _knows(self, study_id: int, template: FrozenTrial) -> bool:
        """Whether a trial can be added by our own statements: the study has all its distributions."""
        known = self._known.get(study_id, {})
        return self.engine.name in INSERT and all(
            known.get(name) == distribution for name, distribution in template.distributions.items()
        )

    def _insert(self, study_id: int, templates: Sequence[FrozenTrial], session: Session) -> list[Any]:
        """New trials, numbered on from those of the study, whose row the session has locked."""
        trials = [
            Trial(
                study_id=study_id,
                state=template.state,
                datetime_start=template.datetime_start,
                datetime_complete=template.datetime_complete,
            )
            for template in templates
        ]
        session.add_all(trials)
        session.flush()  # which gives them their ids
        pairs = sorted(zip(trials, templates, strict=True), key=lambda pair: cast("int", pair[0].trial_id))
        first = pairs[0][0].count_past_trials(session)
        writes, values = {}, []
        for number, (trial, template) in enumerate(pairs, first):
            trial.number = number
            writes[cast("int", trial.trial_id)] = Writes.of(template)
            for objective, value in enumerate(template.values or ()):
                stored, kind = Value.value_to_stored_repr(value)
                row = {"objective": objective, "value": stored, "value_type": kind}
                values.append({"trial_id": trial.trial_id, **row})
        insert(session.connection(), writes)
        if values:
            session.connection().execute(sqlalchemy.insert(Value), values)
        return trials

    def delete_study(self, study_id: int) -> None:
        """As Optuna's; a new study may get its number."""
        super().delete_study(study_id)
        self._known.pop(study_id, None)

    def create_new_trials(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Optuna's `create_new_trial` for several, in one transaction."""
        with transaction(self.scoped_session) as session:
            Study.find_or_raise_by_id(study_id, session, for_update=True)  # whose trials are numbered
            # By one's distributions the next may be known: each is asked when those before it are in.
            for known, some in itertools.groupby(templates, lambda one: self._knows(study_id, one)):
                if known:
                    self._insert(study_id, list(some), session)
                    continue
                for template in some:
                    self._get_prepared_new_trial(study_id, template, session)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's; see `together`."""
        kept = self._kept(trial_id)
        if kept is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            kept.user_attrs[key] = json.dumps(value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's; see `together`."""
        kept = self._kept(trial_id)
        if kept is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            kept.system_attrs[key] = json.dumps(value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's; see `together`."""
        kept = self._kept(trial_id)
        if kept is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        else:
            kept.reports[step] = float(intermediate_value)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        kept = self._kept(trial_id)
        # Without a previous one Optuna looks for it in the database, once a process and parameter.
        if kept is None or previous_distribution is None:
            args = (trial_id, param_name, param_value_internal, distribution, previous_distribution)
            super()._set_trial_param(*args)
        else:
            check_distribution_compatibility(previous_distribution, distribution)
            kept.params[param_name] = (param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's, but in one transaction on SQLite too, which knows no FOR UPDATE.

        Else of two processes that finish a trial, one completing it and one failing it, both succeed. What
        `together` kept for it is written with it.
        """
        kept = self._pending.get(trial_id)
        try:
            if kept is not None or self.engine.name == "sqlite":
                self._begin(trial_id, kept)
            done = super().set_trial_state_values(trial_id, state, values)
        except (UpdateFinishedTrialError, KeyError):
            self._pending.pop(trial_id, None)
            raise
        self._pending.pop(trial_id, None)
        return done

    def _begin(self, trial_id: int, kept: Writes | None) -> None:
        """Begin a transaction in the session that Optuna's methods then use and end."""
        session = self.scoped_session()
        try:
            connection = session.connection()
            if self.engine.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if kept is not None:
                kept.write(connection, trial_id, self.check_trial_is_updatable)
        except BaseException:
            session.rollback()
            raise

    def _write(self, trial_id: int, writes: Writes) -> None:
        self._begin(trial_id, writes)
        with transaction(self.scoped_session):
            pass  # which commits

    def _kept(self, trial_id: int) -> Writes | None:
        """Where to keep what is set of a trial, None for nowhere. Later values must not come first."""
        kept: dict[int, Writes] | None = getattr(self._block, "kept", None)
        return self._pending.get(trial_id) if kept is None else kept.setdefault(trial_id, Writes())

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's, and what `together` has kept."""
        with self._reading() as connection:
            heads = read_heads(connection, Trial.trial_id == trial_id)
            trials, _ = completed(connection, heads, lazily=False)
        if not trials:
            raise KeyError(NOT_FOUND)
        self._show_kept(trials)
        return trials[0]

    def _show_kept(self, trials: list[FrozenTrial]) -> None:
        known = {**self._pending, **(getattr(self._block, "kept", None) or {})}
        for trial in trials if known else []:
            if trial.state.is_finished():  # by somebody else
                self._pending.pop(trial_id(trial), None)
            elif trial_id(trial) in known:
                known[trial_id(trial)].show(trial)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's, faster, and of many finished trials the most when asked for; see `reading`."""
        of_study = Trial.study_id == study_id
        newer = [Trial.trial_id > trial_id_greater_than] if trial_id_greater_than >= 0 else []
        of_state = [] if states is None else [Trial.state.in_([s for s in TrialState if s in states])]
        older = [one for one in included_trial_ids if one <= trial_id_greater_than]
        with self._reading() as connection:
            heads = read_heads(connection, of_study, *of_state, ids=older) if older else []
            heads += read_heads(connection, of_study, *newer, *of_state)
            trials, later = completed(connection, heads)
        if not heads:
            self.get_study_name_from_id(study_id)  # raises a KeyError where there is no such study
        if later:
            read = functools.partial(self._read_part, study_id)
            Batch(read, later, functools.partial(self.gates.get, study_id))
        self._show_kept(trials)
        return trials

    def _read_part(self, study_id: int, part: Part, ids: list[int]) -> dict[int, dict[str, Any]]:
        """A part of those of a study's trials that are still there."""
        with self._reading() as connection:
            there = {
                head["_trial_id"] for head in read_heads(connection, Trial.study_id == study_id, ids=ids)
            }
            return read_part(connection, part, [one for one in ids if one in there])

    def user_attr_of_all(self, study_id: int, key: str) -> dict[int, Any]:
        """One user attribute of each trial of a study that has it, by the trial's id."""
        with self._reading() as connection:
            return read_user_attr(connection, study_id, key)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlalchemy.Connection]:
        """A connection of its own: a session of Optuna's may be open, with a lock that it must keep."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StorageInternalError("trials cannot be read") from error

    def counts(self, study_id: int) -> Counts:
        """How far a study is."""
        with self._reading() as connection:
            return count_rows(connection, study_id)

    def count_states(self, study_id: int) -> dict[str, int]:
        """How many trials are in each state; a hundredth of the cost of reading those that run."""
        query = sqlalchemy.text("SELECT state, COUNT(*) FROM trials WHERE study_id = :id GROUP BY state")
        with self._reading() as connection:
            return {str(state): count for state, count in connection.execute(query, {"id": study_id})}
