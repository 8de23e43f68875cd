"""Losses and metrics that a task may name. Higher metrics are better."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.naming import hint

#: What a model returned and its targets, batch by batch.
Parts = Iterable[tuple[Tensor, Tensor]]


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(*_alike(outputs, targets, torch.promote_types(outputs.dtype, torch.float32)))


def _l1(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.l1_loss(*_alike(outputs, targets, torch.promote_types(outputs.dtype, torch.float32)))


def _huber(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(*_alike(outputs, targets, torch.promote_types(outputs.dtype, torch.float32)))


def _accuracy(parts: Parts, targets: Tensor) -> Tensor:
    """The share of targets, class numbers, that are the greatest along the outputs' last dimension."""
    correct = torch.zeros((), dtype=torch.int64, device=targets.device)
    for outputs, part in parts:
        classes = outputs.argmax(dim=-1)
        _check_shapes(classes.shape, part, f"classes out of {tuple(outputs.shape)}")
        correct += (classes == part).sum()
    return correct.double() / targets.numel()


def _r2(parts: Parts, targets: Tensor) -> Tensor:
    """1 − squared error over squared deviation from the mean: of each output, then their mean.

    An output whose targets are all the same has 1 if each is hit, else 0.
    """
    flat = targets.double().flatten(1) if targets.dim() > 1 else targets.double().unsqueeze(1)
    total = (flat - flat.mean(dim=0)).square().sum(dim=0)
    error = torch.zeros_like(total)
    for outputs, part in parts:
        ours, theirs = _alike(outputs, part, torch.float64)
        error += (ours - theirs).square().reshape(len(theirs), -1).sum(dim=0)
    spread = total > 1e-20 * flat.square().sum(dim=0)  # less is of rounding
    return torch.where(spread, 1 - error / total, (error == 0).double()).mean()


def _minus_mse(parts: Parts, targets: Tensor) -> Tensor:
    error = torch.zeros((), dtype=torch.float64, device=targets.device)
    for outputs, part in parts:
        ours, theirs = _alike(outputs, part, torch.float64)
        error += (ours - theirs).square().sum()
    return -error / targets.numel()


def _minus_perplexity(parts: Parts, targets: Tensor) -> Tensor:
    """−exp(mean cross-entropy over all targets); those of −100 do not count."""
    total = torch.zeros((), dtype=torch.float64, device=targets.device)
    for outputs, part in parts:
        total += F.cross_entropy(outputs.float(), part, reduction="sum")
    # Probabilities are floats, and a row of them is one target.
    n = len(targets) if targets.is_floating_point() else (targets != -100).sum()
    return -(total / n).exp()


#: Of a batch's outputs and targets, their mean loss.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "l1": _l1,
    "huber": _huber,
}
#: Of a whole split's parts and targets, the metric, on the device: none of them waits for it.
METRICS: dict[str, Callable[[Parts, Tensor], Tensor]] = {
    "accuracy": _accuracy,
    "r2": _r2,
    "-mse": _minus_mse,
    "-perplexity": _minus_perplexity,
}


def canonical(kind: str, name: str, known: Collection[str], owner: str) -> str:
    """A loss's or metric's name as it is known here: with a minus for "neg_" and for a typographic one.

    Raises:
        UserError: There is none of that name; the message says which is nearest.
    """
    plain = name.replace("\u2212", "-")
    plain = f"-{plain.removeprefix('neg_')}" if plain.startswith("neg_") else plain
    if plain not in known:
        method = {"loss": "loss(self, model, batch)", "metric": "score(self, model, split)"}[kind]
        raise UserError(
            f"{owner}: unknown {kind} {name!r}: {hint(name, known)}; or give the class a method {method}"
        )
    return plain


def _alike(outputs: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both in one dtype; refused where one would be broadcast to the other's shape."""
    _check_shapes(outputs.shape, targets, "outputs")
    return outputs.to(dtype), targets.to(dtype)


def _check_shapes(shape: torch.Size, targets: Tensor, what: str) -> None:
    if shape != targets.shape:
        raise UserError(
            f"the model gives {what} of shape {tuple(shape)}, the targets have shape {tuple(targets.shape)}: "
            "make them the same, by the model's last layer or in load()"
        )
