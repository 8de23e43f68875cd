"""The winner of *Evolving Deep Learning Optimizers* as an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from optevo.optim.scheduled import Scheduled
from optevo.optim.terms.optimizer import GenomeOptimizer
from optevo.optim.terms.presets import PRESETS

_GENOME = PRESETS["evolved"]


class Evolved(Scheduled, GenomeOptimizer):
    r"""The published winner: Adam's step without bias correction, and the gradient's sign.

        m ← β₁·m + (1 − β₁)·g,   v ← β₂·v + (1 − β₂)·g²
        w ← (1 − η·λ)·w − η·(3.64·m/(√v + ε) + 0.734·sign(g))

    From *Evolving Deep Learning Optimizers* (mmarfinetz/evo-optimizer), where 2,500 trials found it; the
    preset `evolved`. Its schedule, `optimizer.scheduler(total_steps)`, is a warmup over 100 steps and a
    cosine down to 0 over the run. float16 and bfloat16 parameters are updated in float32 and rounded once.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate η. Default: 1.2e-3.
        betas: Decays (β₁, β₂) of the moments. Default: (0.855, 0.936).
        eps: ε, added to the root. Default: 5.44e-9.
        weight_decay: Decoupled weight decay λ. Default: 9.74e-4.
        compiled: True updates with one `torch.compile`d kernel, False with eager `torch._foreach_*` calls.
            Default: None, the kernel for 500,000 parameters and more where there is a compiler.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import Evolved
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = Evolved(model.parameters(), weight_decay=1e-2)
        >>> schedule = optimizer.scheduler(total_steps=1000)
    """

    PRESET = _GENOME

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = _GENOME.lr,
        betas: tuple[float, float] = (_GENOME.beta1, _GENOME.beta2),
        eps: float = _GENOME.eps,
        weight_decay: float = _GENOME.weight_decay,
        *,
        compiled: bool | None = None,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            _GENOME,
            lr=lr,
            weight_decay=weight_decay,
            compiled=compiled,
            maximize=maximize,
            hyperparameters={"betas": betas, "eps": eps},
        )
