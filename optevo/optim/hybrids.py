"""Orthogonal updates for convolutions and Adam's for the rest: made by hand, and found by a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from optevo.optim.terms.modern_optimizer import ModernOptimizer
from optevo.optim.terms.modern_presets import MODERN_PRESETS


class OrthoConvAdamW(ModernOptimizer):
    """Convolutions step along the orthogonal factor of Nesterov's momentum, everything else as in AdamW.

    The factor is scaled to the root mean square of AdamW's update, so that one lr does for both. Kinds of
    parameters are those of `ModernOptimizer`; a group may say its `kind`.

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
    """

    CAUTIOUS: ClassVar[bool] = False
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
        name = "cautious_ortho_conv" if self.CAUTIOUS else "ortho_conv"
        numbers = {"betas": betas, "eps": eps, "second_beta1": momentum}
        super().__init__(
            params,
            MODERN_PRESETS[name],
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

    Arguments and errors are those of `OrthoConvAdamW`.
    """

    CAUTIOUS = True


class EvolvedModern(ModernOptimizer):
    """What a search of the modern catalogue found, see docs/results.md; the preset `evolved_modern`.

    Convolutions step along the orthogonal factor of Nesterov's momentum, at 6.5 times lr; all else takes
    twice Adam's step.

    Its schedule is ``PRESETS["evolved_modern"].scheduler(optimizer, total_steps)``. Kinds of parameters are
    those of `ModernOptimizer`; a group may say its `kind`.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 1.1e-3.
        weight_decay: Decoupled. Default: 7e-3.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = MODERN_PRESETS["evolved_modern"].lr,
        weight_decay: float = MODERN_PRESETS["evolved_modern"].weight_decay,
        *,
        maximize: bool = False,
    ) -> None:
        genome = MODERN_PRESETS["evolved_modern"]
        super().__init__(params, genome, lr=lr, weight_decay=weight_decay, maximize=maximize)
