"""What every bench offers to a trial, and the tasks that a bench is made for. Nothing here imports torch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optevo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from optevo.optim.candidate import Candidate, Stacked
    from optevo.study.config import StudyConfig
    from optevo.tasks import ScoredTask, Split, Task
    from optevo.training.run import Run

SCREENED = "screened "  # before the names of the cheap evaluation's tasks, among a study's costs
#: `optevo.spaces.Space.stack`: of candidates and steps, what makes their rules one; None for no.
Stack = Callable[["Sequence[Candidate]", int], "Callable[[Tensor], Stacked] | None"]
#: Of steps taken and the mean training loss of the tenth: whether the run ends there.
OnPoint = Callable[[int, float], bool | None]


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one training step, see `optevo.training.operations`.

    Attributes:
        model: Of the forward and the backward pass.
        update: Of the candidate's own update.
        adamw: Of AdamW's update of the same parameters.
    """

    model: int
    update: int
    adamw: int

    @property
    def total(self) -> int:
        """Of the whole step."""
        return self.model + self.update

    @property
    def relative(self) -> float:
        """The whole step's over those of a step with AdamW."""
        return self.total / max(1, self.model + self.adamw)

    def steps_for(self, steps: int) -> int:
        """Steps, at least 1, that have no more operations than `steps` steps with AdamW."""
        return max(1, steps * (self.model + self.adamw) // max(1, self.total))


class BaseBench(abc.ABC):
    """A study's tasks, ready to evaluate candidates.

    Attributes:
        config: The study.
        tasks: In the study's order, each with the data that it trains on.
        screening: The bench of the cheap evaluation. Default: None, the study has one evaluation only.
        prefix: Of its tasks' names among the costs of a study. Default: none.
    """

    config: StudyConfig
    tasks: Sequence[tuple[Task | ScoredTask, Mapping[str, Split]]]
    screening: BaseBench | None = None
    prefix: str = ""

    @abc.abstractmethod
    def rehearse(self) -> dict[str, int]:
        """Find what is wrong with a task before a study begins; what a run of each costs, by name."""

    def rehearse_all(self) -> dict[str, int]:
        """The same, and the same of the cheap evaluation, under names with its prefix."""
        benches: list[BaseBench] = [self]
        if self.screening is not None:
            benches.append(self.screening)
        return {one.prefix + name: cost for one in benches for name, cost in one.rehearse().items()}

    def identities(self) -> dict[str, str]:
        """The digest of each task's data that has one, by name; see `optevo.tasks.Task.identity`."""
        benches: list[BaseBench] = [self] if self.screening is None else [self, self.screening]
        found = {
            one.prefix + task.name: getattr(task, "identity", "") for one in benches for task, _ in one.tasks
        }
        return {name: identity for name, identity in found.items() if identity}

    @abc.abstractmethod
    def run(self, candidate: Candidate, task: int, seed: int, **options: Any) -> Run:
        """One run with the study's budget.

        Args:
            candidate: Whom to evaluate.
            task: Index of the task.
            seed: Of the run.
            **options: `on_point` and `check`, see `optevo.training.single.train`.
        """

    @abc.abstractmethod
    def run_together(
        self,
        candidates: Sequence[Candidate],
        task: int,
        seed: int,
        check: Callable[[], None],
        stack: Stack = lambda candidates, steps: None,
        *,
        on_points: Sequence[OnPoint] = (),
    ) -> list[Run]:
        """A run of each candidate, in order.

        Args:
            candidates: Whom to evaluate.
            task: Index of the task.
            seed: Of the runs.
            check: Called every step; what it raises ends the runs.
            stack: Makes their rules one, see `optevo.spaces.Space.stack`. Default: they train one by one.
            on_points: What `train` calls on_point, of each candidate. Default: none.
        """

    def operations(self, candidate: Candidate, task: int) -> Operations | None:
        """What a training step costs, counted; None, the default, where the task scores by itself."""
        return None

    @abc.abstractmethod
    def stacks(self, task: int) -> bool:
        """Whether candidates of a task train as one model here."""

    def order(self, costs: Mapping[str, int]) -> list[tuple[int, int]]:
        """(index of a task, seed) of a trial's runs: the cheapest task first, seed by seed among equals."""
        seeds = self.config.evaluation.seeds
        names = [task.name for task, _ in self.tasks]
        runs = [
            (costs.get(self.prefix + name, 0), i, t, seed)
            for t, name in enumerate(names)
            for i, seed in enumerate(seeds)
        ]
        return [(t, seed) for _, _, t, seed in sorted(runs, key=lambda run: run[:3])]


def make_tasks(config: StudyConfig) -> list[Task | ScoredTask]:
    """The study's tasks, without their data; torch is imported where one of them needs it.

    Raises:
        UserError: See `optevo.tasks.get_task`; or two tasks have one name.
    """
    tasks: list[Task | ScoredTask] = []
    for one in config.evaluation.tasks:
        task = one.make()
        if any(task.name == other.name for other in tasks):
            raise UserError(f"evaluation.tasks: two tasks have the name {task.name!r}")
        tasks.append(task)
    return tasks
