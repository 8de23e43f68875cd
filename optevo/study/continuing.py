"""A stored search goes on: with more generations or trials than it was begun with.

The configuration that a study was begun with stays as it is stored, and its fingerprint with it. How far the
search goes by now lies beside it, in an attribute for each number that was asked for, of which the greatest
holds. So going on is a single write, done or not; two who write at once lose nothing; and it is never undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from optevo import keys
from optevo.errors import UserError
from optevo.samplers.slots import claimed
from optevo.study.config import AFTERWARDS, StudyConfig, parse_config

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def stored_config(attrs: Mapping[str, Any], where: str) -> StudyConfig:
    """The configuration of a study by its attributes, as far as its search goes by now.

    Args:
        attrs: The study's user attributes.
        where: What messages call the study.

    Raises:
        UserError: A key or value of the configuration is wrong.
    """
    begun = parse_config(attrs[keys.CONFIG], where)
    asked = [value for key, value in attrs.items() if key.startswith(keys.EXTENT)]
    return _extended(begun, max(asked, default=0))


def resumed(asked: StudyConfig, stored: StudyConfig) -> StudyConfig:
    """The configuration asked for, with what a stored search keeps of how it was begun."""
    longer = continued(stored, asked)
    if type(asked.sampler) is not type(longer.sampler):
        return asked
    return asked.model_copy(update={"sampler": asked.sampler.resuming(longer.sampler)})


def continued(stored: StudyConfig, asked: StudyConfig) -> StudyConfig:
    """The stored configuration as far as `asked` goes, if that is further."""
    return _extended(stored, extent(asked)) if type(asked.sampler) is type(stored.sampler) else stored


def extent(config: StudyConfig) -> int:
    """How far a search goes, in whatever its sampler counts; 0 where none of the kind goes on."""
    key = config.sampler.extent
    return 0 if key is None else int(getattr(config.sampler, key))


def with_afterwards(stored: StudyConfig, asked: StudyConfig) -> StudyConfig:
    """The stored configuration with what `asked` says of the best after the search."""
    return stored.model_copy(update={key: getattr(asked, key) for key in AFTERWARDS})


def go_on(study: optuna.Study, config: StudyConfig) -> None:
    """Have a stored search go as far as `config` says.

    Raises:
        UserError: Its best have gone into stages.
    """
    if _staged(study.get_trials(deepcopy=False)):
        raise UserError(
            f"the best of study {config.name!r} have gone into stages, and might be others if it went on: "
            f"undo the change of sampler.{config.sampler.extent}, or give the longer search another name"
        )
    study.set_user_attr(f"{keys.EXTENT}{extent(config)}", extent(config))


def _staged(trials: Iterable[FrozenTrial]) -> bool:
    return any(claimed(trial, keys.STAGE_CLAIM) is not None for trial in trials)


def _extended(config: StudyConfig, further: int) -> StudyConfig:
    if not 0 < extent(config) < further:
        return config
    return config.model_copy(update={"sampler": config.sampler.extended(further)})
