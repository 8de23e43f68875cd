"""Schedule-free AdamW: it trains at one point and is evaluated at an average."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optevo.optim.moments import MomentsOptimizer


class ScheduleFreeAdamW(MomentsOptimizer):
    """AdamW with averaging in the place of a schedule.

    Defazio et al., *The Road Less Scheduled*, arXiv 2405.15682. With u = g/(√v̂ + ε) + λ·y and
    c = γ²/Σγ², γ the greatest lr so far: z ← z − lr·u and x ← (1 − c)·x + c·z; gradients are taken at
    y = (1 − β₁)·z + β₁·x. A model has the weights y in training and should be scored with x:

        optimizer.eval()   # the model has x
        score(model)
        optimizer.train()  # it has y again, to the last bit

    Batch norm's running statistics are those of y; the authors advise to renew them at x.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate; the authors advise one to ten times AdamW's. Default: 2.5e-3.
        betas: β₁ of y, above 0, and β₂ of v. Default: (0.9, 0.999).
        eps: Added to the root of the second moment. Default: 1e-8.
        weight_decay: Decoupled, at y. Default: 0.0.
        warmup_steps: Steps of linear warmup. Default: 0.
        maximize: Ascend instead of descend. Default: False.

    Narrow parameters and errors are those of `optevo.optim.moments.MomentsOptimizer`; and

    Raises:
        RuntimeError: In `step`, the model has the weights x.

    Example:
        >>> import torch
        >>> from optevo.optim import ScheduleFreeAdamW
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = ScheduleFreeAdamW(model.parameters(), lr=2.5e-3, warmup_steps=100)
        >>> optimizer.eval()  # before validation and checkpoints; then optimizer.train()
    """

    RANGES = dict(MomentsOptimizer.RANGES) | {"warmup_steps": (0.0, math.inf, 1)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        warmup_steps: int = 0,
        maximize: bool = False,
    ) -> None:
        more = {"warmup_steps": warmup_steps, "train_mode": True}
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize, **more)

    @torch.no_grad()
    def eval(self) -> None:
        """Give the model the averaged weights x."""
        for group in self.param_groups:
            for p in group["params"] if group["train_mode"] else ():
                state = self.state.get(p, {})
                if "z" in state:
                    state["train_weights"], z = p.detach().clone(), state["z"]
                    p.copy_(p.to(z.dtype).lerp_(z, 1 - 1 / float(group["betas"][0])))
            group["train_mode"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Give the model the weights y again, at which it is trained."""
        for group in self.param_groups:
            for p in group["params"] if not group["train_mode"] else ():
                weights = self.state.get(p, {}).pop("train_weights", None)
                if weights is not None:
                    p.copy_(weights)
            group["train_mode"] = True

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if "betas" in group and float(group["betas"][0]) == 0:
            raise ValueError("Invalid beta parameter at index 0: 0, expected more, or y says nothing of x")

    def _begin(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        state["exp_avg_sq"], state["z"] = torch.zeros_like(p), p.clone()
        state["lr_max"], state["weight_sum"] = 0.0, 0.0

    def _step(self) -> None:
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError("the model has averaged weights; call the optimizer's train() before a step")
        super()._step()

    def _update(self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int) -> None:
        warmup = int(group["warmup_steps"])
        lr = float(group["lr"]) * (min(t / warmup, 1.0) if warmup else 1.0)
        alike = defaultdict[float, list[int]](list)  # by c; one list, unless rates differed
        for i, p in enumerate(params):
            state = self.state[p]
            state["lr_max"] = max(lr, state["lr_max"])
            state["weight_sum"] += state["lr_max"] ** 2
            alike[state["lr_max"] ** 2 / state["weight_sum"] if state["weight_sum"] else 0.0].append(i)
        for c, chosen in alike.items():
            ys, gs = [params[i] for i in chosen], [grads[i] for i in chosen]
            self._move(ys, gs, group, t, lr=lr, c=c)

    def _move(
        self, ys: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int, *, lr: float, c: float
    ) -> None:
        beta1, beta2 = map(float, group["betas"])
        zs, squares = self._states(ys, "z"), self._states(ys, "exp_avg_sq")
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        roots = torch._foreach_div(squares, 1 - beta2**t)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, float(group["eps"]))
        updates = torch._foreach_div(grads, roots)
        torch._foreach_add_(updates, ys, alpha=float(group["weight_decay"]))
        torch._foreach_lerp_(ys, zs, c)
        torch._foreach_add_(ys, updates, alpha=lr * (beta1 * (1 - c) - 1))
        torch._foreach_add_(zs, updates, alpha=-lr)
