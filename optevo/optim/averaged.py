"""QHM, PowerSign and AddSign: steps from the gradient and its running average, as torch optimizers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optevo.optim.checked import CheckedOptimizer, ranges, step_count
from optevo.optim.graphs.decay_functions import a1, a3

_AVERAGE = (0.0, math.nextafter(1.0, 0.0), 1)
#: How PowerSign's and AddSign's signs lose their weight, by name: f at step t of total_steps.
DECAYS = {"none": None, "linear": a1, "cosine": a3}


class _Averaged(CheckedOptimizer):
    """m ← β·m + (1 − β)·g from zero; w ← w − η·d, where a subclass says d; L2 weight decay is part of g."""

    def _step(self) -> None:
        with self._widened():
            for group in self.param_groups:
                for t, params in self._by_step(group).items():
                    grads = [p.grad for p in params if p.grad is not None]
                    if group["maximize"]:
                        grads = list(torch._foreach_neg(grads))
                    if group["weight_decay"]:
                        grads = list(torch._foreach_add(grads, params, alpha=float(group["weight_decay"])))
                    averages = [self.state[p]["momentum_buffer"] for p in params]
                    torch._foreach_lerp_(averages, grads, 1.0 - float(group["momentum"]))
                    directions = self._directions(grads, averages, group, t)
                    torch._foreach_add_(params, directions, alpha=-float(group["lr"]))

    def _by_step(self, group: Mapping[str, Any]) -> dict[int, list[Tensor]]:
        """What has a gradient, by the number of steps it has had where the direction depends on it."""
        found = defaultdict[int, list[Tensor]](list)
        for p in group["params"]:
            if p.grad is None:
                continue
            state, t = self.state[p], 0
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            if group.get("decay", "none") != "none":
                count = step_count(state)
                t = int(count.item())
                count.add_(1)
            found[t].append(p)
        return found

    def _directions(
        self, grads: list[Tensor], averages: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        """d for each parameter, new tensors, after the averages have had the gradients."""
        raise NotImplementedError


class QHM(_Averaged):
    """Quasi-hyperbolic momentum: d = (1 − ν)·g + ν·m.

    Ma and Yarats, *Quasi-hyperbolic momentum and Adam for deep learning*, arXiv 1810.06801. m is an
    average, so a steady gradient g moves the weights by lr · g.

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 1e-1.
        momentum: β of the average. Default: 0.999.
        nu: ν, the average's part of the step, 0 to 1. Default: 0.7.
        weight_decay: Added to the gradient. Default: 0.0.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import QHM
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = QHM(model.parameters(), lr=0.1, nu=0.7)
    """

    RANGES = ranges({"lr": 1e-1, "weight_decay": 0.0}) | {"momentum": _AVERAGE, "nu": (0.0, 1.0, 1)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-1,
        *,
        momentum: float = 0.999,
        nu: float = 0.7,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nu": nu,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)

    def _directions(
        self, grads: list[Tensor], averages: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        return list(torch._foreach_lerp(grads, averages, float(group["nu"])))


class PowerSign(_Averaged):
    """d = exp(f·sign(g)·sign(m))·g: further where the gradient agrees with its average, less far where not.

    Bello et al., *Neural Optimizer Search with Reinforcement Learning*, arXiv 1709.07417. f is 1, or
    goes from 1 to 0 over the run, along a line or half a cosine; from there on it is 0, and d is g.

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate. Default: 3e-2.
        momentum: β of the average. Default: 0.9.
        decay: Of f: "none", "linear" or "cosine". Default: "none".
        total_steps: Length of the run that f decays over. Default: None, for "none" alone.
        weight_decay: Added to the gradient. Default: 0.0.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import PowerSign
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = PowerSign(model.parameters(), lr=3e-2, decay="cosine", total_steps=1000)
    """

    RANGES = ranges({"lr": 3e-2, "weight_decay": 0.0}) | {"momentum": _AVERAGE}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 3e-2,
        *,
        momentum: float = 0.9,
        decay: str = "none",
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "decay": decay,
            "total_steps": total_steps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        decay, total_steps = group.get("decay", "none"), group.get("total_steps")
        if decay not in DECAYS:
            raise ValueError(f"Invalid decay value: {decay!r}, expected {', '.join(DECAYS)}")
        if decay != "none" and not self._within(total_steps, 1, math.inf):
            raise ValueError(
                f"Invalid total_steps value: {total_steps}, expected the run's number of steps, over which "
                f"the {decay} decay goes"
            )

    def _directions(
        self, grads: list[Tensor], averages: list[Tensor], group: Mapping[str, Any], t: int
    ) -> list[Tensor]:
        decay = DECAYS[group["decay"]]
        total_steps = group["total_steps"]
        factor = 1.0 if decay is None else decay(min(t, total_steps), total_steps)
        agreement = list(torch._foreach_sign(grads))
        torch._foreach_mul_(agreement, torch._foreach_sign(averages))
        torch._foreach_mul_(agreement, factor)
        self._scales_(agreement)
        torch._foreach_mul_(agreement, grads)
        return agreement

    def _scales_(self, agreement: list[Tensor]) -> None:
        """What the gradients are multiplied by, of f·sign(g)·sign(m), in place."""
        torch._foreach_exp_(agreement)


class AddSign(PowerSign):
    """d = (1 + f·sign(g)·sign(m))·g: doubled where the gradient agrees with its average, else nothing.

    Source, f, arguments and errors are those of `PowerSign`.

    Example:
        >>> import torch
        >>> from optevo.optim import AddSign
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = AddSign(model.parameters(), lr=3e-2, decay="linear", total_steps=1000)
    """

    def _scales_(self, agreement: list[Tensor]) -> None:
        torch._foreach_add_(agreement, 1.0)
