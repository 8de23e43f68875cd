"""Studies brought up from older versions of optevo, and their databases from older ones of Optuna."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from optevo import keys
from optevo.storage.opening import open_storage, upgrade_tables
from optevo.study.check import check_portable, is_cut_off_copy, stored_studies
from optevo.study.config import StudyConfig, parse_config
from optevo.study.damage import readable


def _to_2(study: Study, config: dict[str, Any]) -> None:
    """How version 1 evaluated, which had no keys for it."""
    evaluation = {"precision": "float32", "gate": False, "pruner": "none", "batch_candidates": 1}
    config["evaluation"] = {**evaluation, **config["evaluation"]}
    if keys.COSTS not in study.user_attrs:
        study.set_user_attr(keys.COSTS, {})


def _to_3(study: Study, config: dict[str, Any]) -> None:
    """Version 2 bred from whole generations only."""
    if config["sampler"]["kind"] == "genetic":
        config["sampler"] = {"asynchronous": False, **config["sampler"]}


def _to_4(study: Study, config: dict[str, Any]) -> None:
    """Up to version 3, names of trials' attributes had no prefix; `keys.ours` knows both."""


# By the version that they start from. Each changes the configuration that it is given, and can be repeated.
MIGRATIONS: dict[int, Callable[[Study, dict[str, Any]], None]] = {1: _to_2, 2: _to_3, 3: _to_4}


def upgrade(url: str) -> Iterator[str]:
    """Bring a database to the installed versions of Optuna and optevo; yields a line for whatever was done.

    Nobody may work on its studies meanwhile. One that was cut off can be repeated.

    Raises:
        UserError: A study or the tables are of a newer version, or a study is damaged; no study has been
            changed then. Or see `open_storage`.
    """
    before, now = upgrade_tables(url)
    yield f"Optuna's tables: {now}" if before == now else f"Optuna's tables: {before} → {now}"
    storage = open_storage(url)
    found = stored_studies(storage)
    studies = {name: _opened(storage, name) for name in found if keys.FINGERPRINT in found[name].user_attrs}
    for study in studies.values():
        check_portable(study)  # all of them, before the first is changed
    for name, stored in found.items():
        if name not in studies:
            what = (
                "a copy that was cut off"
                if is_cut_off_copy(stored)
                else "not made by optevo, or begun and cut off"
            )
            yield f"study {name!r}: {what}; left as it is"
            continue
        version = stored.user_attrs[keys.SCHEMA]
        if version == keys.SCHEMA_VERSION:
            yield f"study {name!r}: schema version {version}"
            continue
        study = studies[name]
        parsed = readable(f"study {name!r}", functools.partial(_migrated, study, version))
        study.set_user_attr(keys.CONFIG, parsed.to_dict())
        study.set_user_attr(keys.FINGERPRINT, parsed.fingerprint())
        study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)  # last: until then all is done again
        yield f"study {name!r}: schema version {version} → {keys.SCHEMA_VERSION}"


def _opened(storage: BaseStorage, name: str) -> Study:
    return readable(f"study {name!r}", lambda: optuna.load_study(study_name=name, storage=storage))


def _migrated(study: Study, version: int) -> StudyConfig:
    config = study.user_attrs[keys.CONFIG]
    for step in range(version, keys.SCHEMA_VERSION):
        MIGRATIONS[step](study, config)
    return parse_config(config, f"study {study.study_name!r}")
