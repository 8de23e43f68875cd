"""Muon for matrices and AdamW for the rest, as one torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` on two-dimensional parameters, `torch.optim.AdamW` on all others.

    Muon's step is scaled to the root mean square of AdamW's (Liu et al., *Muon is Scalable for LLM Training*,
    arXiv 2502.16982), so that one lr and one weight decay do for both.

    Args:
        params: Parameters; one group, or tensors.
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
        tensors: list[Tensor] = list(params)
        matrices = [p for p in tensors if p.ndim == 2]
        others = [p for p in tensors if p.ndim != 2]
        both: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self.parts: list[Optimizer] = []
        if matrices:
            scale = "match_rms_adamw"
            self.parts.append(
                Muon(matrices, momentum=momentum, nesterov=nesterov, adjust_lr_fn=scale, **both)
            )
        if others or not matrices:
            self.parts.append(AdamW(others, betas=betas, eps=eps, fused=True, **both))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        # One list of groups: what a scheduler sets there is what the parts read.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
