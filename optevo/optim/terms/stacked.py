"""Term genomes that train together: a rule is a column of numbers a step, K of them are K columns."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.kernels import stacked_update
from optevo.optim.terms.optimizer import rule_scalars
from optevo.optim.terms.table import BASIS


class StackedTerms:
    """The rules and moments of K term genomes, see `optevo.optim.candidate.Stacked`.

    Args:
        genomes: K of them.
        steps: Training steps of the run.
        like: The weights, shape (K, P).
    """

    def __init__(self, genomes: Sequence[TermGenome], steps: int, like: Tensor) -> None:
        rules = [genome.rule() for genome in genomes]
        self.m = torch.zeros_like(like) if any(rule.reads_m for rule in rules) else None
        self.v = torch.zeros_like(like) if any(rule.reads_v for rule in rules) else None
        self.scalars = torch.stack([_scalars(genome, steps, len(BASIS)) for genome in genomes], dim=2).to(
            like
        )
        self.work = like.new_empty(4, *like.shape)
        self.taken = 0

    def step(self, weights: Tensor, grads: Tensor) -> None:
        """The next update of every row, in place."""
        with torch.no_grad():
            stacked_update(weights, grads, self.m, self.v, self.scalars[self.taken], self.work)
        self.taken += 1

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.scalars, self.work = self.scalars[:, :, rows], self.work[:, rows]
        self.m, self.v = (None if x is None else x[rows] for x in (self.m, self.v))


@functools.lru_cache(maxsize=64)  # a stack trains with several seeds and tasks
def _scalars(genome: TermGenome, steps: int, entries: int) -> Tensor:
    """The numbers of every step of a run, float64 of shape (steps, as many as `Scalars.folded` gives).

    As many as the basis has entries, which grow when a term of another package is used.
    """
    rule, schedule = genome.rule(), genome.schedule(steps)
    rows = [
        rule_scalars(rule, lr=genome.lr * schedule(t), weight_decay=genome.weight_decay, step=t + 1).folded()
        for t in range(steps)
    ]
    return torch.tensor(rows, dtype=torch.float64, device="cpu")
