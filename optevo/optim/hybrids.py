"""Orthogonal updates for convolutions and Adam's for the rest: made by hand, and found by a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from optevo.optim.scheduled import Scheduled
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.modern_optimizer import ModernOptimizer
from optevo.optim.terms.modern_presets import MODERN_PRESETS

_FOUND = MODERN_PRESETS["evolved_modern_linear"]


class OrthoConvAdamW(Scheduled, ModernOptimizer):
    """Convolutions step along the orthogonal factor of Nesterov's momentum, everything else as in AdamW.

    The factor is scaled to the root mean square of AdamW's update, so that one lr does for both. Kinds of
    parameters are those of `ModernOptimizer`; a group may say its `kind`. By hand; the preset `ortho_conv`.

    Its schedule, `optimizer.scheduler(total_steps)`, is a warmup over a tenth of the run and a cosine to 0.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 5e-3.
        weight_decay: Decoupled. Default: 1e-2.
        momentum: Of convolutions. Default: 0.95.
        betas: AdamW's. Default: (0.9, 0.999).
        eps: AdamW's. Default: 1e-8.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import OrthoConvAdamW
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> optimizer = OrthoConvAdamW(model.parameters(), lr=5e-3)
        >>> schedule = optimizer.scheduler(total_steps=1000)
    """

    PRESET: ClassVar[ModernGenome] = MODERN_PRESETS["ortho_conv"]
    RANGES: ClassVar[Mapping[str, tuple[float, float, int]]] = {
        **ModernOptimizer.RANGES,
        "momentum": ModernOptimizer.RANGES["second_beta1"],
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 5e-3,
        weight_decay: float = 1e-2,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        given = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "momentum": momentum}
        self._check(given)
        numbers = {"betas": betas, "eps": eps, "second_beta1": momentum}
        super().__init__(
            params,
            self.PRESET,
            lr=lr,
            weight_decay=weight_decay,
            maximize=maximize,
            hyperparameters=numbers,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose `momentum` is that of its convolutions."""
        if isinstance(param_group, dict) and "momentum" in param_group:
            momentum = param_group["momentum"]
            self._check({"momentum": momentum})
            param_group = {k: v for k, v in param_group.items() if k != "momentum"} | {
                "second_beta1": momentum
            }
        super().add_param_group(param_group)


class CautiousOrthoConvAdamW(OrthoConvAdamW):
    """`OrthoConvAdamW` without elements whose sign is not the gradient's (Liang et al., arXiv 2411.16085).

    Arguments and errors are those of `OrthoConvAdamW`. The preset `cautious_ortho_conv`. Its schedule is a
    warmup over a tenth of the run and a line to 0.

    Example:
        >>> import torch
        >>> from optevo.optim import CautiousOrthoConvAdamW
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> optimizer = CautiousOrthoConvAdamW(model.parameters(), lr=5e-3)
        >>> schedule = optimizer.scheduler(total_steps=1000)
    """

    PRESET = MODERN_PRESETS["cautious_ortho_conv"]


class EvolvedModern(OrthoConvAdamW):
    """What a search of the modern catalogue found, see docs/results.md; the preset `evolved_modern_linear`.

    Convolutions step along the orthogonal factor of Nesterov's momentum, at 6.5 times lr; all else takes
    twice Adam's step. Kinds of parameters are those of `ModernOptimizer`; a group may say its `kind`.

    Its schedule, `optimizer.scheduler(total_steps)`, warms up over a tenth of the run, then falls along a
    line to 0. Rate and weight decay are those that its sweep chose with this schedule.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 1.2e-3.
        weight_decay: Decoupled. Default: 1e-2.
        momentum: Of convolutions. Default: 0.901.
        betas: Of Adam's moments. Default: (0.685, 0.982).
        eps: Added to the root of the second moment. Default: 7.03e-8.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import EvolvedModern
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> optimizer = EvolvedModern(model.parameters())
        >>> schedule = optimizer.scheduler(total_steps=1000)
    """

    PRESET = _FOUND

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = _FOUND.lr,
        weight_decay: float = _FOUND.weight_decay,
        *,
        momentum: float = _FOUND.second.beta1 if _FOUND.second else 0.0,
        betas: tuple[float, float] = (_FOUND.beta1, _FOUND.beta2),
        eps: float = _FOUND.eps,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum=momentum, betas=betas, eps=eps, maximize=maximize)
