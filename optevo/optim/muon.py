"""Muon for matrices and AdamW for the rest, as one torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from optevo.optim.checked import CheckedOptimizer, ranges


class MuonAdamW(CheckedOptimizer):
    """`torch.optim.Muon` on two-dimensional parameters, `torch.optim.AdamW` on all others.

    Muon's step is scaled to the root mean square of AdamW's (Liu et al., *Muon is Scalable for LLM Training*,
    arXiv 2502.16982), so that one lr and one weight decay do for both.

    A group stays one group, with parameters of both kinds, so that others may count groups and parameters,
    as `ZeroRedundancyOptimizer` does. A group's `use_muon` says what is trained how: False, all by AdamW;
    True, everything of two or more dimensions by Muon, flattened to a matrix of its first dimension by the
    others. The default, None, is the class's own rule.

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32, 4 bytes
    a parameter where Muon trains it and 8 where AdamW does.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate of both. Default: 1e-3.
        weight_decay: Decoupled, of both. Default: 0.1.
        momentum: Muon's. Default: 0.95.
        nesterov: Muon's. Default: True.
        betas: AdamW's. Default: (0.9, 0.999).
        eps: AdamW's. Default: 1e-8.
        use_muon: Of groups that don't say it. Default: None.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import MuonAdamW
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = MuonAdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    """

    RANGES = ranges({"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "betas": (0.9, 0.999), "eps": 1e-8})

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        use_muon: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "betas": betas,
            "eps": eps,
            "use_muon": use_muon,
            "fused": True,  # AdamW's kernels; torch keeps their step counts on the device
        }
        self._check(defaults)
        super().__init__(params, defaults)

    def _takes(self, group: dict[str, Any], index: int) -> bool:
        """Whether Muon trains this parameter of a group that doesn't say."""
        return bool(group["params"][index].ndim == 2)

    def _step(self) -> None:
        with self._widened():
            for group in self.param_groups:
                others = []
                for index, p in enumerate(group["params"]):
                    if p.grad is None:
                        continue
                    use = group["use_muon"]
                    if p.ndim >= 2 and (self._takes(group, index) if use is None else use):
                        self._muon(p, p.grad, group)
                    else:
                        others.append(p)
                if others:
                    self._adamw(others, group)

    def _muon(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """`torch.optim.Muon`'s step, with its `adjust_lr_fn="match_rms_adamw"`."""
        lr, momentum, state = float(group["lr"]), float(group["momentum"]), self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        matrix = update.flatten(1)
        p.mul_(1 - lr * float(group["weight_decay"]))
        p.add_(_orthogonal(matrix).reshape(p.shape), alpha=-lr * 0.2 * math.sqrt(max(matrix.shape)))

    def _adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        part = AdamW(
            params,
            lr=group["lr"],
            betas=(float(group["betas"][0]), float(group["betas"][1])),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            # The fused kernel takes a gradient's numbers in the order of its parameter's.
            fused=all(p.grad.stride() == p.stride() for p in params if p.grad is not None),
        )
        part.state = self.state  # ours, so that checkpoints have it
        part.step()


class MuonConvAdamW(MuonAdamW):
    """Muon for hidden weights, convolutions among them, and AdamW for the rest: as its author uses it.

    Keller Jordan, *Muon: An optimizer for hidden layers in neural networks*
    (https://kellerjordan.github.io/posts/muon/). A convolution's weight, of shape (out, in, height, width),
    is trained as the matrix (out, in · height · width). Vectors are left to AdamW, and so is the last layer.

    An optimizer sees parameters without their layers. So the last layer is known by its position: the last
    two-dimensional parameter that the optimizer is made with, among groups that don't say `use_muon`. Where
    that is not it, or an embedding should be left to AdamW too, say so with groups: ``{"params": [...],
    "use_muon": False}``. Where each process makes an optimizer of a part of the parameters, as under
    `ZeroRedundancyOptimizer`, every group has to say it: no part knows what is last in the whole.

    Arguments and errors are those of `MuonAdamW`.

    Example:
        >>> import torch
        >>> from optevo.optim import MuonConvAdamW
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> optimizer = MuonConvAdamW(model.parameters(), lr=5e-3)
    """

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(params, *args, **kwargs)
        self.defaults["last_layer"] = None
        matrices = [
            (group, index)
            for group in self.param_groups
            for index, p in enumerate(group["params"])
            if p.ndim == 2 and group["use_muon"] is None
        ]
        for group in self.param_groups:
            group["last_layer"] = None
        if matrices:
            group, index = matrices[-1]
            group["last_layer"] = index  # a checkpoint brings it along

    def _takes(self, group: dict[str, Any], index: int) -> bool:
        return bool(index != group["last_layer"])


def _orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns, as bfloat16: five Newton–Schulz iterations.

    The same operations as in `torch.optim.Muon`, whose function for it is private.
    """
    x = matrix.bfloat16()
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x
