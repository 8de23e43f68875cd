"""Creating, resuming and reading studies. Nothing here imports torch."""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import os
import platform
import socket
import subprocess
import warnings
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.config import StudyConfig, differences, parse_config
from optevo.errors import UserError
from optevo.samplers import GeneticSampler, SeededSampler
from optevo.spaces import SPACES, Space

logger = logging.getLogger(__name__)

# A trial names its worker within milliseconds: one that hasn't after this long has lost its process.
NAMELESS_SECONDS = 120.0
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def make_space(config: StudyConfig) -> Space:
    """The study's space with its presets."""
    return SPACES[config.space.kind](presets=config.space.presets)  # type: ignore[call-arg]


def make_sampler(config: StudyConfig, space: Space) -> GeneticSampler | SeededSampler:
    """The study's sampler. `random` is a single generation of draws from the space's prior."""
    presets = list(space.presets().values())
    match config.sampler.kind:
        case "genetic":
            return GeneticSampler(
                population_size=config.sampler.population_size,
                n_generations=config.sampler.n_generations,
                n_elites=config.sampler.n_elites,
                tournament_size=config.sampler.tournament_size,
                seed=config.seed,
                space=space,
                presets=presets,
                endless=False,
            )
        case "random":
            return GeneticSampler(
                population_size=max(2, config.sampler.n_trials),
                n_generations=1,
                n_elites=0,
                seed=config.seed,
                space=space,
                presets=presets,
                endless=False,
            )
        case "tpe":
            return SeededSampler(lambda seed: TPESampler(seed=seed), config.seed, presets)
    raise AssertionError(config.sampler.kind)


def create_or_resume(config: StudyConfig, storage: BaseStorage, device: str) -> optuna.Study:
    """The study of this configuration: a new one, or the stored one if it is the same.

    Raises:
        UserError: A study of that name exists with another configuration; the message lists what differs.
    """
    sampler = make_sampler(config, make_space(config))
    study = optuna.create_study(
        study_name=config.name, storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )
    stored = study.user_attrs
    if keys.FINGERPRINT not in stored:
        if study.get_trials(deepcopy=False):
            raise UserError(
                f"study {config.name!r} in this storage was not made by optevo; give yours another name"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["fitness"])  # what dashboards call the objective
        study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)
        study.set_user_attr(keys.CONFIG, config.plain())
        study.set_user_attr(keys.ENVIRONMENT, environment(device))
        study.set_user_attr(keys.FINGERPRINT, config.fingerprint())  # last: it says that the rest is there
        return study
    _check_schema(study)
    if stored[keys.FINGERPRINT] != config.fingerprint():
        changed = "\n".join(f"  {line}" for line in differences(stored[keys.CONFIG], config.plain()))
        raise UserError(
            f"study {config.name!r} was begun with another configuration:\n{changed}\n"
            "Undo the change to resume it, or give the changed study another name."
        )
    return study


def load_study(storage: BaseStorage, name: str | None) -> tuple[optuna.Study, StudyConfig]:
    """A stored study of ours with its configuration; without a name, the only one there is.

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
        raise UserError(f"there is no study {name!r} here; there is {', '.join(names) or 'none at all'}")
    study = optuna.load_study(study_name=name, storage=storage)
    if keys.CONFIG not in study.user_attrs:
        raise UserError(f"study {name!r} was not made by optevo")
    _check_schema(study)
    config = parse_config(study.user_attrs[keys.CONFIG], f"study {name!r}")
    study.sampler = make_sampler(config, make_space(config))
    return study, config


def study_names(storage: BaseStorage) -> list[str]:
    """Every study in a storage, in the order in which they were made."""
    return [study.study_name for study in storage.get_all_studies()]


def _check_schema(study: optuna.Study) -> None:
    version = study.user_attrs.get(keys.SCHEMA)
    if version != keys.SCHEMA_VERSION:
        raise UserError(
            f"study {study.study_name!r} has optevo's schema version {version}, this optevo reads version "
            f"{keys.SCHEMA_VERSION}; use the version of optevo that made it"
        )


def n_trials(config: StudyConfig) -> int:
    """How many counted trials (complete or pruned) make the study complete, if none fails for good."""
    return config.sampler.n_trials


def is_complete(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether the search has nothing left to evaluate."""
    if isinstance(study.sampler, GeneticSampler):
        return study.sampler.board(study).generation >= (study.sampler.n_generations or 0)
    return counted(study) >= n_trials(config)


def counted(study: optuna.Study) -> int:
    """Trials that count: complete or pruned."""
    return len(study.get_trials(deepcopy=False, states=COUNTED))


def best_trials(study: optuna.Study, n: int) -> list[FrozenTrial]:
    """The n fittest trials, best first, no two of the same canonical form.

    Raises:
        UserError: No trial is complete.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        raise UserError(f"study {study.study_name!r} has no complete trial yet")
    best: dict[str, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda t: (-(t.value or 0.0), t.number)):
        best.setdefault(trial.user_attrs[keys.CANONICAL], trial)
    return list(best.values())[:n]


# Lost trials


def worker_identity() -> dict[str, Any]:
    """Enough to tell later, on the same machine, whether this process is still alive."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


def is_alive(worker: dict[str, Any]) -> bool | None:
    """Whether a worker lives; None for one of another machine, of which nothing is known here."""
    if worker["host"] != _host():
        return None
    try:
        return abs(psutil.Process(worker["pid"]).create_time() - worker["started"]) < 1
    except psutil.Error:
        return False


def fail_lost_trials(study: optuna.Study) -> list[int]:
    """Mark FAIL what dead workers left RUNNING, so that the slots are evaluated again; returns the numbers.

    A worker of this machine is looked up among the processes, others are known by their heartbeat, and a
    trial that never got as far as naming its worker by its age.
    """
    optuna.storages.fail_stale_trials(study)
    now, lost = datetime.datetime.now(), []  # trials have naive local times
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(keys.WORKER)
        started = trial.datetime_start or now
        if worker is None:
            gone = (now - started).total_seconds() > NAMELESS_SECONDS
        else:
            gone = is_alive(worker) is False
        if gone:
            logger.warning("trial %d lost its worker; it will be evaluated again", trial.number)
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            lost.append(trial.number)
    return lost


def _host() -> str:
    # In containers that share a host name, process numbers only mean something within one namespace.
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{os.readlink(namespace) if namespace.exists() else ''}"


def environment(device: str) -> dict[str, Any]:
    """What a number may depend on besides the study file."""
    packages = ("optevo", "torch", "torchvision", "optuna", "numpy")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "device": device,
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of optevo's own checkout, None for an installed package."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
