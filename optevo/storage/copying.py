"""Studies brought from one storage to another.

A copy is whole once it has its fingerprint, which is written last, as when a study is created. First of all
it names the storage that it comes from, so that the next copy knows one that was cut off; `optevo run` takes
that for no study of its own.
"""

from __future__ import annotations

import copy as copying
import datetime
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.liveness.status import running_trial
from optevo.naming import hint
from optevo.optuna_private import FrozenStudy, study_id, trial_id
from optevo.storage.instants import local
from optevo.storage.opening import open_storage, shown
from optevo.study.check import check_portable, is_cut_off_copy, stored_studies
from optevo.study.damage import readable

logger = logging.getLogger(__name__)

_OF_A_TRIAL = re.compile(r"(dashboard:(?:artifacts:)?)(\d+)(?=:)")


def copy_studies(
    source_url: str, target_url: str, names: Sequence[str] = (), *, force: bool = False
) -> Iterator[str]:
    """Copy studies with all their trials; yields a line a study for the user.

    Numbers, parameters, attributes, intermediate values and times stay as they are. Trials that are running
    become failed ones, since their workers go on with the source: their slots are evaluated again.

    Args:
        source_url: Where the studies lie.
        target_url: Where to; a missing database is made.
        names: Which studies. Default: every one that optevo made.
        force: Copy although workers are at it; what they finish later is missing from the copy.

    Raises:
        UserError: There is no such study, it isn't optevo's, workers are at it, or the target has another of
            its name; nothing of any study has been written then. Or see `open_storage`.
    """
    source = open_storage(source_url)
    if not names:
        found = stored_studies(source)
        names = [name for name, study in found.items() if keys.FINGERPRINT in study.user_attrs]
        for name in filter(lambda name: is_cut_off_copy(found[name]), found):
            yield f"study {name!r}: itself a copy that was cut off; left out"
    if not names:
        raise UserError(f"{shown(source_url)} holds no study of optevo's")
    chosen = [study_of(source, source_url, name, "copy", force=force) for name in names]
    target = open_storage(target_url, create=True)
    make_room(target, target_url, names, "copy")
    for name, (study, trials) in zip(names, chosen, strict=True):
        copy_into(source, study, trials, target, shown(source_url))
        lost = len(running(trials))
        yield f"study {name!r}: {len(trials)} trials copied" + (
            f", {lost} of them running in the source and failed in the copy" if lost else ""
        )


def study_of(
    source: BaseStorage, url: str, name: str, verb: str, *, force: bool
) -> tuple[optuna.Study, list[FrozenTrial]]:
    """A study and its trials, to be copied or saved, as `verb` says.

    Raises:
        UserError: There is no such study, workers are at it and `force` isn't given, or see `check_portable`.
    """
    found = stored_studies(source)
    if name not in found:
        there = f"there is {', '.join(map(str, found)) or 'none at all'}"
        raise UserError(f"there is no study {name!r} in {shown(url)}; {hint(name, map(str, found), there)}")
    study = readable(f"study {name!r}", lambda: optuna.load_study(study_name=name, storage=source))
    check_portable(study)
    trials = readable(f"the trials of study {name!r}", lambda: study.get_trials(deepcopy=False))
    working = [trial.number for trial in running(trials) if running_trial(trial).state in ("live", "frozen")]
    if working and not force:
        raise UserError(
            f"study {name!r} is being worked on (trials {', '.join(map(str, working))}): "
            f"stop its workers, or give --force to {verb} what is there"
        )
    return study, trials


def running(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.RUNNING]


def make_room(target: BaseStorage, url: str, names: Sequence[str], verb: str) -> None:
    """Delete what cut-off copies left of these studies, unless whole ones are there.

    Raises:
        UserError: A whole one is; nothing is deleted then.
    """
    there = stored_studies(target)
    for name in names:
        if name in there and not is_cut_off(target, there[name]):
            raise UserError(
                f"{shown(url)} has a study {name!r} already; "
                f"{verb} into another database, or delete that one first"
            )
    for name in names:
        if name in there:
            logger.warning("replacing a copy of study %r that was cut off", name)
            target.delete_study(study_id(there[name]))


def copy_into(
    source: BaseStorage,
    study: optuna.Study | FrozenStudy,
    trials: Sequence[FrozenTrial],
    target: BaseStorage,
    origin: str | None,
) -> None:
    """Write a study as a copy, the fingerprint last; trials that were running are failed ones.

    Args:
        source: Where it lies.
        study: The study.
        trials: All of its own.
        target: Which has none of its name.
        origin: What the copy names as its source; None for a file, which cannot be half a copy.

    Raises:
        UserError: It has appeared there meanwhile, or some of it was written twice.
    """
    try:
        copy = target.create_new_study(study.directions, study.study_name)
    except DuplicatedStudyError:  # written, with the answer lost; or somebody else was quicker
        raise UserError(f"study {study.study_name!r} has just appeared in the target; copy again") from None
    if origin is not None:
        target.set_study_user_attr(copy, keys.COPY_OF, origin)
    copies = [_ended(trial) for trial in trials]
    for trial in copies:
        target.create_new_trial(copy, template_trial=trial)
    # A trial whose creation was tried again after an outage may be there twice.
    written = target.get_all_trials(copy, deepcopy=False)
    if list(map(content, written)) != list(map(content, copies)):
        raise UserError(
            f"the copy of study {study.study_name!r} differs from its source, perhaps since the storage went "
            "away for a while; the same command makes it anew"
        )
    # After the trials, and the configuration after the rest: with it a study looks whole to most commands.
    ids = {trial_id(old): trial_id(new) for old, new in zip(trials, written, strict=True)}
    for key, value in sorted(source.get_study_system_attrs(study_id(study)).items()):
        target.set_study_system_attr(copy, _renumbered(key, ids), value)
    attrs = source.get_study_user_attrs(study_id(study))
    attrs.pop(keys.COPY_OF, None)
    last = (keys.CONFIG, keys.FINGERPRINT)
    for key in (*sorted(attrs.keys() - last), *last):
        target.set_study_user_attr(copy, key, attrs[key])


def _renumbered(key: str, ids: Mapping[int, int]) -> str:
    """A study's attribute by its name, which of a trial's note or file has the trial's id in it."""
    found = _OF_A_TRIAL.match(key)
    if found is None or int(found[2]) not in ids:
        return key
    return f"{found[1]}{ids[int(found[2])]}{key[found.end(2) :]}"


def is_cut_off(storage: BaseStorage, study: FrozenStudy) -> bool:
    """Whether a study is a copy that was not finished, or so empty that it may be one cut off at once."""
    bare = not study.user_attrs and not study.system_attrs
    return is_cut_off_copy(study) or (bare and not storage.get_all_trials(study_id(study), deepcopy=False))


def _ended(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.RUNNING:
        return trial
    ended = copying.deepcopy(trial)
    ended.state, ended.values = TrialState.FAIL, None
    # When it was last heard of: so every copy of it is the same.
    started, beat = ended.datetime_start or datetime.datetime.now(), ended.system_attrs.get(keys.BEAT)
    heard = started if beat is None else local(datetime.datetime.fromisoformat(beat[1]))
    ended.datetime_complete = max(started, heard, key=lambda time: time.astimezone(datetime.UTC))
    ended.system_attrs[keys.LOST] = "it was running when the study was copied"
    return ended


def content(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but its number in the database; repr, since no NaN equals another."""
    attrs = (trial.user_attrs, trial.system_attrs, trial.intermediate_values, trial.distributions)
    times = (trial.datetime_start, trial.datetime_complete)
    params = sorted(trial.params.items())
    return (
        trial.number,
        trial.state,
        trial.values,
        repr(params),
        repr([sorted(a.items()) for a in attrs]),
        times,
    )
