"""Another sampler, made anew for every trial, so that a resumed study doesn't repeat its early proposals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optevo import keys

if TYPE_CHECKING:
    from optuna.study import Study


class SeededSampler(BaseSampler):
    """A sampler made for each trial, with a seed out of (study seed, slot).

    The built-in samplers seed one stream at construction: a resumed run starts it over. Here what is proposed
    depends on the seed, the slot, and the trials that have finished. A trial's slot is the first that no
    counted or running trial has, so a preset whose trial was lost is evaluated by the next.

    Args:
        make: Makes a sampler from a seed below 2³².
        seed: The study's.
        presets: Parameters that the first slots take.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, presets: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.make, self.seed, self.presets = make, seed, presets
        self._current: tuple[int, BaseSampler] | None = None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the slot; writes the same attributes as the genetic sampler."""
        others = study._storage.get_all_trials(study._study_id, deepcopy=False)
        held = {t.user_attrs.get(keys.SLOT) for t in others if t.state != TrialState.FAIL}
        slot = next(i for i in itertools.count() if i not in held)
        attrs = {
            keys.GENERATION: 0,
            keys.SLOT: slot,
            keys.PARENTS: [],
            keys.ORIGIN: "preset" if slot < len(self.presets) else type(self._sampler(slot)).__name__,
        }
        for key, value in attrs.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        trial.user_attrs = {**trial.user_attrs, **attrs}  # Optuna read the trial before

    def _slot(self, study: Study, trial: FrozenTrial) -> int:
        return int(study._storage.get_trial(trial._trial_id).user_attrs.get(keys.SLOT, trial.number))

    def _sampler(self, slot: int) -> BaseSampler:
        if self._current is None or self._current[0] != slot:
            seed = int(np.random.SeedSequence([self.seed, slot]).generate_state(1)[0])
            self._current = slot, self.make(seed)
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sampler's, none for a preset."""
        slot = self._slot(study, trial)
        if slot < len(self.presets):
            return {}
        return self._sampler(slot).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's."""
        if not search_space:
            return {}
        return self._sampler(self._slot(study, trial)).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The preset's value, else the sampler's."""
        slot = self._slot(study, trial)
        if slot < len(self.presets) and param_name in self.presets[slot]:
            return self.presets[slot][param_name]
        return self._sampler(slot).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """The sampler's."""
        self._sampler(self._slot(study, trial)).after_trial(study, trial, state, values)
