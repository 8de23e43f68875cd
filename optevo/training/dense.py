"""K copies of a chain of dense layers at once: batched matrix products and their cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optevo.tasks.base import Task

_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU)


def chain(task: Task, model: nn.Module) -> list[nn.Module] | None:
    """The layers of a chain of dense ones under the default loss, None for any other model."""
    if type(task).loss is not Task.loss or type(model) is not nn.Sequential or _hooked(model):
        return None
    layers = list(model)
    if len(set(layers)) < len(layers) or not all(p.requires_grad for p in model.parameters()):
        return None
    inner = layers[1:] if layers and type(layers[0]) is nn.Flatten else layers
    linear = [layer for layer in inner if type(layer) is nn.Linear and layer.bias is not None]
    dense = all(layer in linear or type(layer) in _ELEMENTWISE for layer in inner)
    return inner if dense and linear and inner[0] is linear[0] else None


def _hooked(model: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for module in model.modules() for name in hooks)


def logits(layers: Sequence[nn.Module], leaves: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Logits of shape (K, classes, batch): features before examples, so that no product is transposed."""
    weights = iter(leaves)
    x = inputs.flatten(1).t().expand(len(leaves[0]), -1, -1)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight, bias = next(weights), next(weights)
            x = torch.baddbmm(bias.unsqueeze(2), weight, x)
        else:
            x = layer(x)
    return x


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of (K, classes, batch) logits, shape (K,).

    torch's own reduces over ten classes at a time, which took a third of a stacked step; here the examples
    are innermost.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        x = logits.float()
        x = x - x.amax(dim=1, keepdim=True)
        ignored = targets == -100  # as F.cross_entropy does
        share = (~ignored).to(x.dtype)
        share = share / share.sum()
        index = targets.masked_fill(ignored, 0).expand(len(x), 1, -1)
        picked = x.gather(1, index).squeeze(1)
        p = x.exp_()
        total = p.sum(dim=1, keepdim=True)
        losses = (total.squeeze(1).log() - picked).mul_(share).sum(dim=1)
        p.div_(total).scatter_add_(1, index, p.new_full((), -1.0).expand(index.shape))
        ctx.save_for_backward(p, share)
        ctx.dtype = logits.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        difference, share = ctx.saved_tensors
        return (difference * outer.view(-1, 1, 1) * share).to(ctx.dtype), None
