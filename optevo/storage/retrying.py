"""Storages whose calls survive a database or a proxy that goes away and comes back.

A call that fails for want of an answer is made again, after a pause that grows to a second or two, for up to
`OUTAGE_SECONDS`. The call before may have been carried out with only its acknowledgement lost, so what a
second one does matters:

- Attributes, intermediate values and parameters are written over with the same (Optuna ignores the second
  row of a parameter).
- `set_trial_state_values` raises `UpdateFinishedTrialError`; where state and values are what was to be
  written, that is success. A WAITING trial that is taken twice counts as somebody else's.
- `create_new_trial` of a finished trial makes a twin; of two trials in a slot, everybody counts the one of
  the lower number. Of a running one, it leaves a RUNNING trial that no worker ever names: it is failed as
  lost and its slot was never claimed. (Copies of studies compare what they have written.)
- `create_new_study` raises `DuplicatedStudyError`, which `load_if_exists` takes for success.
- `delete_study` finds nothing to delete, which is success.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG, TrialModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from optevo.errors import UserError
from optevo.optuna_private import Gate
from optevo.storage.errors import StorageUnreachable, busy, damaged, explain, first_line
from optevo.storage.reading import Batch, Part, completed, read_heads, read_part, read_user_attr
from optevo.storage.writing import INSERT, Writes

S = TypeVar("S", bound=type[BaseStorage])
T = TypeVar("T")
logger = logging.getLogger(__name__)

OUTAGE_SECONDS = 600.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0 + os.getpid() % 16 / 16  # processes that were cut off together come back one by one
_CALLS = threading.local()  # whether this thread is within a call: the outermost one tries again
# What Optuna's cache, and we, call besides the public methods.
_OURS = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id")
_OURS += ("count_states", "user_attr_of_all", "_read_part", "_write")
_OTHERS = ("remove_session", "check_trial_is_updatable")  # these ask no database

# No answer for a minute means a lost network: an idle connection is probed, an unacknowledged one dropped.
KEEPALIVE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 45_000,
}


def never() -> bool:
    """A `should_stop` for who has all the time there is."""
    return False


def insist(
    attempt: Callable[[], T],
    error: type[StorageUnreachable] = StorageUnreachable,
    *,
    seconds: float | None = None,
    should_stop: Callable[[], bool] = never,
    tell: Callable[[StorageUnreachable], None] = lambda error: None,
) -> T:
    """What `attempt` returns, made again as long as it raises `error`; pauses grow to a second or two.

    Args:
        attempt: What to do.
        error: After which to do it again.
        seconds: For how long after the first failure. Default: None, `OUTAGE_SECONDS`.
        should_stop: Asked after each failure; True ends it. Default: never.
        tell: Called with each error that another attempt follows. Default: nothing.

    Raises:
        StorageUnreachable: `error`, when it is time to give up.
    """
    until, pause = math.inf, _FIRST_PAUSE
    while True:
        try:
            return attempt()
        except error as problem:
            now = time.monotonic()
            until = min(until, now + (OUTAGE_SECONDS if seconds is None else seconds))
            if should_stop() or now > until:
                raise
            tell(problem)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


class Retrying:
    """What both kinds of storage keep for it; their methods are wrapped below.

    Attributes:
        name: The storage's URL without its password.
        should_stop: Asked while waiting; True ends it.
    """

    name: str
    should_stop: Callable[[], bool]
    _silent = False  # whether an outage has been reported that isn't over

    def _explain(self, error: Exception) -> UserError | None:
        """What a user can do about a call's error, or None where it is a fault of ours."""
        raise NotImplementedError  # each kind of storage has its own

    def _tell(self, error: StorageUnreachable) -> None:
        if not self._silent:
            self._silent = True
            cause = first_line(error).partition("; nothing stored")[0]
            logger.warning("%s: trying again for up to %.0f minutes", cause, OUTAGE_SECONDS / 60)

    def _answered(self) -> None:
        if self._silent:
            self._silent = False
            logger.warning("the storage %s answers again", self.name)


def _retried(method: Callable[..., Any]) -> Callable[..., Any]:
    """A storage's method that tries again.

    Raises:
        UserError: The disk is full, or the database damaged.
        StorageUnreachable: There was no answer for `OUTAGE_SECONDS`, or `should_stop` said so.
    """
    settle = _SETTLED.get(method.__name__)

    def once(self: Any, again: bool, args: Any, kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (UpdateFinishedTrialError, KeyError) as error:
            if again and settle is not None:
                call = inspect.signature(method).bind(self, *args, **kwargs).arguments
                if settle(error, **call):
                    return True
            raise

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(_CALLS, "open", False):
            return method(self, *args, **kwargs)
        attempts = itertools.count()

        def attempt() -> Any:
            try:
                return once(self, next(attempts) > 0, args, kwargs)
            except UserError:
                raise
            except Exception as error:
                problem = self._explain(error)
                if problem is None:
                    raise
                raise problem from error

        _CALLS.open = True
        try:
            result = insist(attempt, should_stop=self.should_stop, tell=self._tell)
        finally:
            _CALLS.open = False
        self._answered()
        return result

    return call


def _is_written(error: Exception, self: Any, trial_id: int, state: Any, values: Any = None) -> bool:
    if not isinstance(error, UpdateFinishedTrialError):
        return False
    trial = self.get_trial(trial_id)
    return bool(trial.state == state and (values is None or trial.values == list(values)))


def _is_deleted(error: Exception, self: Any, study_id: int) -> bool:
    return isinstance(error, KeyError)


_SETTLED: dict[str, Callable[..., bool]] = {
    "set_trial_state_values": _is_written,
    "delete_study": _is_deleted,
}


def retrying(storage: S) -> S:
    """Make a class's methods try again: those of `BaseStorage`, and those that Optuna's cache calls."""
    public = [name for name, value in vars(BaseStorage).items() if inspect.isfunction(value)]
    for name in (*public, *_OURS):
        if name in _OTHERS or (name.startswith("_") and name not in _OURS):
            continue
        if hasattr(storage, name):
            setattr(storage, name, _retried(getattr(storage, name)))
    return storage


@retrying
class RetryingRDBStorage(Retrying, RDBStorage):
    """Optuna's relational storage, whose calls are made again after an outage.

    Args:
        url: SQLAlchemy's.
        name: The URL without its password.
        should_stop: Asked while waiting; True ends it.
        options: `RDBStorage`'s.

    Attributes:
        gates: By study's id, what old trials must pass when they are read.

    Raises:
        sqlalchemy.exc.DBAPIError: The database cannot be opened; opening is not tried again.
    """

    def __init__(
        self, url: str, *, name: str, should_stop: Callable[[], bool] | None, **options: Any
    ) -> None:
        self.name, self.should_stop = name, should_stop or never
        self._prepare()
        # Optuna takes braces for a template.
        super().__init__(url.replace("{", "{{").replace("}", "}}"), **options)
        self._listen()

    def _prepare(self) -> None:
        self.gates: dict[int, Gate] = {}
        self._block = threading.local()  # what the thread keeps within `together`, by trial's id
        self._pending: dict[int, Writes] = {}  # what is to be written with a trial's state

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()  # type: ignore[no-untyped-call, unused-ignore]
        return {key: value for key, value in state.items() if key not in ("gates", "_block", "_pending")}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self._prepare()
        super().__setstate__(state)  # type: ignore[no-untyped-call, unused-ignore]
        self._listen()

    def _listen(self) -> None:
        # Errors are told apart where they arise: Optuna wraps them all in one, and tries some again itself.
        sqlalchemy.event.listen(self.engine, "handle_error", self._translate)
        prepare = {"sqlite": _prepare_sqlite, "postgresql": _prepare_postgresql}.get(self.engine.name)
        if prepare is not None:
            sqlalchemy.event.listen(self.engine, "connect", prepare)
        self.engine.dispose()  # connections made before the listeners were there

    def _translate(self, context: sqlalchemy.engine.ExceptionContext) -> None:
        if context.is_pre_ping:
            return  # the pool connects anew
        problem = explain(
            context.original_exception, self._parsed, self.name, disconnected=context.is_disconnect
        )
        if problem is not None:
            raise problem

    def _explain(self, error: Exception) -> UserError | None:
        if isinstance(error.__cause__, sqlalchemy.exc.TimeoutError):  # of the pool of connections
            return busy(self.name, first_line(error.__cause__, self._parsed))
        # What is stored doesn't read as what Optuna wrote: JSON, or the name of a state or direction.
        if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) or type(error) is LookupError:
            return damaged(self.name, first_line(error, self._parsed), self._parsed)
        return None

    @contextlib.contextmanager
    def together(self, *, with_state: bool = False) -> Iterator[None]:
        """Keep what this thread writes to trials within the block, and write it in one transaction.

        That is at the block's end, or `with_state` when the trial's state is set: then with it. Who reads the
        trial through this storage sees it at once. A finished trial is told at the end, or with the state.
        """
        if self.engine.name not in INSERT or getattr(self._block, "kept", None) is not None:
            yield
            return
        self._block.kept = kept = {}
        try:
            yield
        finally:
            self._block.kept = None
            if with_state:
                self._pending.update(kept)
            else:
                for trial_id, writes in kept.items():
                    self._write(trial_id, writes)

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
        with _create_scoped_session(self.scoped_session):
            pass  # which commits

    def _kept(self, trial_id: int) -> Writes | None:
        """What this thread keeps of a trial's, None where it keeps nothing."""
        kept: dict[int, Writes] | None = getattr(self._block, "kept", None)
        return None if kept is None else kept.setdefault(trial_id, Writes())

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's, and what `together` has kept."""
        with self._reading() as connection:
            heads = read_heads(connection, TrialModel.trial_id == trial_id)
            trials, _ = completed(connection, heads)
        if not trials:
            raise KeyError(NOT_FOUND_MSG)
        self._show_kept(trials)
        return trials[0]

    def _show_kept(self, trials: list[FrozenTrial]) -> None:
        known = {**self._pending, **(getattr(self._block, "kept", None) or {})}
        for trial in trials if known else []:
            if trial._trial_id in known and not trial.state.is_finished():
                known[trial._trial_id].show(trial)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's, faster, and of many finished trials the most when asked for; see `reading`."""
        of_study = TrialModel.study_id == study_id
        newer = [TrialModel.trial_id > trial_id_greater_than] if trial_id_greater_than >= 0 else []
        of_state = [] if states is None else [TrialModel.state.in_([s for s in TrialState if s in states])]
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
                head["_trial_id"] for head in read_heads(connection, TrialModel.study_id == study_id, ids=ids)
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
            raise StorageInternalError(f"reading from {self.name} failed") from error

    def count_states(self, study_id: int) -> dict[str, int]:
        """How many trials are in each state; a hundredth of the cost of reading those that run."""
        query = sqlalchemy.text("SELECT state, COUNT(*) FROM trials WHERE study_id = :id GROUP BY state")
        with self.engine.connect() as connection:
            return {str(state): count for state, count in connection.execute(query, {"id": study_id})}

    @property
    def _parsed(self) -> URL:
        return make_url(self.url)


def _prepare_postgresql(connection: Any, _record: object) -> None:
    # A worker that stands still or vanishes within a transaction must not hold its locks for ever.
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '30s'")
        cursor.execute("SET lock_timeout = '60s'")
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Safe with write-ahead logging: a power cut may lose the last commit, never the database.
    connection.execute("PRAGMA synchronous=NORMAL")
