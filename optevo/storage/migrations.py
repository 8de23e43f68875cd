"""Studies brought up from older versions of optevo, and their databases from older ones of Optuna."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.study import Study

from optevo import keys
from optevo.errors import UserError
from optevo.storage.opening import open_storage, upgrade_tables
from optevo.study.config import parse_config


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
        UserError: A study or the tables are of a newer version. Or see `open_storage`.
    """
    before, now = upgrade_tables(url)
    yield f"Optuna's tables: {now}" if before == now else f"Optuna's tables: {before} → {now}"
    storage = open_storage(url)
    for stored in storage.get_all_studies():
        name, attrs = stored.study_name, stored.user_attrs
        if keys.FINGERPRINT not in attrs:
            yield f"study {name!r}: not made by optevo, or its creation was cut off; left as it is"
            continue
        version = attrs.get(keys.SCHEMA)
        if not isinstance(version, int) or not 1 <= version <= keys.SCHEMA_VERSION:
            raise UserError(
                f"study {name!r} has optevo's schema version {version}, this optevo knows versions up to "
                f"{keys.SCHEMA_VERSION}: install the optevo that made it"
            )
        if version == keys.SCHEMA_VERSION:
            yield f"study {name!r}: schema version {version}"
            continue
        study, config = optuna.load_study(study_name=name, storage=storage), attrs[keys.CONFIG]
        for step in range(version, keys.SCHEMA_VERSION):
            MIGRATIONS[step](study, config)
        parsed = parse_config(config, f"study {name!r}")
        study.set_user_attr(keys.CONFIG, parsed.to_dict())
        study.set_user_attr(keys.FINGERPRINT, parsed.fingerprint())
        study.set_user_attr(keys.SCHEMA, keys.SCHEMA_VERSION)  # last: until then all is done again
        yield f"study {name!r}: schema version {version} → {keys.SCHEMA_VERSION}"
