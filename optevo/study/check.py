"""What a database holds is not ours to believe: checked once as a study is opened.

After `check_study`, code that reads optevo's own attributes may rely on their shape. Attributes of any other
name are other people's, and so are studies that optevo did not make.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.optuna_private import gate_later, is_whole
from optevo.study.schema import ACCEPTED, FINAL, MEASURED, SOME_RUNS, STUDY, SYSTEM, TRIAL, VALUES, domains_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

T = TypeVar("T")

_REMEDY = "the database is damaged or was changed by another program: use a copy of it from before that"
# What Optuna raises, besides its driver's own errors, on rows that it didn't write.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError)


def check_study(study: optuna.Study, *, lazily: bool = False) -> None:
    """Refuse a study in which an attribute of ours has another shape than optevo writes.

    A study that optevo did not make, or made with another schema, passes: others say so better.

    Args:
        study: The study.
        lazily: Whether parameters and user attributes of old trials may be left unread: whoever then asks for
            them gets the same error. Where the storage reads whole trials only, they are checked here. Default:
            False.

    Raises:
        UserError: It can't be read, or an attribute is wrong; the message names study, trial and attribute.
    """
    where = f"study {study.study_name!r}"
    attrs = readable(where, lambda: study.user_attrs)
    if not isinstance(attrs.get(keys.ENVIRONMENT, {}), dict):
        _refuse(where, keys.ENVIRONMENT, "a table", attrs[keys.ENVIRONMENT])
    if keys.CONFIG not in attrs or attrs.get(keys.SCHEMA) != keys.SCHEMA_VERSION:
        return
    directions = readable(where, lambda: [direction.name for direction in study.directions])
    if directions != ["MAXIMIZE"]:
        _refuse(where, "direction", "MAXIMIZE", ", ".join(directions))
    trials = readable(f"the trials of {where}", lambda: study.get_trials(deepcopy=False))
    _check_shapes(where, attrs, STUDY)
    if trials or keys.FINGERPRINT in attrs:  # written last and before any trial, so the others are there
        _need(where, attrs, keys.ENVIRONMENT, keys.COSTS, keys.FINGERPRINT)
    for key, value in attrs.items():
        if key.startswith(keys.ACCEPTED):
            _check_shape(where, key, value, ACCEPTED)
        if key.startswith(f"{keys.RERUN}:"):
            _check_shape(where, key, value, SOME_RUNS)
        if key.startswith((keys.FRESH, keys.ABLATION, keys.FINAL)):
            _check_measured(where, key, value, attrs[keys.CONFIG], trials)
    domains = domains_of(attrs[keys.CONFIG])

    def gate(trial: FrozenTrial, parts: Container[str]) -> None:
        _check_trial(f"{where}, trial {trial.number}", trial, parts, len(trials), domains)

    later = lazily and gate_later(study, gate)
    for place, trial in enumerate(trials):
        if trial.number != place:
            raise UserError(f"{where} has lost its trial {place}; {_REMEDY}")
        gate(trial, ("head", "user_attrs", "params") if is_whole(trial) or not later else ("head",))
    winner = attrs.get(keys.RERUN, {}).get("winner")
    if winner is not None and (winner >= len(trials) or trials[winner].state.name != "COMPLETE"):
        _refuse(where, f"{keys.RERUN}.winner", "the number of a complete trial", winner)


def _check_measured(
    where: str, key: str, value: Any, config: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> None:
    """A run outside the search, named as by `measurement.pool.run_key`, or a test evaluation's header."""
    parts = key.split(":")
    if key.startswith(keys.FINAL) and len(parts) == 3:  # optevo:final:1
        _check_shape(where, key, value, FINAL)
        if value["trial"] >= len(trials) or trials[value["trial"]].state.name != "COMPLETE":
            _refuse(where, f"{key}.trial", "the number of a complete trial", value["trial"])
        return
    task, seed = parts[-2:]
    if not (len(parts) > 4 and all(n.isdecimal() and len(n) < 20 for n in (task, seed))):
        raise UserError(f"{where}: {printable(key[:80])!r} names no task and seed; {_REMEDY}")
    _check_shape(where, key, value, MEASURED)
    if value["seed"] != int(seed):
        _refuse(where, key, f"a run with seed {seed}", value)
    try:
        names = [one["name"] for one in config["evaluation"]["tasks"]]
    except (LookupError, TypeError):
        return  # the configuration is wrong, which others say better
    if int(task) >= len(names) or (":" not in names[int(task)] and names[int(task)] != value["task"]):
        _refuse(where, key, f"a run of one of the tasks {', '.join(map(str, names))}", value["task"])


def _check_trial(
    where: str,
    trial: FrozenTrial,
    parts: Container[str],
    n_trials: int,
    domains: Mapping[str, TypeAdapter[Any]],
) -> None:
    """The parts that are named "user_attrs", "params", and "head", which is all the rest."""
    state = trial.state.name
    if "user_attrs" in parts:
        _check_user_attrs(where, trial.user_attrs, state, n_trials)
    if "head" in parts:
        _check_shapes(where, trial.system_attrs, SYSTEM)
        if state in ("COMPLETE", "PRUNED"):
            _check_shape(where, "value", trial.values or [], VALUES)
        if state == "COMPLETE" and not trial.values:
            _refuse(where, "value", "one finite number", trial.values)
    if "params" in parts and state in ("COMPLETE", "PRUNED"):
        _check_shapes(where, trial.params, domains)
        if state == "COMPLETE":
            _need(where, trial.params, *domains)


def _check_user_attrs(where: str, attrs: Mapping[str, Any], state: str, n_trials: int) -> None:
    _check_shapes(where, attrs, TRIAL)
    if keys.ORIGIN in attrs:  # written last of these
        _need(where, attrs, keys.GENERATION, keys.SLOT, keys.PARENTS)
    if keys.COPIED_FROM in attrs:
        _need(where, attrs, keys.RUNS, keys.COPIED_RUNS)
    for key in (keys.PARENTS, keys.ATTEMPTS, keys.COPIED_FROM):
        # Not "below its own number": a worker that waited for a slot may have a lower one than the parents.
        others = attrs.get(key, ())
        if others and not (max(others) if isinstance(others, list) else others) < n_trials:
            _refuse(where, key, f"below {n_trials}, the number of trials", others)
    if state == "COMPLETE":
        _need(where, attrs, keys.GENERATION, keys.SLOT, keys.CANONICAL)


def _check_shapes(where: str, found: Mapping[str, Any], shapes: Mapping[str, TypeAdapter[Any]]) -> None:
    for key, value in found.items():
        shape = shapes.get(key)
        if shape is None and type(key) is not str:  # SQLite keeps any type in any column
            raise UserError(f"{where}: an attribute is called {printable(repr(key)[:80])}; {_REMEDY}")
        if shape is None and key.startswith(keys.FITNESS_PREFIX):
            shape = shapes.get(keys.FITNESS_PREFIX)
        if shape is not None:
            _check_shape(where, key, value, shape)


def _check_shape(where: str, key: str, value: Any, shape: TypeAdapter[Any]) -> None:
    try:
        shape.validator.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = printable(f"{repr(first['input'])[:80]}, {first['msg'][:80]}")
        raise UserError(f"{where}: {key!r} is wrong{place and f' at {place}'}: {said}; {_REMEDY}") from None


def _need(where: str, found: Mapping[str, Any], *names: str) -> None:
    for name in itertools.filterfalse(found.__contains__, names):
        raise UserError(f"{where}: {name!r} is missing; {_REMEDY}")


def _refuse(where: str, key: str, expected: str, value: Any) -> NoReturn:
    raise UserError(f"{where}: {key!r} is {printable(repr(value)[:80])}, expected {expected}; {_REMEDY}")


def readable(what: str, read: Callable[[], T]) -> T:
    """What `read` returns.

    Raises:
        UserError: Optuna can't make sense of the rows; `what` is what the message calls them.
    """
    try:
        return read()
    except _UNREADABLE as error:
        said = printable(f"{type(error).__name__}: {error}"[:200])
        raise UserError(f"{what} can't be read ({said}); {_REMEDY}") from None
