"""What optimizers with Adam's moments share: every parameter counts its own steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optevo.optim.checked import CheckedOptimizer, ranges, step_count


class MomentsOptimizer(CheckedOptimizer):
    """Updates those parameters together, as lists, that have had equally many steps.

    A subclass has `_begin`, a parameter's state before its first step, and `_update`.

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate.
        betas: Of the first and the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled: a step shrinks weights by lr · weight_decay.
        maximize: Ascend instead of descend.
        **others: Further hyperparameters of the subclass.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.
    """

    RANGES = ranges({"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8})

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        *,
        maximize: bool,
        **others: Any,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        defaults |= others
        self._check(defaults)
        super().__init__(params, defaults)

    def _step(self) -> None:
        with self._widened():
            for group in self.param_groups:
                for t, params in self._counted(group).items():
                    grads = [p.grad for p in params if p.grad is not None]
                    if group["maximize"]:
                        grads = list(torch._foreach_neg(grads))
                    self._update(params, grads, group, t)

    def _counted(self, group: Mapping[str, Any]) -> dict[int, list[Tensor]]:
        """What has a gradient, by the number of its step, from 1 on."""
        found = defaultdict[int, list[Tensor]](list)
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            begins = "step" not in state
            count = step_count(state)
            if begins:
                self._begin(p, state, group)
            found[int(count.add_(1).item())].append(p)
        return found

    def _begin(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """State of a parameter that has its first gradient."""
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)

    def _update(self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int) -> None:
        """Step t of parameters that are in it together; gradients are read only."""
        raise NotImplementedError

    def _states(self, params: list[Tensor], name: str) -> list[Tensor]:
        return [self.state[p][name] for p in params]

    def _adam(
        self, params: list[Tensor], grads: list[Tensor], betas: tuple[float, float], eps: float, t: int
    ) -> list[Tensor]:
        """Adam's m̂/(√v̂ + ε) of step t, as new tensors; the moments have had the gradients."""
        beta1, beta2 = map(float, betas)
        moments, squares = self._states(params, "exp_avg"), self._states(params, "exp_avg_sq")
        torch._foreach_lerp_(moments, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        roots = torch._foreach_div(squares, 1 - beta2**t)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, eps)
        updates = torch._foreach_div(moments, 1 - beta1**t)
        torch._foreach_div_(updates, roots)
        return list(updates)
