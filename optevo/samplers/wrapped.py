"""Another sampler, made anew for every trial, so that a resumed study doesn't repeat its early proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.optuna_private import all_trials, set_trial_system_attr, trial_id, written_together
from optevo.samplers.base import SlotSampler
from optevo.samplers.claiming import furthest
from optevo.samplers.operators import given
from optevo.samplers.slots import Slot, claimed

if TYPE_CHECKING:
    from optuna.study import Study


class SlotGridSampler(GridSampler):
    """Optuna's grid, where a trial evaluates the point that its slot names instead of its number.

    Example:
        >>> import optuna
        >>> from optevo.samplers import SeededSampler, SlotGridSampler
        >>> grid = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 0.1]}
        >>> study = optuna.create_study(sampler=SeededSampler(lambda _: SlotGridSampler(grid, seed=0), 0, 4))
        >>> study.optimize(lambda t: sum(t.suggest_float(name, 0, 1) for name in grid), n_trials=4)
        >>> sorted(trial.params["lr"] for trial in study.trials)
        [0.001, 0.001, 0.01, 0.01]
    """

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Write the point's number under the names that `GridSampler` reads."""
        attrs = {"search_space": self._search_space, "grid_id": keys.ours(trial)[keys.SLOT]}
        for key, value in attrs.items():
            set_trial_system_attr(study, trial, key, value)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """Nothing: the slots say when the grid is done."""


class SeededSampler(SlotSampler):
    """A sampler made for each trial, with a seed out of (study seed, slot).

    The built-in samplers seed one stream at construction: a resumed run starts it over. Here what is proposed
    depends on the seed, the slot, and the trials that have finished; where a trial failed, the next in its
    slot evaluates the same parameters. There is one generation, and nothing is bred.

    Args:
        make: Makes a sampler from a seed below 2³².
        seed: The study's.
        n_trials: Slots.
        presets: Parameters that the first slots take.

    Example:
        >>> import optuna
        >>> from optevo.samplers import SeededSampler
        >>> sampler = SeededSampler(lambda seed: optuna.samplers.TPESampler(seed=seed), seed=0, n_trials=20)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=20)
    """

    has_generations = False

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        seed: int,
        n_trials: int,
        presets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(
            population_size=n_trials,
            n_generations=1,
            seed=seed,
            presets=presets,
            max_failures=None,
            patience=0.0,
            endless=False,
        )
        self.make = make

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot.

        Raises:
            NoSlot: All are taken.
        """
        super().before_trial(study, trial)
        with written_together(study):
            self._wrapped(study, trial).sampler.before_trial(study, trial)

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """The sampler's name as the origin."""
        name = type(self._make(slot.index)).__name__.removeprefix("Slot")  # Optuna's name for the grid
        known = super().lineage(study, slot)
        return known if self.is_preset(slot) else {**known, keys.ORIGIN: name}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sampler's, none for a preset and a second attempt."""
        one = self._wrapped(study, trial)
        return {} if one.fixed else one.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's."""
        if not search_space:
            return {}
        return self._wrapped(study, trial).sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The preset's or the failed attempt's value, else the sampler's."""
        one = self._wrapped(study, trial)
        if param_name in one.fixed:
            return given(param_name, one.fixed[param_name], param_distribution)
        return one.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """The sampler's."""
        self._wrapped(study, trial).sampler.after_trial(study, trial, state, values)
        self._cache(study).own.pop(trial_id(trial), None)
        super().after_trial(study, trial, state, values)

    def _wrapped(self, study: Study, trial: FrozenTrial) -> _Wrapped:
        """What proposes for a trial; each has its own, since threads share this sampler."""
        running, key = self._cache(study).own, trial_id(trial)
        if key not in running:
            slot = self.slot(study, trial)
            index = trial.number if slot is None else slot.index
            fixed: Mapping[str, Any] = {}
            if index < len(self.presets):
                fixed = self.presets[index]
            elif slot is not None:
                # Attempts that got as far as being described have all their parameters.
                before = [t for t in all_trials(study) if claimed(t) == slot]
                earlier = furthest([t for t in before if keys.CANONICAL in keys.ours(t)], slot)
                fixed = {} if earlier is None else earlier.params
            running[key] = _Wrapped(self._make(index), fixed)
        made: _Wrapped = running[key]
        return made

    def _make(self, index: int) -> BaseSampler:
        return self.make(int(np.random.SeedSequence([self.seed or 0, index]).generate_state(1)[0]))


class _Wrapped(NamedTuple):
    """A trial's sampler, and the parameters that it is not free to propose."""

    sampler: BaseSampler
    fixed: Mapping[str, Any]
