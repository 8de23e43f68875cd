"""What a database holds is not ours to believe: checked once as a study is opened.

`checked` is the gate that every reader passes, of a database or of a saved file. Behind it, code that reads
optevo's own attributes may rely on their shape. Attributes of any other name are other people's, and so are
studies that optevo did not make.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.optuna_private import Gate, gate_later, is_whole, reads_parts
from optevo.samplers import SAMPLERS, SlotSampler
from optevo.samplers.individuals import params_of
from optevo.study.config import StudyConfig, parse_config, parse_stages
from optevo.study.schema import (
    ACCEPTED,
    FINAL,
    MEASURED,
    REPORTED,
    SOME_RUNS,
    STUDY,
    SYSTEM,
    TRIAL,
    VALUES,
    domains_of,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from optevo.optuna_private import FrozenStudy
    from optevo.spaces.base import Space
    from optevo.study.stages import Pipeline

T = TypeVar("T")

_REMEDY = "the database is damaged or was changed by another program: use a copy of it from before that"
# What Optuna raises, besides its driver's own errors, on rows that it didn't write.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError),
    ArithmeticError,  # of a time beyond the calendar
)
# Parts of a trial. A head is all that is neither of the others.
_HEAD = ("head",)
WHOLE = ("head", "user_attrs", "params", "intermediate_values")
#: How much of trials is read as a study is opened.
Reading = Literal["all", "heads", "none"]


def checked(study: optuna.Study, *, trials: Reading = "all") -> StudyConfig:
    """The configuration of a study of ours that is whole and in order: the gate for whoever reads one.

    Args:
        study: The study.
        trials: See `check_study`. Default: all.

    Raises:
        UserError: See `check_portable`; or it is of an older schema.
    """
    config = check_portable(study, trials=trials)
    if config is None:
        raise _other_schema(study, "back the database up and run `optevo storage upgrade`")
    return config


def check_portable(study: optuna.Study, *, trials: Reading = "all") -> StudyConfig | None:
    """The same gate for who only takes a study elsewhere, where it may be upgraded.

    Args:
        study: The study.
        trials: See `check_study`. Default: all.

    Returns:
        Its configuration; None for one of an older schema, whose shapes only its own version knows.

    Raises:
        UserError: It isn't optevo's, it is a copy that was cut off or its creation was, a newer optevo made
            it, or `check_study` refuses it.
    """
    where, config = f"study {study.study_name!r}", check_study(study, trials=trials)
    attrs = study.user_attrs
    if keys.FINGERPRINT not in attrs:
        begun = keys.SCHEMA in attrs  # the first that is written
        what = "begun, but its creation was cut off: `optevo run` its file again"
        raise UserError(f"{where} was {what if begun else 'not made by optevo'}")
    version = attrs.get(keys.SCHEMA)
    if type(version) is not int or version < 1:  # a bool is an int too
        raise _other_schema(study, _REMEDY)
    if version > keys.SCHEMA_VERSION:
        raise _other_schema(study, "install a newer one")
    _check_shape(where, keys.FINGERPRINT, attrs[keys.FINGERPRINT], STUDY[keys.FINGERPRINT])
    _need(where, attrs, keys.CONFIG)
    if config is None:  # what of its trials is read, whichever version wrote it
        for trial in readable(f"the trials of {where}", lambda: study.get_trials(deepcopy=False)):
            here, worker = f"{where}, trial {trial.number}", keys.ours(trial).get(keys.WORKER)
            _check_shapes(here, trial.system_attrs, SYSTEM)
            _check_shapes(here, {} if worker is None else {keys.WORKER: worker}, TRIAL)
    return config


def _other_schema(study: optuna.Study, remedy: str) -> UserError:
    stored = study.user_attrs.get(keys.ENVIRONMENT) or {}
    made = f"{stored.get('optevo', 'unknown')}, commit {stored.get('git_commit', 'unknown')}"
    version = printable(str(study.user_attrs.get(keys.SCHEMA))[:80])
    return UserError(
        f"study {study.study_name!r} has optevo's schema version {version}, this optevo reads versions "
        f"{' and '.join(map(str, keys.READABLE))}; {remedy}, or use the optevo that made it: {made}"
    )


def is_cut_off_copy(study: optuna.Study | FrozenStudy) -> bool:
    """Whether a study is a copy that was cut off."""
    return keys.COPY_OF in study.user_attrs and keys.FINGERPRINT not in study.user_attrs


def check_study(study: optuna.Study, *, trials: Reading = "all") -> StudyConfig | None:
    """Refuse a study in which an attribute of ours has another shape than optevo writes.

    Args:
        study: The study.
        trials: How much of trials is read, where the storage has a choice: "all"; or "heads", where whoever
            asks for an old trial's parameters or user attributes gets the same errors then; or "none".
            Default: all.

    Returns:
        Its configuration; None for a study that optevo did not make, or made with another schema, whose
        attributes are not looked at: see `check_portable`.

    Raises:
        UserError: It can't be read, or an attribute is wrong; the message names study, trial and attribute.
            Or it is a copy that was cut off.
    """
    where = f"study {study.study_name!r}"
    attrs = readable(where, lambda: study.user_attrs)
    if is_cut_off_copy(study):
        raise UserError(
            f"{where} in this storage is a copy that was cut off: run `optevo storage copy`, or `load`, again"
        )
    if not isinstance(attrs.get(keys.ENVIRONMENT, {}), dict):
        _refuse(where, keys.ENVIRONMENT, "a table", attrs[keys.ENVIRONMENT])
    version = attrs.get(keys.SCHEMA)
    if keys.CONFIG not in attrs or type(version) is not int or version not in keys.READABLE:
        return None
    directions = readable(where, lambda: [direction.name for direction in study.directions])
    if directions != ["MAXIMIZE"]:
        _refuse(where, "direction", "MAXIMIZE", ", ".join(directions))
    known: Sequence[FrozenTrial] | None = None
    if trials != "none" or not reads_parts(study):
        known = readable(f"the trials of {where}", lambda: study.get_trials(deepcopy=False))
    _check_shapes(where, attrs, STUDY)
    if known or keys.FINGERPRINT in attrs:  # written last and before any trial, so the others are there
        _need(where, attrs, keys.ENVIRONMENT, keys.COSTS, keys.FINGERPRINT)
    config = parse_config(attrs[keys.CONFIG], where)
    pipeline = parse_stages(attrs[keys.STAGES], where, config) if keys.STAGES in attrs else None
    _check_named(where, attrs, config, known)
    if known is None:
        return config
    gate = gate_of(where, config, len(known))
    later = trials == "heads" and gate_later(study, gate)
    for place, trial in enumerate(known):
        if trial.number != place:
            raise UserError(f"{where} has lost its trial {place}; {_REMEDY}")
        gate(trial, _HEAD if later and not is_whole(trial) else WHOLE)
    winner = attrs.get(keys.RERUN, {}).get("winner")
    if winner is not None and not _is_complete(known, winner):
        _refuse(where, f"{keys.RERUN}.winner", "the number of a complete trial", winner)
    _check_slots(where, known)
    _check_stages(where, known, pipeline)
    return config


def _check_named(
    where: str, attrs: Mapping[str, Any], config: StudyConfig, known: Sequence[FrozenTrial] | None
) -> None:
    """Attributes of the study of which there are many, by the beginning of their name."""
    for key, value in attrs.items():
        if key.startswith(keys.ACCEPTED):
            _check_shape(where, key, value, ACCEPTED)
        if key.startswith(f"{keys.RERUN}:"):
            _check_shape(where, key, value, SOME_RUNS)
        if key.startswith((keys.FRESH, keys.ABLATION, keys.FINAL)):
            _check_measured(where, key, value, config, known)


def gate_of(where: str, config: StudyConfig, n_trials: int) -> Gate:
    """What each of the first `n_trials` of a study has to pass, given the parts to look at."""
    space = config.make_space()
    domains = domains_of(space)
    make, groups = SAMPLERS[config.sampler.kind].make, config.evaluation.batch_candidates
    sampler = make(config.sampler, space, config.seed, groups)
    last = (sampler.n_generations or config.n_trials) - 1

    def gate(trial: FrozenTrial, parts: Container[str]) -> None:
        if trial.number < n_trials:  # later ones were written since, by workers as good as this
            here = f"{where}, trial {trial.number}"
            _check_trial(here, trial, parts, n_trials)
            if "head" in parts:
                _check_dormant(here, trial, space)
            if "params" in parts and trial.state.name in ("COMPLETE", "PRUNED"):
                _check_shapes(here, trial.params, domains)
                if trial.state.name == "COMPLETE" and not space.whole(params_of(trial)):
                    _need_all(here, trial, space, domains)
            _check_place(here, trial, parts, sampler, last)

    return gate


def _is_complete(trials: Sequence[FrozenTrial], number: int) -> bool:
    return number < len(trials) and trials[number].state.name == "COMPLETE"


def _check_measured(
    where: str, key: str, value: Any, config: StudyConfig, trials: Sequence[FrozenTrial] | None
) -> None:
    """A run outside the search, named as by `measurement.pool.run_key`, or a test evaluation's header."""
    parts = key.split(":")
    if key.startswith(keys.FINAL) and len(parts) == 3:  # optevo:final:1
        _check_shape(where, key, value, FINAL)
        if trials is not None and not _is_complete(trials, value["trial"]):
            _refuse(where, f"{key}.trial", "the number of a complete trial", value["trial"])
        return
    task, seed = parts[-2:]
    if not (len(parts) > 4 and all(n.isdecimal() and len(n) < 20 for n in (task, seed))):
        raise UserError(f"{where}: {printable(key[:80])!r} names no task and seed; {_REMEDY}")
    _check_shape(where, key, value, MEASURED)
    if value["seed"] != int(seed):
        _refuse(where, key, f"a run with seed {seed}", value)
    names = [one.name for one in config.evaluation.tasks]
    if int(task) >= len(names) or (":" not in names[int(task)] and names[int(task)] != value["task"]):
        _refuse(where, key, f"a run of one of the tasks {', '.join(names)}", value["task"])


def _check_trial(where: str, trial: FrozenTrial, parts: Container[str], n_trials: int) -> None:
    state = trial.state.name
    if "head" in parts:  # first: what user attributes are ours, system attributes tell
        _check_shapes(where, trial.system_attrs, SYSTEM)
        if state in ("COMPLETE", "PRUNED"):
            _check_shape(where, "value", trial.values or [], VALUES)
        if state == "COMPLETE" and not trial.values:
            _refuse(where, "value", "one finite number", trial.values)
    if "user_attrs" in parts:
        _check_user_attrs(where, trial, n_trials)
    if "intermediate_values" in parts and trial.intermediate_values:
        _check_shape(where, "intermediate values", trial.intermediate_values, REPORTED)


def _need_all(where: str, trial: FrozenTrial, space: Space, names: Iterable[str]) -> None:
    """Refuse a lack, that which the candidate misses first: a trial may have only some of these names."""
    said = ""
    try:
        space.candidate(params_of(trial))
    except (KeyError, ValueError) as error:
        said = str(error)
    _need(where, trial.params, *sorted(names, key=lambda name: repr(name) not in said))


def _check_dormant(where: str, trial: FrozenTrial, space: Space) -> None:
    fault = space.dormant_fault(trial.system_attrs.get(keys.DORMANT, {}))
    if fault is not None:
        raise UserError(f"{where}: {keys.DORMANT!r} is wrong: {printable(fault[:300])}; {_REMEDY}")


def _check_user_attrs(where: str, trial: FrozenTrial, n_trials: int) -> None:
    _check_names(where, trial.user_attrs)
    attrs, state = keys.ours(trial), trial.state.name
    _check_shapes(where, attrs, TRIAL)
    if keys.ORIGIN in attrs:  # written last of these
        _need(where, attrs, keys.GENERATION, keys.SLOT, keys.PARENTS)
    if keys.COPIED_FROM in attrs:
        _need(where, attrs, keys.RUNS, keys.COPIED_RUNS)
    if keys.STAGE in attrs:
        _need(where, {**trial.system_attrs, **attrs}, keys.STAGE_CLAIM, keys.PROMOTED_FROM)
    for key in (keys.PARENTS, keys.ATTEMPTS, keys.COPIED_FROM, keys.PROMOTED_FROM):
        # Not "below its own number": a worker that waited for a slot may have a lower one than the parents.
        others = attrs.get(key, ())
        if others and not (max(others) if isinstance(others, list) else others) < n_trials:
            _refuse(where, key, f"below {n_trials}, the number of trials", others)
    if state == "COMPLETE":
        staged = keys.STAGE_CLAIM in trial.system_attrs
        place = (keys.STAGE,) if staged else (keys.GENERATION, keys.SLOT)
        _need(where, attrs, *place, keys.CANONICAL)


def _check_names(where: str, found: Mapping[str, Any]) -> None:
    for key in found:
        if type(key) is not str:  # SQLite keeps any type in any column
            raise UserError(f"{where}: an attribute is called {printable(repr(key)[:80])}; {_REMEDY}")


def _check_place(
    where: str, trial: FrozenTrial, parts: Container[str], sampler: SlotSampler, last: int
) -> None:
    """Every slot that is named is one that there is, and the one that was claimed."""
    claim, named = trial.system_attrs.get(keys.CLAIM), []
    if "head" in parts and claim is not None:
        named.append((keys.CLAIM, list(claim)))
    if "user_attrs" in parts:
        attrs = keys.ours(trial)
        place = [attrs.get(keys.GENERATION, 0), attrs.get(keys.SLOT, 0)]
        named.append((keys.SLOT, place))
        if keys.ORIGIN in attrs and claim is not None and _counts(trial) and place != list(claim)[:2]:
            _refuse(where, keys.SLOT, f"{list(claim)}, which it claimed", place)
    for key, (generation, *others) in named:
        most = [last, sampler.size(generation, {}) - 1, sampler.attempts(generation) - 1][: 1 + len(others)]
        if any(number > limit for number, limit in zip([generation, *others], most, strict=True)):
            _refuse(where, key, f"at most {most}, as the study is configured", [generation, *others])


def _check_slots(where: str, trials: Sequence[FrozenTrial]) -> None:
    """What counts in one slot is one genome.

    The same one may count twice: a finished trial whose writing was acknowledged too late is written again.
    """
    deciders: dict[tuple[int, ...], FrozenTrial] = {}
    for trial in filter(_counts, trials):
        slot = tuple(trial.system_attrs[keys.CLAIM])
        first = deciders.setdefault(slot, trial)
        if first is not trial and first.params and trial.params and first.params != trial.params:
            raise UserError(
                f"{where}: trials {first.number} and {trial.number} are two genomes that count in the one "
                f"slot {list(slot)}; {_REMEDY}"
            )


def _check_stages(where: str, trials: Sequence[FrozenTrial], pipeline: Pipeline | None) -> None:
    """Trials of stages are of those that the study has."""
    for trial in trials:
        stage, place = (trial.system_attrs.get(keys.STAGE_CLAIM) or (0, -1))[:2]
        if place >= 0 and not (pipeline and place < pipeline.entering(stage)):
            expected = "a place in one of the study's stages"
            _refuse(f"{where}, trial {trial.number}", keys.STAGE_CLAIM, expected, [stage, place])


def _counts(trial: FrozenTrial) -> bool:
    decided = trial.state.name in ("COMPLETE", "PRUNED") and keys.LATE not in trial.system_attrs
    return decided and trial.system_attrs.get(keys.CLAIM) is not None


def _check_shapes(where: str, found: Mapping[str, Any], shapes: Mapping[str, TypeAdapter[Any]]) -> None:
    _check_names(where, found)
    for key, value in found.items():
        shape = shapes.get(key)
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


def stored_studies(storage: BaseStorage) -> dict[str, FrozenStudy]:
    """Every study in a storage by its name, in the order in which they were made.

    Raises:
        UserError: The list can't be read, or a name in it is no text.
    """
    studies = readable("the list of studies", storage.get_all_studies)
    if odd := [study.study_name for study in studies if not isinstance(study.study_name, str)]:
        raise UserError(f"a study in this storage is called {odd[0]!r}, which is no text: it is damaged")
    return {study.study_name: study for study in studies}


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
