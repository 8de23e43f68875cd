"""What trains: the contract between a search space and whoever trains its points."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


WINNER = "the winner"  # what it is called among its variants


class Candidate(abc.ABC):
    """One point of a search space: an optimizer with its hyperparameters and its schedule.

    A subclass is pure Python until it builds; importing it imports no torch.

    Attributes:
        by_kind: Whether `build` takes groups with a `kind`, see `optevo.optim.kinds`. Default: False.

    Example:
        >>> import torch
        >>> from optevo.optim import PRESETS
        >>> PRESETS["lion"].formula()
        'Δ = 1·sign(0.9·m + 0.1·g)'
        >>> optimizer, schedule = PRESETS["lion"].build(torch.nn.Linear(4, 2).parameters(), total_steps=1000)
    """

    by_kind = False

    @abc.abstractmethod
    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LRScheduler]:
        """Optimizer and scheduler for a run of `total_steps` steps."""

    @abc.abstractmethod
    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The factor on the learning rate at each step of a run, from 0 on."""

    @abc.abstractmethod
    def formula(self) -> str:
        """The update rule as one line."""

    @abc.abstractmethod
    def describe(self) -> str:
        """The hyperparameters as one line."""

    @abc.abstractmethod
    def canonical(self) -> str:
        """A string that two candidates share only when they are the same optimizer.

        Results are stored under it, so it stays the same for good: moving a class must not change it.
        """

    @abc.abstractmethod
    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """The optimizer as one Python file.

        Raises:
            ValueError: The class name is useless, or a class alone can't be the optimizer.
        """

    def at_rate(self, lr: float) -> Candidate:
        """The same at another learning rate.

        Args:
            lr: At the peak of the schedule, > 0.

        Raises:
            TypeError: It has a rate of its own, the default.
        """
        raise TypeError(f"a {type(self).__name__} has a learning rate of its own")

    def gate(self) -> str | None:
        """Why it cannot train anything, found in milliseconds; None where nothing speaks against it.

        Default: None.
        """
        return None

    def step_size(self) -> float:
        """How far a step goes at the peak of the schedule, about, in units of the weights. Default: NaN."""
        return math.nan

    def text(self) -> str | None:
        """The update rule as a line that a program reads back; None, the default, where there is no such."""
        return None

    def latex(self) -> str | None:
        """The update rule in LaTeX, without dollar signs; None, the default, where nobody has written it."""
        return None

    def drawing(self) -> Drawing | None:
        """The update rule as a picture; None, the default, where its formula says it all."""
        return None


@dataclass(frozen=True)
class DrawnNode:
    """A box of a `Drawing`.

    Attributes:
        label: What is written in it, lines apart.
        kind: "input", "operation" or "output".
        told: What it is called, in a few words.
    """

    label: str
    kind: str
    told: str


@dataclass(frozen=True)
class DrawnEdge:
    """An arrow of a `Drawing`.

    Attributes:
        start: Index of the node that it comes from.
        end: Index of the node that it goes to.
        label: What multiplies the value on its way. Default: nothing.
        place: What the node that it goes to calls it, where that matters. Default: nothing.
    """

    start: int
    end: int
    label: str = ""
    place: str = ""


@dataclass(frozen=True)
class Drawing:
    """An update rule as a picture, in plain data.

    Attributes:
        nodes: Each after those that it reads; the last is the output.
        edges: Without a circle.
        curves: What varies over a run, by name: its values at the steps of a run of so many steps.
        notes: What the names in it are, a line each.
    """

    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]
    curves: Mapping[str, Callable[[int], Sequence[float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Stacked(Protocol):
    """The rules of K candidates that train as one model, with their state; row k is candidate k."""

    def step(self, weights: Tensor, grads: Tensor) -> None:
        """The next update of every row, in place; both of shape (K, P)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only; int64 of shape (rows,)."""


@dataclass(frozen=True)
class Variants:
    """What remains of a winner without each of its parts, to be measured beside it.

    Attributes:
        candidates: By name, the winner first, as `WINNER`.
        account: How the winner's gain over something known is taken apart: what is said of a step, and the
            names of the variants after and before it. The first line is the whole, which the others add up
            to. Empty where nothing known was given.
        note: What all of them have in common, as a sentence. Default: nothing that needs saying.
    """

    candidates: dict[str, Candidate]
    account: tuple[tuple[str, str, str], ...] = ()
    note: str = ""
