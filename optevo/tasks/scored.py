"""Tasks that score a candidate by themselves. Nothing here imports torch."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any


class ScoredTask(abc.ABC):
    """A task that scores a candidate by itself: a surrogate, another framework, a stub for load tests.

    A subclass needs `name` and `score`::

        from optevo.tasks import ScoredTask

        class Surrogate(ScoredTask):
            name = "surrogate"

            def score(self, candidate, seed, steps):
                return 1.0 - abs(candidate.lr - 0.01)

    Saved as ``surrogate.py``, a study file names it ``surrogate:Surrogate``. A study has such tasks only, or
    none. With ``gate = false`` its workers never import torch, which saves most of their memory and start
    (`analysis/benchmarks/load.py` measures it). The gate, on by default, follows the rule down a sphere, and
    that needs torch.

    A `score` may take as long as it likes: one that hangs holds its slot until its process is ended.

    A search repeats bit for bit if `score` gives the same for the same arguments. Racing and copies treat
    scores like any task's, `Interrupted` reaches a worker between two scores, and no learning curve is
    reported within a run.

    Attributes:
        name: A short name, unique in a study; results are stored under it.
    """

    name: str

    def load(self, root: Path) -> None:
        """Read what `score` needs, once a process. Default: nothing.

        Args:
            root: The data root (`optevo.tasks.roots.data_root`).

        Raises:
            UserError: Data is missing or damaged.
        """
        return

    @abc.abstractmethod
    def score(self, candidate: Any, seed: int, steps: int) -> float | None:
        """Measure a candidate.

        Args:
            candidate: The space's: an `optevo.optim.TermGenome` where the space is `terms`.
            seed: Of the run: what is random should follow from it alone.
            steps: The study's `evaluation.steps`.

        Returns:
            The metric, which is the run's fitness too. Higher is better, on whatever scale. None, or a number
            that is not finite, for a diverged run, which is below any score.
        """
