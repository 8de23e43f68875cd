"""What the cases of torch's contract for optimizers share."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from strategies import genome
from torch import Tensor, nn

from optevo.optim import PRESETS, GenomeOptimizer, TermGenome

# Every kernel, with and without bias correction and clipping.
GENOMES: dict[str, TermGenome] = {
    **PRESETS,
    "clipped": genome("GRAD", "MOMENTUM", gradient_clipping=True, clip_value=0.1),
    "unit": genome("UNIT_GRAD", lr=1e-3),
    "nesterov": genome("NESTEROV"),
    "adam without v": genome("ADAM_TERM", use_second_moment=False, bias_correction=True, lr=1e-3, eps=1e-4),
    "rms corrected": genome("RMS_NORM", bias_correction=True, lr=1e-3),
}


every_genome = pytest.mark.parametrize("g", GENOMES.values(), ids=GENOMES)
adamw = PRESETS["adamw"]
Make = Callable[..., torch.optim.Optimizer]


def eager(params: Any, g: TermGenome = adamw, **kwargs: Any) -> GenomeOptimizer:
    return GenomeOptimizer(params, g, compiled=False, **kwargs)


def torchs(params: Any, g: TermGenome = adamw, **kwargs: Any) -> torch.optim.AdamW:
    """torch.optim.AdamW as the preset has it: the yardstick for what a contract means."""
    settings = {"lr": g.lr, "betas": (g.beta1, g.beta2), "eps": g.eps, "weight_decay": g.weight_decay}
    return torch.optim.AdamW(params, **{**settings, **kwargs})


def parameters(
    *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, device: Any = "cpu", seed: int = 0
) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(device, dtype))
        for s in shapes or ((3, 4), (4,), (2, 3, 2))
    ]


def feed(params: list[nn.Parameter], seed: int) -> None:
    """Gives every parameter the gradient of this seed."""
    rng = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p)


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range | int) -> list[Tensor]:
    for k in range(steps) if isinstance(steps, int) else steps:
        feed(params, k)
        optimizer.step()
    return values(params)


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def assert_close(ours: list[Tensor], theirs: list[Tensor], rtol: float = 1e-11, atol: float = 1e-13) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
