"""The parameters of an individual: those that its trial suggests, and the dormant ones that it only keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from optevo import keys
from optevo.spaces.base import Params


def params_of(trial: FrozenTrial) -> Params:
    """A trial's parameters, with the dormant ones that it keeps for its children."""
    dormant: Params | None = trial.system_attrs.get(keys.DORMANT)
    return {**dormant, **trial.params} if dormant else trial.params


def individual(trial: FrozenTrial, names: Collection[str]) -> Params:
    """A trial's parameters of these `names` and its dormant ones, without what else was suggested."""
    return {**trial.system_attrs.get(keys.DORMANT, {}), **split(trial.params, names)[0]}


def split(params: Mapping[str, Any], suggested: Collection[str]) -> tuple[Params, Params]:
    """An individual's parameters that a trial may suggest, in that order, and its dormant ones."""
    dormant = {name: value for name, value in params.items() if name not in suggested}
    return {name: params[name] for name in suggested if name in params}, dormant
