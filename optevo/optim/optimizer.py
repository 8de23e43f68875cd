"""`GenomeOptimizer`: a genome as an ordinary torch optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optevo.optim.kernels import Scalars, update

if TYPE_CHECKING:
    from optevo.optim.genome import TermGenome


class GenomeOptimizer(Optimizer):
    r"""The six-coefficient update of a genome's canonical rule.

        w ← (1 − η·λ)·w − η·Δ,   Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

    Every group holds its own `lr`, `weight_decay`, `betas`, `eps`, `coefficients` (a, b, c, d, s, u),
    `bias_correction` and `clip_value`, and each step reads them there, so schedulers and per-group settings
    work as with any torch optimizer. `coefficients` are what NESTEROV split into under the genome's β₁;
    cycling `betas` later moves the averages alone. State is kept only for what the rule reads: `exp_avg`,
    `exp_avg_sq`, and `step` where moments are bias-corrected.

    The genome's warmup and cosine decay are not in here: take them from `genome.scheduler`.

    Args:
        params: Parameters, named parameters or groups.
        genome: The update rule with its hyperparameters.
        lr: Learning rate η; a CUDA tensor costs a wait for the device each step. Default: the genome's.
        weight_decay: Decoupled weight decay λ. Default: the genome's.
        compiled: True updates with one `torch.compile`d kernel, False with eager `torch._foreach_*` calls.
            Default: None, the kernel for 500,000 parameters and more where there is a compiler.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter of a group is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> from optevo.optim import PRESETS
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = PRESETS["adamw"].optimizer(model.parameters(), lr=3e-4)
    """

    def __init__(
        self,
        params: Iterable[Any],
        genome: TermGenome,
        *,
        lr: float | Tensor | None = None,
        weight_decay: float | None = None,
        compiled: bool | None = None,
        maximize: bool = False,
    ) -> None:
        lr = genome.lr if lr is None else lr
        weight_decay = genome.weight_decay if weight_decay is None else weight_decay
        rule = genome.rule()
        defaults = {
            "lr": lr,
            "betas": (rule.beta1 or 0.0, rule.beta2 or 0.0),
            "eps": rule.eps or 0.0,
            "weight_decay": weight_decay,
            "coefficients": rule.coefficients,
            "bias_correction": rule.bias_correction,
            "clip_value": rule.clip_value,
            "maximize": maximize,
            "compiled": compiled,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps were taken."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("compiled", None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimization step.

        Args:
            closure: Re-evaluates the model and returns the loss. Default: None.

        Returns:
            The closure's loss, None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _, b, c, d, _, _ = group["coefficients"]
            reads_m = b != 0 or d != 0
            reads_v = (c != 0 or d != 0) and group["betas"][1] > 0
            for (*_, k), params in self._buckets(group, reads_m, reads_v).items():
                grads = [p.grad for p in params if p.grad is not None]
                if group["maximize"]:
                    grads = list(torch._foreach_neg(grads))
                exp_avgs = [self.state[p]["exp_avg"] for p in params] if reads_m else []
                exp_avg_sqs = [self.state[p]["exp_avg_sq"] for p in params] if reads_v else []
                update(params, grads, exp_avgs, exp_avg_sqs, _scalars(group, k), compiled=group["compiled"])
        return loss

    def _buckets(
        self, group: dict[str, Any], reads_m: bool, reads_v: bool
    ) -> dict[tuple[torch.device, torch.dtype, int], list[Tensor]]:
        """Parameters with a gradient by (device, dtype, step count); creates and counts their state."""
        buckets: dict[tuple[torch.device, torch.dtype, int], list[Tensor]] = defaultdict(list)
        counts = group["bias_correction"] and (reads_m or reads_v)
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise RuntimeError("GenomeOptimizer does not support sparse gradients")
            state, k = self.state[p], 0
            if reads_m and "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            if reads_v and "exp_avg_sq" not in state:
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            if counts:
                if "step" not in state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                state["step"] += 1
                k = int(state["step"])
            buckets[p.device, p.dtype, k].append(p)
        return buckets


def _check_group(group: dict[str, Any]) -> None:
    lr, betas = group["lr"], group["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Invalid learning rate: a tensor of {lr.numel()} elements, expected 1")
    if not 0 <= lr < float("inf"):
        raise ValueError(f"Invalid learning rate: {lr}")
    if not 0 <= group["weight_decay"] < float("inf"):
        raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    if not group["eps"] >= 0:
        raise ValueError(f"Invalid epsilon value: {group['eps']}")
    if any(p.is_complex() for p in group["params"]):
        raise ValueError("GenomeOptimizer has no update for complex parameters: sign(g) is not defined")


def _scalars(group: dict[str, Any], k: int) -> Scalars:
    """The twelve numbers of a step; k is the step count from 1 on, 0 without bias correction."""
    lr, (beta1, beta2) = float(group["lr"]), group["betas"]
    a, b, c, d, s, u = group["coefficients"]
    first, second = (1 - beta1**k, 1 - beta2**k) if k else (1.0, 1.0)
    return Scalars(
        keep=1 - lr * group["weight_decay"],
        grad=lr * a,
        momentum=lr * b / first,
        rms=lr * c,
        adam=lr * d / first,
        sign=lr * s,
        unit=lr * u,
        root=second**0.5,
        eps=group["eps"],
        beta1=beta1,
        beta2=beta2,
        clip=float("inf") if group["clip_value"] is None else group["clip_value"],
    )
