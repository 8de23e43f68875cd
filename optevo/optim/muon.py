"""Muon for matrices and AdamW for the rest, as one torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

_MATRICES = "matrices"  # group key: whether Muon trains the group


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` on two-dimensional parameters, `torch.optim.AdamW` on all others.

    Muon's step is scaled to the root mean square of AdamW's (Liu et al., *Muon is Scalable for LLM Training*,
    arXiv 2502.16982), so that one lr and one weight decay do for both. Every group that is given becomes up
    to two: its matrices, and its other parameters.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate of both. Default: 1e-3.
        weight_decay: Decoupled, of both. Default: 0.1.
        momentum: Muon's. Default: 0.95.
        nesterov: Muon's. Default: True.
        betas: AdamW's. Default: (0.9, 0.999).
        eps: AdamW's. Default: 1e-8.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, {**defaults, "betas": betas, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as one of matrices and one of other parameters, where it has both."""
        given = param_group["params"]
        members = [given] if isinstance(given, Tensor) else list(given)
        for matrices in (True, False):
            own = [p for p in members if ((p[1] if isinstance(p, tuple) else p).ndim == 2) == matrices]
            if own or not members:
                super().add_param_group({**param_group, "params": own, _MATRICES: matrices})
                group = self.param_groups[-1]
                for name, value in self._part(group).defaults.items():
                    group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            part = self._part(group)
            # The part works on our group and our state, so that schedulers and checkpoints see them.
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss

    @staticmethod
    def _part(group: dict[str, Any]) -> Optimizer:
        """torch's optimizer for a group."""
        common = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        if not group[_MATRICES]:
            return AdamW(group["params"], betas=group["betas"], eps=group["eps"], fused=True, **common)
        return Muon(
            group["params"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            adjust_lr_fn="match_rms_adamw",
            **common,
        )
