"""AdamW with one thing changed: updates that are masked, or gradients with less variance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optevo.optim.cautious import mask_updates
from optevo.optim.moments import MomentsOptimizer


class _AdamVariant(MomentsOptimizer):
    """w ← (1 − lr · weight_decay)·w − lr·u, where a subclass says u."""

    def _update(self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int) -> None:
        updates = self._directions(params, grads, group, t)
        lr = float(group["lr"])
        torch._foreach_mul_(params, 1 - lr * float(group["weight_decay"]))
        torch._foreach_add_(params, updates, alpha=-lr)

    def _directions(
        self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        """u for each parameter, new tensors."""
        raise NotImplementedError


class CautiousAdamW(_AdamVariant):
    """AdamW without those elements of its update Δ that differ in sign from the gradient.

    Liang et al., *Cautious Optimizers: Improving Training with One Line of Code*, arXiv 2411.16085; see
    `optevo.optim.cautious.mask_updates`.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 1e-3.
        betas: Of the moments. Default: (0.9, 0.999).
        eps: Added to the root of the second moment. Default: 1e-8.
        weight_decay: Decoupled. Default: 0.01.
        maximize: Ascend instead of descend. Default: False.

    Errors and narrow parameters are those of `optevo.optim.moments.MomentsOptimizer`.

    Example:
        >>> import torch
        >>> from optevo.optim import CautiousAdamW
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = CautiousAdamW(model.parameters(), lr=1e-3)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)

    def _directions(
        self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        updates = self._adam(params, grads, group["betas"], float(group["eps"]), t)
        mask_updates(updates, grads)
        return updates


class MARS(_AdamVariant):
    """MARS-AdamW: Adam's update of gradients that are corrected by how they changed since the last step.

    Yuan et al., *MARS: Unleashing the Power of Variance Reduction for Training Large Models*, arXiv
    2411.10438, in its approximate form: the last gradient is that of the last batch, 0 before the first.
    For what has two or more dimensions, c = g + γ·β₁/(1 − β₁)·(g − g′), scaled down to norm 1 where it
    is longer, takes the gradient's place. Everything else is trained by AdamW with the same lr and decay;
    their code has other ones for it.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 3e-3.
        betas: Of the moments of c. Default: (0.95, 0.99).
        eps: Added to the root of the second moment. Default: 1e-8.
        weight_decay: Decoupled. Default: 0.01.
        gamma: γ, ≥ 0. Default: 0.025.
        betas_1d: AdamW's. Default: (0.9, 0.95).
        maximize: Ascend instead of descend. Default: False.

    Errors and narrow parameters are those of `optevo.optim.moments.MomentsOptimizer`.

    Example:
        >>> import torch
        >>> from optevo.optim import MARS
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = MARS(model.parameters(), lr=3e-3)
    """

    RANGES = dict(MomentsOptimizer.RANGES) | {
        "gamma": (0.0, math.inf, 1),
        "betas_1d": MomentsOptimizer.RANGES["betas"],
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        gamma: float = 0.025,
        betas_1d: tuple[float, float] = (0.9, 0.95),
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize, gamma=gamma, betas_1d=betas_1d
        )

    def _begin(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        super()._begin(p, state, group)
        if p.ndim >= 2:
            state["last_grad"] = torch.zeros_like(p)

    def _update(self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int) -> None:
        for matrices in (True, False):
            chosen = [i for i, p in enumerate(params) if (p.ndim >= 2) == matrices]
            if chosen:
                super()._update([params[i] for i in chosen], [grads[i] for i in chosen], group, t)

    def _directions(
        self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        if params[0].ndim < 2:
            return self._adam(params, grads, group["betas_1d"], float(group["eps"]), t)
        beta1, last = float(group["betas"][0]), self._states(params, "last_grad")
        corrected = list(torch._foreach_sub(grads, last))
        torch._foreach_mul_(corrected, float(group["gamma"]) * beta1 / (1 - beta1))
        torch._foreach_add_(corrected, grads)
        for c in corrected:
            c.div_(torch.linalg.vector_norm(c).clamp_(min=1.0))
        torch._foreach_copy_(last, grads)
        return self._adam(params, corrected, group["betas"], float(group["eps"]), t)
