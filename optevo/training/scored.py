"""A bench for tasks that score candidates by themselves. Nothing here imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optevo.errors import UserError
from optevo.tasks.faults import users_code, users_number
from optevo.training.base import BaseBench
from optevo.training.fitness import DIVERGED, usable
from optevo.training.run import Run

if TYPE_CHECKING:
    from optevo.optim.candidate import Candidate
    from optevo.study.config import StudyConfig
    from optevo.tasks import ScoredTask


class ScoredBench(BaseBench):
    """Tasks that score candidates by themselves, on the CPU.

    Args:
        config: The study; of its budget, tasks see the steps alone.
        tasks: Its tasks; their `load` is called here.
        data_root: Where data sets lie.
    """

    def __init__(self, config: StudyConfig, tasks: Sequence[ScoredTask], data_root: Path) -> None:
        if config.evaluation.rates is not None:
            raise UserError(
                f"evaluation.rates: the task {tasks[0].name!r} scores candidates by itself, so there is no "
                "run to find a learning rate for"
            )
        if config.evaluation.budget == "flops":
            raise UserError(
                f"evaluation.budget: the task {tasks[0].name!r} scores candidates by itself, so there are no "
                'operations to count: take "steps"'
            )
        self.config = config
        self.tasks: list[tuple[ScoredTask, dict[str, Any]]] = []
        for task in tasks:
            with users_code(f"task {task.name!r}: load()", task):
                task.load(data_root)
            self.tasks.append((task, {}))

    def rehearse(self) -> dict[str, int]:
        """Nothing is tried: there is no candidate yet. All tasks cost the same."""
        return {task.name: 0 for task, _ in self.tasks}

    def run(
        self,
        candidate: Candidate,
        task: int,
        seed: int,
        *,
        check: Callable[[], None] = lambda: None,
        **_: Any,
    ) -> Run:
        """Score `candidate`; a score that is None, not finite or beyond ±1e300 is a diverged run.

        Args:
            candidate: Whom to score.
            task: Index of the task.
            seed: Handed to the task.
            check: Called once, before the scoring; what it raises ends the run.

        Raises:
            UserError: The score is no number, nor None.
        """
        check()
        one, steps = self.tasks[task][0], self.config.evaluation.steps
        start = time.perf_counter()
        score = one.score(candidate, seed, steps)
        number = None if score is None else users_number(f"task {one.name!r}: score()", score)
        metric = number if number is not None and usable(number) else None
        return Run(
            task=one.name,
            seed=seed,
            fitness=DIVERGED if metric is None else metric,
            metric=metric,
            loss=None,
            losses=(),
            steps=steps,
            seconds=time.perf_counter() - start,
            diverged_at=steps if metric is None else None,
        )

    def run_together(
        self,
        candidates: Sequence[Candidate],
        task: int,
        seed: int,
        check: Callable[[], None],
        stack: Any = None,
        *,
        on_points: Any = (),
    ) -> list[Run]:
        """One after another."""
        return [self.run(candidate, task, seed, check=check) for candidate in candidates]

    def stacks(self, task: int) -> bool:
        """Never."""
        return False
