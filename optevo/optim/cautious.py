"""Caution: an update without the elements that differ in sign from the gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_updates(updates: list[Tensor], grads: list[Tensor]) -> None:
    """Zero where an update and its gradient differ in sign, in place; the rest is scaled up.

    It is divided by the share of its tensor's elements that are left, at least 1e-3. So does the code of
    Liang et al., *Cautious Optimizers*, arXiv 2411.16085; their article has (left + 1)/elements.

    Args:
        updates: Changed in place.
        grads: Of the same shapes.
    """
    masks = list(torch._foreach_mul(updates, grads))
    shares = []
    for mask in masks:
        mask.gt_(0)
        shares.append(mask.mean().clamp_(min=1e-3))
    torch._foreach_div_(masks, shares)
    torch._foreach_mul_(updates, masks)
