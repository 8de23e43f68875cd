"""The gate: a rule that cannot descend even a sphere is turned away before anything is trained.

The shifted sphere is that of *Neural Optimizer Equation, Decay Function, and Learning Rate Schedule Joint
Evolution* (arXiv 2404.06679): f(x) = Σ (x − b)² in five dimensions from f = 7.15, passed at f < 3.5 after 34
updates. A term genome's terms weigh against each other differently with the size of the gradient, which
is orders of magnitude smaller in a network; so the sphere is tried at several scales of the gradient too, and
a rule passes that descends with any learning rate at any scale.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optevo.optim.terms.kernels import stacked_update
from optevo.optim.terms.optimizer import rule_scalars
from optevo.optim.terms.rule import Rule
from optevo.optim.terms.table import BASIS, FUSED

START = (1.1, 0.9, 1.1, 0.9, 1.0)
CENTRE = (0.5, 1.5, -0.3, -1.2, 0.75)
UPDATES = 34
PASSED = 3.5  # f at the start is 7.1525
RATES = tuple(10 ** (k / 2) for k in range(4, -11, -1))
SCALES = (1.0, 1e-2, 1e-4)
PROBES = (0.0, 1e-20, -1e-8, 1e-3, -1.0, 1e4)


#: (x, gradient, learning rates, steps): every row of x after so many updates; rates repeat along the rows.
Follow = Callable[[Tensor, Callable[[Tensor], Tensor], Sequence[float], int], Tensor]


def gate(rule: Rule) -> str | None:
    """Why `rule` cannot train anything, or None. Takes milliseconds.

    The rule is followed as it stands, without weight decay and schedule.

    Args:
        rule: The canonical update.
    """
    return gates([rule])[0]


def gates(rules: Sequence[Rule]) -> list[str | None]:
    """`gate` of each rule; those that read the same are followed together, in little more time than one."""
    alike = defaultdict[tuple[object, ...], list[int]](list)
    for i, rule in enumerate(rules):
        first = rule_scalars(rule, lr=1.0, weight_decay=0.0, step=1)
        alike[rule.reads_m, rule.reads_v, len(first.folded())].append(i)
    found: list[str | None] = [None] * len(rules)
    for places in alike.values():
        same = [rules[i] for i in places]
        for i, reason in zip(places, sifted(functools.partial(_follow, same), len(same)), strict=True):
            found[i] = reason
    return found


def sifted(follow: Follow, n: int = 1) -> list[str | None]:
    """Why what `follow` follows cannot train anything, or None.

    Args:
        follow: Takes n times as many rows as for one: those of the first, of the second and so on.
        n: How many it follows. Default: 1.
    """
    probes = torch.tensor(PROBES).expand(n, -1)
    finite = torch.isfinite(follow(torch.ones_like(probes), lambda x: probes, [1.0], 2)).all(dim=1)
    scale = torch.tensor(SCALES).repeat_interleave(len(RATES)).repeat(n).unsqueeze(1)  # each with all rates
    centre, start = torch.tensor(CENTRE), torch.tensor(START).repeat(len(scale), 1)
    end = follow(start, lambda x: scale * 2 * (x - centre), RATES, UPDATES)
    f = (end - centre).square().sum(dim=1).view(n, -1)
    best = torch.where(torch.isfinite(f), f, torch.inf).min(dim=1).values
    passed = finite & (best < PASSED)
    return [
        None
        if descends
        else f"gate: cannot descend; at best the shifted sphere goes from 7.15 to {value:.4g}"
        if usable
        else "gate: the update is not finite on ordinary gradients"
        for descends, usable, value in zip(passed.tolist(), finite.tolist(), best.tolist(), strict=True)
    ]


def _follow(
    rules: Sequence[Rule],
    x: Tensor,
    gradient: Callable[[Tensor], Tensor],
    rates: Sequence[float],
    steps: int,
) -> Tensor:
    """Every row of `x` after `steps` updates, each with its own learning rate; as many rows for each rule."""
    x = x.clone()
    m = torch.zeros_like(x) if rules[0].reads_m else None
    v = torch.zeros_like(x) if rules[0].reads_v else None
    numbers = [
        [rule_scalars(rule, lr=1.0, weight_decay=0.0, step=k).folded() for rule in rules]
        for k in range(1, steps + 1)
    ]
    columns = torch.tensor(numbers, dtype=torch.float64).transpose(1, 2)
    columns = columns.repeat_interleave(len(x) // len(rules), dim=2)
    lr = torch.tensor(rates, dtype=torch.float64).repeat(len(x) // len(rates))
    proportional = *range(1, 7), *range(17, 17 + len(BASIS) - len(FUSED))  # to the rate, see `Scalars.folded`
    columns[:, proportional] *= lr
    for scalars in columns.to(x.dtype):
        stacked_update(x, gradient(x), m, v, scalars)
    return x
