"""Another sampler, made anew for every trial, so that a resumed study doesn't repeat its early proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    from optuna.study import Study


class SeededSampler(BaseSampler):
    """`make(seed)` for each trial, with a seed out of (study seed, trial number).

    The built-in samplers seed one stream at construction: a resumed run starts it over. Here what is proposed
    depends on the seed, the trial's number and the trials that have finished.

    Args:
        make: Makes a sampler from a seed below 2³².
        seed: The study's.
        presets: Parameters that the first trials take.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, presets: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.make, self.seed, self.presets = make, seed, presets
        self._current: tuple[int, BaseSampler] | None = None

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
            self._current = trial.number, self.make(seed)
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sampler's, none for a preset."""
        if trial.number < len(self.presets):
            return {}
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's."""
        return self._sampler(trial).sample_relative(study, trial, search_space) if search_space else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The preset's value, else the sampler's."""
        if trial.number < len(self.presets) and param_name in self.presets[trial.number]:
            return self.presets[trial.number][param_name]
        return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """The sampler's."""
        self._sampler(trial).after_trial(study, trial, state, values)
