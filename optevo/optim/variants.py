"""What variants of a winner are made of, whatever its kind. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optevo.optim.candidate import Candidate

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

TUNED, SCHEDULED = "tuned AdamW", "tuned AdamW, the winner's schedule"


@dataclass(frozen=True)
class Rescheduled(Candidate):
    """An optimizer under another's learning-rate schedule.

    Attributes:
        optimizer: Whose update and numbers.
        schedule_of: Whose schedule.
    """

    optimizer: Candidate
    schedule_of: Candidate

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        built, _ = self.optimizer.build(params, total_steps)
        for group in built.param_groups:  # that of its own schedule's first step
            group["lr"] = group.pop("initial_lr", group["lr"])
        return built, LambdaLR(built, self.schedule(total_steps))

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The other's factor."""
        return self.schedule_of.schedule(total_steps)

    def formula(self) -> str:
        """The optimizer's."""
        return self.optimizer.formula()

    def describe(self) -> str:
        """Both in a line."""
        return f"{self.optimizer.describe()}; under the schedule of: {self.schedule_of.describe()}"

    def canonical(self) -> str:
        """Both."""
        return f"{self.optimizer.canonical()} under {self.schedule_of.canonical()}"

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """Refused: it is made to be measured.

        Raises:
            ValueError: Always.
        """
        raise ValueError("an optimizer under another's schedule is not exported")


def distinct(made: Mapping[str, Candidate], needed: Collection[str] = ()) -> dict[str, Candidate]:
    """The first of each optimizer among `made`, and those that are needed whatever they are."""
    seen: dict[str, str] = {}
    for name, candidate in made.items():
        seen.setdefault(candidate.canonical(), name)
    return {n: c for n, c in made.items() if seen[c.canonical()] == n or n in needed}
