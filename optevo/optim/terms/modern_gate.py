"""The gate of the modern catalogue: the shifted sphere of `gate`, for the rule of each kind of parameters.

The sphere is a vector. For matrices it is one of a single row, whose orthogonal factor is the row over its
norm. The mask of a cautious rule is taken a row at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optevo.optim.kinds import KINDS
from optevo.optim.terms import gate as published
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.modern_optimizer import Numbers, direction
from optevo.optim.terms.modern_rule import ModernRule, reads
from optevo.optim.terms.optimizer import step_scalars
from optevo.optim.terms.table import FUSED


def gate(genome: ModernGenome) -> str | None:
    """Why a rule of `genome` cannot train anything, or None. Takes milliseconds.

    Rules are followed as they stand, without weight decay and schedule. Vectors may be left as they are.
    """
    seconds = () if genome.second is None else genome.second.kinds
    seen = list[ModernRule]()
    for kind in KINDS:
        rule = genome.rule_of(kind)
        if rule in seen or (kind == "vector" and not rule.coefficients):
            continue
        seen.append(rule)
        if (reason := published.sifted(functools.partial(_follow, rule))[0]) is not None:
            whose = "the second rule: " * (kind in seconds) + "vectors: " * (kind == "vector")
            return reason.replace("gate: ", f"gate: {whose}", 1)
    return None


def _follow(
    rule: ModernRule, x: Tensor, gradient: Callable[[Tensor], Tensor], rates: Sequence[float], steps: int
) -> Tensor:
    """Every row of `x` after `steps` updates, each with its own learning rate."""
    coefficients = {name: c for name, c in rule.coefficients.items() if name != "ortho"}
    needs = reads(rule.coefficients)
    x = x.clone()
    lr = x.new_tensor(rates).repeat(len(x) // len(rates)).unsqueeze(1)
    moments = [
        [torch.zeros_like(x)] if kept else []
        for kept in (
            rule.beta1 is not None and "m" in needs,
            rule.beta2 is not None and "root" in needs,
            "slow" in needs,
        )
    ]
    for step in range(1, steps + 1):
        k = step_scalars(
            tuple(coefficients.get(name, 0.0) for name in FUSED),
            lr=1.0,
            betas=(rule.beta1 or 0.0, rule.beta2 or 0.0),
            eps=rule.eps or 0.0,
            weight_decay=0.0,
            clip_value=None,
            k=step if rule.bias_correction else 0,
        )
        numbers = Numbers(coefficients, k, rule.beta_slow or 0.0, rule.beta_lion or 0.0, cautious=False)
        grads = gradient(x)
        if rule.clip_value is not None:
            grads = grads.clamp(-rule.clip_value, rule.clip_value)
        (delta,) = direction([x], [grads], moments[0], moments[1], moments[2], numbers)
        if "ortho" in rule.coefficients:
            nesterov = torch.lerp(grads, moments[0][0], k.beta1) if moments[0] else grads
            norms = nesterov.norm(dim=1, keepdim=True).clamp(min=1e-7)
            delta += rule.coefficients["ortho"] * 0.2 * x.size(1) ** 0.5 * nesterov / norms
        if rule.cautious:
            mask = (delta * grads > 0).to(x.dtype)
            delta *= mask / mask.mean(dim=1, keepdim=True).clamp(min=1e-3)
        x -= lr * delta
    return x
