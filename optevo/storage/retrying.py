"""Storages whose calls survive a database or a proxy that goes away and comes back.

A call that fails for want of an answer is made again, after a pause that grows to a second or two, for up to
`OUTAGE_SECONDS`. The call before may have been carried out with only its acknowledgement lost, so what a
second one does matters:

- Attributes, intermediate values and parameters are written over with the same (Optuna ignores the second
  row of a parameter).
- `set_trial_state_values` raises `UpdateFinishedTrialError`; where state and values are what was to be
  written, that is success. A WAITING trial that is taken twice counts as somebody else's.
- `create_new_trial` of a finished trial makes a twin, `create_new_trials` one of each; of two trials in a
  slot, everybody counts the one of the lower number. Of a running one, it leaves a RUNNING trial that no
  worker ever names: it is failed as lost and its slot was never claimed. (Copies of studies compare what
  they have written.)
- `create_new_study` raises `DuplicatedStudyError`, which `load_if_exists` takes for success.
- `delete_study` finds nothing to delete, which is success.
"""

from __future__ import annotations

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
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from sqlalchemy.engine import URL, make_url

from optevo.errors import UserError
from optevo.storage.database import Database
from optevo.storage.errors import StorageUnreachable, busy, damaged, explain, first_line

S = TypeVar("S", bound=type[BaseStorage])
T = TypeVar("T")
logger = logging.getLogger(__name__)

OUTAGE_SECONDS = 600.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0 + os.getpid() % 16 / 16  # processes that were cut off together come back one by one
_CALLS = threading.local()  # whether this thread is within a call: the outermost one tries again
# What Optuna's cache, and we, call besides the public methods.
_OURS = (
    *("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"),
    *("counts", "count_states", "user_attr_of_all", "_read_part", "_write", "create_new_trials"),
)
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
class RetryingRDBStorage(Retrying, Database):
    """A relational database, whose calls are made again after an outage.

    Args:
        url: SQLAlchemy's.
        name: The URL without its password.
        should_stop: Asked while waiting; True ends it.
        options: `RDBStorage`'s.

    Raises:
        sqlalchemy.exc.DBAPIError: The database cannot be opened; opening is not tried again.
    """

    def __init__(
        self, url: str, *, name: str, should_stop: Callable[[], bool] | None, **options: Any
    ) -> None:
        self.name, self.should_stop = name, should_stop or never
        # Optuna takes braces for a template.
        super().__init__(url.replace("{", "{{").replace("}", "}}"), **options)
        self._listen()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
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
