"""Creating, resuming and reading studies. Nothing here imports torch."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.liveness.lost import worker_identity
from optevo.naming import hint
from optevo.optuna_private import set_study_system_attr, set_trial_user_attr
from optevo.samplers import SAMPLERS, SlotSampler, sampler_of
from optevo.samplers.slots import places
from optevo.spaces.sections import WarmStart
from optevo.study.check import Reading, check_study, checked, stored_studies
from optevo.study.config import StudyConfig, differences, parse_config
from optevo.study.continuing import continued, extent, go_on, resumed, with_afterwards
from optevo.study.damage import readable
from optevo.study.environment import differences as environment_differences
from optevo.study.environment import environment, missing_told, packages

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def make_sampler(config: StudyConfig, device: str = "") -> SlotSampler:
    """The study's sampler, under which a trial names its process (and `device`) before anything else."""
    make, groups = SAMPLERS[config.sampler.kind].make, config.evaluation.batch_candidates
    sampler = make(config.sampler, config.make_space(), config.seed, groups)
    sampler.on_trial = naming(device)
    sampler.lineage_in_user_attrs = True  # of a search of ours, people look at in a dashboard
    return sampler


def naming(device: str) -> Callable[[optuna.Study, FrozenTrial], None]:
    """What writes the name of this process, on `device`, to a trial that begins."""

    def name(study: optuna.Study, trial: FrozenTrial) -> None:
        # A trial killed between this and its claim is known to be dead.
        set_trial_user_attr(study, trial, keys.WORKER, worker_identity(device))

    return name


def make_pruner(config: StudyConfig) -> BasePruner:
    """Optuna's pruner of that name; racing is no pruner of Optuna's, since it compares generations."""
    kinds: dict[str, type[BasePruner]] = {"median": MedianPruner, "wilcoxon": WilcoxonPruner}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kinds.get(config.evaluation.pruner, NopPruner)()


def create_or_resume(
    config: StudyConfig,
    storage: BaseStorage,
    device: str,
    costs: Mapping[str, int] | None = None,
    *,
    data: Mapping[str, str] | None = None,
    accept_environment: bool = False,
) -> optuna.Study:
    """The study of this configuration: a new one, or the stored one if it is the same or goes less far.

    Args:
        config: The study.
        storage: Where it lies.
        device: Where it is trained, for the record.
        costs: What a forward pass of each task costs; a trial's cheapest runs go first. A resumed study keeps
            those that it was begun with. Default: all alike.
        data: Digests of the tasks' data by their names, see `optevo.tasks.Task.identity`. Default: none.
        accept_environment: Whether to go on, on record, with other versions than the study was begun with.

    Raises:
        UserError: A study of that name exists with another configuration, or was begun with another optevo
            or torch or other data; the message lists what differs. Or a warm start cannot be had, see
            `resolved`. Or it cannot go on, see `go_on`.
    """
    config = resolved(config, storage)
    sampler = make_sampler(config)
    make = functools.partial(
        optuna.create_study,
        study_name=config.name,
        storage=storage,
        sampler=sampler,
        pruner=make_pruner(config),
        direction="maximize",
        load_if_exists=True,
    )
    study = readable(f"study {config.name!r}", make)
    stored = readable(f"study {config.name!r}", lambda: study.user_attrs)
    if keys.FINGERPRINT not in stored:
        check_study(study)
        ours = all(str(key).startswith("optevo:") for key in stored)  # a creation that was cut off
        maximizes = study.directions == [optuna.study.StudyDirection.MAXIMIZE]
        if study.get_trials(deepcopy=False) or not maximizes or not ours:
            raise UserError(
                f"study {config.name!r} in this storage was not made by optevo; give yours another name"
            )
        set_study_system_attr(study, keys.OBJECTIVE_NAMES, ["fitness"])
        study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)
        study.set_user_attr(keys.CONFIG, config.to_dict())
        package = config.make_space().package
        study.set_user_attr(keys.ENVIRONMENT, environment(device, package, data) | packages(config))
        study.set_user_attr(keys.COSTS, dict(costs or {}))
        study.set_user_attr(keys.FINGERPRINT, config.fingerprint())  # last: it says that the rest is there
        return study
    now = checked(study, trials="heads")
    config, further = resumed(config, now), continued(now, config)
    if further.search() != config.search():
        changed = "\n".join(f"  {line}" for line in differences(further.search(), config.search()))
        shorter = "A search gets no shorter. " if 0 < extent(config) < extent(now) else ""
        raise UserError(
            f"study {config.name!r} has another configuration:\n{changed}\n"
            f"{shorter}Undo the change to resume it, or give the changed study another name."
        )
    check_environment(study, data, accept=accept_environment)
    if further != now:
        go_on(study, config)
    begun = parse_config(stored[keys.CONFIG], f"study {config.name!r}")
    if (changed_since := with_afterwards(begun, config)) != begun:
        study.set_user_attr(keys.CONFIG, changed_since.to_dict())
    if stored[keys.SCHEMA] != keys.SCHEMA_VERSION:  # from now on an older optevo can't read all of it
        study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)
    study.sampler = make_sampler(config)
    return study


def resolved(config: StudyConfig, storage: BaseStorage) -> StudyConfig:
    """A configuration whose warm starts have what the studies that they name have found.

    A stored study keeps what it was begun with, whatever has become of those. For a new one it is their
    winner on fresh seeds, else their best trial.

    Raises:
        UserError: There is no such study, it has no complete trial, or the space cannot express what it has
            found; the message says why.
    """
    if not config.awaited:
        return config
    stored = stored_studies(storage).get(config.name)
    if stored is not None and isinstance(stored.user_attrs.get(keys.CONFIG), dict):
        begun = parse_config(stored.user_attrs[keys.CONFIG], f"study {config.name!r}")
        return config.with_warm_starts({start.study: start for start in begun.warm_starts})
    return config.with_warm_starts({start.study: _found(start, config, storage) for start in config.awaited})


def _found(start: WarmStart, config: StudyConfig, storage: BaseStorage) -> WarmStart:
    """A warm start with the trial that its study has found."""
    try:
        study, other = load_study(storage, start.study)
        winner = study.user_attrs.get(keys.RERUN, {}).get("winner")
        trial = best_trials(study, 1)[0] if winner is None else study.get_trials(deepcopy=False)[winner]
        space, theirs, params = config.make_space(), other.make_space(), dict(trial.params)
        if other.evaluation.rates is not None and not space.needs_rates:
            raise ValueError("each of its runs looked for a learning rate, so the study has found none")
        candidate = theirs.candidate(params)
        if type(theirs) is not type(space) or space.candidate(params).canonical() != candidate.canonical():
            params = space.express(candidate, config.evaluation.steps)
    except (UserError, ValueError) as error:
        raise UserError(f"space.presets: study {start.study!r}: {error}") from None
    return start.model_copy(update={"trial": trial.number, "params": params})


def check_environment(
    study: optuna.Study, data: Mapping[str, str] | None = None, *, accept: bool = False
) -> None:
    """Whether this process would get what the study's other workers get.

    Args:
        study: One of ours.
        data: Digests of the tasks' data here, by the tasks' names. Default: None, they are not compared.
        accept: Record what differs, and go on with it.

    Raises:
        UserError: The versions of optevo or torch or the data are others; the message lists them. Or optevo
            reads the configuration otherwise than the one that stored it.
    """
    attrs = study.user_attrs
    config = parse_config(attrs[keys.CONFIG], f"study {study.study_name!r}")
    fingerprint = config.fingerprint()
    package = config.make_space().package
    changed = environment_differences(attrs[keys.ENVIRONMENT], package, data)
    if fingerprint != attrs[keys.FINGERPRINT]:
        changed.append(f"fingerprint: {attrs[keys.FINGERPRINT]} → {fingerprint}")
    others = [attrs[key] for key in attrs if key.startswith(keys.ACCEPTED)]
    known = any(
        not environment_differences(one, package, data) and one["fingerprint"] == fingerprint
        for one in others
    )
    if not changed or known:
        return
    if accept:  # an attribute each, so that two who accept at once don't overwrite one another
        here = {**environment("", package, data), "fingerprint": fingerprint}
        digest = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()[:12]
        study.set_user_attr(keys.ACCEPTED + digest, here)
        return
    lines = "\n".join(f"  {line}" for line in changed)
    raise UserError(
        f"study {study.study_name!r} was begun in another environment:\n{lines}\n"
        "Its numbers may come out differently here. Install what it was begun with, or accept the change "
        "for the rest of the study, on record: optevo run --accept-environment"
    )


def load_study(
    storage: BaseStorage, name: str | None, device: str = "", *, trials: Reading = "all"
) -> tuple[optuna.Study, StudyConfig]:
    """A stored study of ours with its configuration; without a name, the only one there is.

    Trials begun with it name `device` as the one that they are evaluated on. Of trials so much
    is read and checked as `check_study` says.

    Raises:
        UserError: There is no such study, the name is needed, or the study isn't ours.
    """
    names = study_names(storage)
    if name is None:
        if len(names) != 1:
            found = "holds no study" if not names else f"holds several studies: {', '.join(names)}"
            raise UserError(f"this storage {found}; say which with --study")
        name = names[0]
    if name not in names:
        there = f"there is {', '.join(names) or 'none at all'}"
        raise UserError(f"there is no study {name!r} here; {hint(name, names, there)}")
    study = readable(f"study {name!r}", lambda: optuna.load_study(study_name=name, storage=storage))
    with missing_told(study.user_attrs.get(keys.ENVIRONMENT)):
        config = checked(study, trials=trials)
    study.sampler, study.pruner = make_sampler(config, device), make_pruner(config)
    return study, config


def study_names(storage: BaseStorage) -> list[str]:
    """Every study in a storage, in the order in which they were made."""
    return list(stored_studies(storage))


def is_complete(study: optuna.Study) -> bool:
    """Whether the search has nothing left to evaluate, or its stages, of a `promotion.staged_study`."""
    return sampler_of(study).slot_table(study).ended


def search_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """A study's trials, in some states or in any, but those in which stages have trained its best.

    Whoever tells of the search reads them here. A trial's place is its number, up to the first of a stage: by
    number, `study.get_trials` finds any.
    """
    trials = study.get_trials(deepcopy=False, states=states or None)
    return [trial for trial in trials if keys.STAGE_CLAIM not in trial.system_attrs]


def counted(study: optuna.Study) -> int:
    """Places at which a trial is complete or pruned; another attempt may follow."""
    return places(search_trials(study, *COUNTED))


def contenders(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those of some trials that one ranking is for: without what was only screened, unless all of it was."""
    every = list(trials)
    return [trial for trial in every if not keys.ours(trial).get(keys.SCREENED)] or every


def best_trials(study: optuna.Study, n: int) -> list[FrozenTrial]:
    """The n fittest trials, best first, no two of the same canonical form; see `contenders`.

    Raises:
        UserError: No trial is complete.
    """
    trials = search_trials(study, TrialState.COMPLETE)
    if not trials:
        pruned = search_trials(study, TrialState.PRUNED)
        why = f": all {len(pruned)} so far were pruned" if pruned else " yet"
        raise UserError(f"study {study.study_name!r} has no complete trial{why}")
    best: dict[str, FrozenTrial] = {}
    for trial in sorted(contenders(trials), key=_rank):
        best.setdefault(keys.ours(trial)[keys.CANONICAL], trial)
    return list(best.values())[:n]


def _rank(trial: FrozenTrial) -> tuple[float, int, int]:
    # Ties by slot: which trial came to evaluate it depends on the workers, and must not change the winner.
    attrs = keys.ours(trial)
    return -(trial.value or 0.0), attrs[keys.GENERATION], attrs[keys.SLOT]
