"""What optimizers share that bring their schedule along."""

from __future__ import annotations

from typing import ClassVar

from torch.optim.lr_scheduler import LambdaLR

from optevo.optim.candidate import Candidate
from optevo.optim.checked import CheckedOptimizer


class Scheduled(CheckedOptimizer):
    """An optimizer that is a preset, with its hyperparameters as arguments.

    A subclass names its `PRESET`, whose schedule is its own.
    """

    PRESET: ClassVar[Candidate]

    def scheduler(self, total_steps: int) -> LambdaLR:
        """The schedule that its learning rate was found with; step it once a training step.

        Every group's own lr is multiplied, so any of torch's schedulers may stand in its place.

        Args:
            total_steps: Length of the run in optimizer steps, ≥ 1.

        Raises:
            ValueError: `total_steps` is out of range.
        """
        return LambdaLR(self, self.PRESET.schedule(total_steps))
