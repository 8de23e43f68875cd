"""SOAP: Adam in the eigenbases of the gradients' second moments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optevo.optim.moments import MomentsOptimizer


class SOAP(MomentsOptimizer):
    """Adam's update in the basis of Shampoo's eigenvectors, turned back.

    Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam*, arXiv 2409.11321. Along each dimension
    of a tensor with two or more, L is the running mean of the gradient's products with itself, and Q its
    eigenvectors, renewed by one power iteration and a QR decomposition. The second moment is that of the
    turned gradient. Everything else is trained by Adam.

    As in the authors' code, a parameter's first gradient only makes its bases. Here its weights decay in
    that step too.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 3e-3.
        betas: Of the moments; β₂ is that of L too. Default: (0.95, 0.95).
        eps: Added to the root of the second moment. Default: 1e-8.
        weight_decay: Decoupled. Default: 0.01.
        precondition_frequency: Steps between new bases, ≥ 1. Default: 10.
        max_precondition_dim: Greatest dimension that has a basis of its own; a step takes its cube. Default:
            1024.
        maximize: Ascend instead of descend. Default: False.

    Errors and narrow parameters are those of `optevo.optim.moments.MomentsOptimizer`.

    Example:
        >>> import torch
        >>> from optevo.optim import SOAP
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = SOAP(model.parameters(), lr=3e-3, precondition_frequency=10)
    """

    RANGES = dict(MomentsOptimizer.RANGES) | {
        "precondition_frequency": (1.0, math.inf, 1),
        "max_precondition_dim": (0.0, math.inf, 1),
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 1024,
        maximize: bool = False,
    ) -> None:
        more = {
            "precondition_frequency": precondition_frequency,
            "max_precondition_dim": max_precondition_dim,
        }
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize, **more)

    def _begin(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        super()._begin(p, state, group)
        for k, size in enumerate(p.shape if p.ndim > 1 else ()):
            if size <= group["max_precondition_dim"]:
                state[f"gram_{k}"] = torch.zeros(size, size, dtype=p.dtype, device=p.device)

    def _update(self, params: list[Tensor], grads: list[Tensor], group: Mapping[str, Any], t: int) -> None:
        lr, beta2 = float(group["lr"]), float(group["betas"][1])
        for p, grad in zip(params, grads, strict=True):
            state = self.state[p]
            if t > 1:
                p.sub_(self._turned_adam(grad, state, group, t - 1), alpha=lr)
            p.mul_(1 - lr * float(group["weight_decay"]))
            for k, gram in _by_dimension(state, "gram"):
                others = [d for d in range(grad.ndim) if d != k]
                gram.lerp_(torch.tensordot(grad, grad, dims=(others, others)), 1 - beta2)
                if t == 1:
                    state[f"basis_{k}"] = torch.linalg.eigh(gram).eigenvectors.flip(1)
            if t > 1 and (t - 1) % int(group["precondition_frequency"]) == 0:
                _renew(state)

    def _turned_adam(self, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any], t: int) -> Tensor:
        beta1, beta2 = map(float, group["betas"])
        moment, square = state["exp_avg"], state["exp_avg_sq"]
        moment.lerp_(grad, 1 - beta1)
        square.lerp_(_turned(grad, state).square(), 1 - beta2)
        root = square.sqrt().add_(float(group["eps"]))
        scale = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        return _turned(_turned(moment, state).div_(root), state, back=True).mul_(scale)


def _by_dimension(state: Mapping[str, Any], name: str) -> list[tuple[int, Tensor]]:
    """A parameter's matrices of one kind, with the dimension that each is for."""
    prefix = f"{name}_"
    return [(int(key.removeprefix(prefix)), state[key]) for key in state if key.startswith(prefix)]


def _turned(tensor: Tensor, state: Mapping[str, Any], *, back: bool = False) -> Tensor:
    """A new tensor: this one in the basis of each dimension that has one, or out of it."""
    tensor = tensor.clone()
    for k, basis in _by_dimension(state, "basis"):
        tensor = torch.tensordot(tensor, basis, dims=([k], [int(back)])).movedim(-1, k)
    return tensor


def _renew(state: dict[str, Any]) -> None:
    """One power iteration for every basis, its vectors in the order of their eigenvalues."""
    for k, basis in _by_dimension(state, "basis"):
        product = state[f"gram_{k}"] @ basis
        order = (basis * product).sum(dim=0).argsort(descending=True)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(k, order)
        state[f"basis_{k}"] = torch.linalg.qr(product.index_select(1, order)).Q
