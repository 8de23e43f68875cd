"""Another sampler, made anew for every trial, so that a resumed study doesn't repeat its early proposals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.samplers.claiming import claim, earlier_params
from optevo.samplers.slots import Slot, SlotTable

if TYPE_CHECKING:
    from optuna.study import Study


class SlotGridSampler(GridSampler):
    """Optuna's grid, where a trial evaluates the point that its slot names instead of its number."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Write the point's number under the names that `GridSampler` reads."""
        attrs = {"search_space": self._search_space, "grid_id": trial.user_attrs[keys.SLOT]}
        for key, value in attrs.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """Nothing: the slots say when the grid is done."""


class SeededSampler(BaseSampler):
    """A sampler made for each trial, with a seed out of (study seed, slot).

    The built-in samplers seed one stream at construction: a resumed run starts it over. Here what is proposed
    depends on the seed, the slot, and the trials that have finished; where a trial failed, the next in its
    slot evaluates the same parameters.

    Slots are claimed as in the genetic search, of which this is one generation without elites: each of them
    counts once, whatever the number of workers and kills.

    Args:
        make: Makes a sampler from a seed below 2³².
        seed: The study's.
        n_trials: Slots.
        presets: Parameters that the first slots take.
    """

    has_generations = False

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        seed: int,
        n_trials: int,
        presets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.make, self.seed, self.n_trials, self.presets = make, seed, n_trials, presets
        self._current: tuple[int, BaseSampler] | None = None
        self._fixed: dict[int, Mapping[str, Any]] = {}  # by trial id: what it is not free to propose
        self._lock = threading.RLock()
        self._board: tuple[int, SlotTable] | None = None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot; writes the same attributes as the genetic sampler.

        Raises:
            NoSlot: All are taken.
        """
        slot = claim(study, trial, lambda: self.board(study), self._lock, patience=0.0, endless=False)
        index = slot.index
        # Attempts that got as far as being described have all their parameters.
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        trials = [t for t in trials if keys.CANONICAL in t.user_attrs]
        preset = self.presets[index] if index < len(self.presets) else None
        self._fixed = {trial._trial_id: earlier_params(trials, slot) if preset is None else preset}
        attrs = {
            keys.GENERATION: 0,
            keys.SLOT: index,
            keys.PARENTS: [],
            keys.ORIGIN: "preset" if index < len(self.presets) else self._name(index),
        }
        for key, value in attrs.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        trial.user_attrs = {**trial.user_attrs, **attrs}  # Optuna read the trial before
        self._sampler(index).before_trial(study, trial)

    def board(self, study: Study) -> SlotTable:
        """The study's slots as the storage has them now."""
        with self._lock:
            if self._board is None or self._board[0] != study._study_id:
                board = SlotTable(self.n_trials, n_elites=0, max_failures=None, n_generations=1)
                self._board = (study._study_id, board)
            board = self._board[1]
            board.update(study._storage.get_all_trials(study._study_id, deepcopy=False), study.direction)
            return board

    slot_table = board

    def failed_before(self, study: Study, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that have failed in a slot, but for interrupted ones."""
        return self.board(study).failed(slot)

    def _slot(self, study: Study, trial: FrozenTrial) -> int:
        return int(study._storage.get_trial(trial._trial_id).user_attrs.get(keys.SLOT, trial.number))

    def _name(self, slot: int) -> str:
        return type(self._sampler(slot)).__name__.removeprefix("Slot")  # Optuna's name for the grid

    def _sampler(self, slot: int) -> BaseSampler:
        if self._current is None or self._current[0] != slot:
            seed = int(np.random.SeedSequence([self.seed, slot]).generate_state(1)[0])
            self._current = slot, self.make(seed)
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sampler's, none for a preset and a second attempt."""
        if self._fixed.get(trial._trial_id):
            return {}
        return self._sampler(self._slot(study, trial)).infer_relative_search_space(study, trial)

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
        """The preset's or the failed attempt's value, else the sampler's."""
        fixed = self._fixed.get(trial._trial_id, {})
        if param_name in fixed:
            return fixed[param_name]
        return self._sampler(self._slot(study, trial)).sample_independent(
            study, trial, param_name, param_distribution
        )

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """The sampler's."""
        self._sampler(self._slot(study, trial)).after_trial(study, trial, state, values)
