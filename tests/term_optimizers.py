"""The paths of a term genome's optimizer, and what the tests feed them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from strategies import genome
from torch import Tensor, nn

from optevo.optim import GenomeOptimizer, ReferenceOptimizer

EAGER = functools.partial(GenomeOptimizer, compiled=False)
COMPILED = functools.partial(GenomeOptimizer, compiled=True)
PATHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "reference": ReferenceOptimizer,
    "eager": EAGER,
    "compiled": COMPILED,
}


# Every combination of moments a rule can read, so every kernel.
KERNELS = {
    "no moment": genome("GRAD"),
    "first moment": genome("MOMENTUM"),
    "second moment": genome("RMS_NORM"),
    "both moments": genome("ADAM_TERM"),
}


def weights_after(
    make: Callable[..., torch.optim.Optimizer], start: Tensor, gradients: list[Tensor]
) -> list[Tensor]:
    """The weights after each step of the given gradients."""
    w = nn.Parameter(start.clone())
    optimizer = make([w])
    seen = []
    for gradient in gradients:
        w.grad = gradient.to(w)
        optimizer.step()
        seen.append(w.detach().clone())
    return seen


def random_gradients(seed: int, shape: tuple[int, ...], steps: int, dtype: torch.dtype) -> list[Tensor]:
    """Gradients of magnitudes 1e-3 to 1e1, one in eight of them zero."""
    rng = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(steps):
        magnitude = 10 ** (torch.rand(shape, generator=rng, dtype=torch.float64) * 4 - 3)
        sign = torch.randint(0, 2, shape, generator=rng) * 2 - 1
        alive = torch.rand(shape, generator=rng) > 0.125
        out.append((magnitude * sign * alive).to(dtype))
    return out
