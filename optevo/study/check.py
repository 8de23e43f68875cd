"""What a database holds is not ours to believe: checked once as a study is opened.

`checked` is the gate that every reader passes, of a database or of a saved file. Behind it, code that reads
optevo's own attributes may rely on their shape. Attributes of any other name are other people's, and so are
studies that optevo did not make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.optuna_private import gate_later, is_whole, reads_parts
from optevo.study.check_trials import HEAD, WHOLE, check_slots, check_stages, gate_of
from optevo.study.config import StudyConfig, parse_stages
from optevo.study.continuing import stored_config
from optevo.study.damage import REMEDY, check_names, check_shape, check_shapes, need, readable, refuse
from optevo.study.schema import (
    FINAL,
    MEASURED,
    STUDY,
    STUDY_MANY,
    SYSTEM,
    TRIAL,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from optevo.optuna_private import FrozenStudy

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
        raise _other_schema(study, REMEDY)
    if version > keys.SCHEMA_VERSION:
        raise _other_schema(study, "install a newer one")
    check_shape(where, keys.FINGERPRINT, attrs[keys.FINGERPRINT], STUDY[keys.FINGERPRINT])
    need(where, attrs, keys.CONFIG)
    if config is None:  # what of its trials is read, whichever version wrote it
        for trial in readable(f"the trials of {where}", lambda: study.get_trials(deepcopy=False)):
            here, worker = f"{where}, trial {trial.number}", keys.ours(trial).get(keys.WORKER)
            check_shapes(here, trial.system_attrs, SYSTEM)
            check_shapes(here, {} if worker is None else {keys.WORKER: worker}, TRIAL)
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
        refuse(where, keys.ENVIRONMENT, "a table", attrs[keys.ENVIRONMENT])
    version = attrs.get(keys.SCHEMA)
    if keys.CONFIG not in attrs or type(version) is not int or version not in keys.READABLE:
        return None
    directions = readable(where, lambda: [direction.name for direction in study.directions])
    if directions != ["MAXIMIZE"]:
        refuse(where, "direction", "MAXIMIZE", ", ".join(directions))
    known: Sequence[FrozenTrial] | None = None
    if trials != "none" or not reads_parts(study):
        known = readable(f"the trials of {where}", lambda: study.get_trials(deepcopy=False))
        # How far they may go, again: another may have the search go on and its first trials begun meanwhile.
        now = readable(where, lambda: study.user_attrs)
        check_names(where, now)
        attrs |= {key: value for key, value in now.items() if key.startswith(keys.EXTENT)}
    check_shapes(where, attrs, STUDY, STUDY_MANY)
    if known or keys.FINGERPRINT in attrs:  # written last and before any trial, so the others are there
        need(where, attrs, keys.ENVIRONMENT, keys.COSTS, keys.FINGERPRINT)
    config = stored_config(attrs, where)
    pipeline = parse_stages(attrs[keys.STAGES], where, config) if keys.STAGES in attrs else None
    for key in filter(lambda key: key.startswith((keys.FRESH, keys.ABLATION, keys.FINAL)), attrs):
        _check_measured(where, key, attrs[key], config, known)
    if known is None:
        return config
    gate = gate_of(where, config, len(known))
    later = trials == "heads" and gate_later(study, gate)
    for place, trial in enumerate(known):
        if trial.number != place:
            raise UserError(f"{where} has lost its trial {place}; {REMEDY}")
        gate(trial, HEAD if later and not is_whole(trial) else WHOLE)
    winner = attrs.get(keys.RERUN, {}).get("winner")
    if winner is not None and not _is_complete(known, winner):
        refuse(where, f"{keys.RERUN}.winner", "the number of a complete trial", winner)
    check_slots(where, known)
    check_stages(where, known, pipeline)
    return config


def _is_complete(trials: Sequence[FrozenTrial], number: int) -> bool:
    return number < len(trials) and trials[number].state.name == "COMPLETE"


def _check_measured(
    where: str, key: str, value: Any, config: StudyConfig, trials: Sequence[FrozenTrial] | None
) -> None:
    """A run outside the search, named as by `measurement.pool.run_key`, or a test evaluation's header."""
    parts = key.split(":")
    if key.startswith(keys.FINAL) and len(parts) == 3:  # optevo:final:1
        check_shape(where, key, value, FINAL)
        if trials is not None and not _is_complete(trials, value["trial"]):
            refuse(where, f"{key}.trial", "the number of a complete trial", value["trial"])
        return
    task, seed = parts[-2:]
    if not (len(parts) > 4 and all(n.isdecimal() and len(n) < 20 for n in (task, seed))):
        raise UserError(f"{where}: {printable(key[:80])!r} names no task and seed; {REMEDY}")
    check_shape(where, key, value, MEASURED)
    if value["seed"] != int(seed):
        refuse(where, key, f"a run with seed {seed}", value)
    names = [one.name for one in config.evaluation.tasks]
    if int(task) >= len(names) or (":" not in names[int(task)] and names[int(task)] != value["task"]):
        refuse(where, key, f"a run of one of the tasks {', '.join(names)}", value["task"])


def stored_studies(storage: BaseStorage) -> dict[str, FrozenStudy]:
    """Every study in a storage by its name, in the order in which they were made.

    Raises:
        UserError: The list can't be read, or a name in it is no text.
    """
    studies = readable("the list of studies", storage.get_all_studies)
    if odd := [study.study_name for study in studies if not isinstance(study.study_name, str)]:
        raise UserError(f"a study in this storage is called {odd[0]!r}, which is no text: it is damaged")
    return {study.study_name: study for study in studies}
