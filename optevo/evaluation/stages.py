"""A candidate in a stage: the objective of the stage whose slot its trial has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import optuna

from optevo.evaluation.objective import Objective
from optevo.samplers import sampler_of

if TYPE_CHECKING:
    from optevo.study.config import StudyConfig


class StageObjective:
    """Callable on a trial of a `optevo.study.promotion.staged_study`, as `Objective` is on the search's.

    One stage's tasks are kept at a time, since their data may fill a machine's memory.

    Args:
        make: The objective of a study.
        stages: The study with each stage's evaluation.
    """

    def __init__(self, make: Callable[[StudyConfig], Objective], stages: Sequence[StudyConfig]) -> None:
        self._make, self._stages = make, stages
        self._made: tuple[int, Objective] | None = None

    def prepare(self, stage: int) -> Objective:
        """Load what a stage needs, counted from 0, and forget the others'; the last for any later one."""
        stage = min(stage, len(self._stages) - 1)
        if self._made is None or self._made[0] != stage:
            self._made = None  # before the next is there
            self._made = stage, self._make(self._stages[stage])
        return self._made[1]

    def __call__(self, trial: optuna.Trial) -> float:
        slot = sampler_of(trial.study).slot(trial.study, trial)
        assert slot is not None
        return self.prepare(slot.generation)(trial)
