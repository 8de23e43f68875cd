"""`GenomeOptimizer`: a genome as an ordinary torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optevo.naming import explain_keywords, nearest
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.kernels import Scalars, update
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.table import BASIS, reads_of

if TYPE_CHECKING:
    from optevo.optim.terms.rule import Rule


@explain_keywords
class GenomeOptimizer(Optimizer):
    r"""The update of a genome's canonical rule.

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
        TypeError: `genome` is no genome, but a preset's name, say.
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
        if not isinstance(genome, TermGenome):
            known = f"PRESETS[{nearest(genome, PRESETS) or 'adamw'!r}]"
            raise TypeError(f"genome is {genome!r}, expected a TermGenome, such as {known} of optevo.optim")
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
        self._layouts: set[Hashable] = set()
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
        self._layouts = set()
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
            for (*_, k), (params, gradients, exp_avgs, exp_avg_sqs) in self._buckets(group).items():
                grads = list(torch._foreach_neg(gradients)) if group["maximize"] else gradients
                scalars = _group_scalars(group, k)
                update(
                    *(params, grads, exp_avgs, exp_avg_sqs, scalars),
                    compiled=group["compiled"],
                    layouts=self._layouts,
                )
        return loss

    def _buckets(self, group: dict[str, Any]) -> dict[tuple[torch.device, torch.dtype, int], _Tensors]:
        """What has a gradient by (device, dtype, step count); creates and counts the state."""
        reads = reads_of(tuple(group["coefficients"]))
        reads_m, reads_v = "m" in reads, "root" in reads and group["betas"][1] > 0
        counts = group["bias_correction"] and (reads_m or reads_v)
        buckets: dict[tuple[torch.device, torch.dtype, int], _Tensors] = {}
        counters: list[Tensor] = []
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            if g.is_sparse:
                raise RuntimeError("GenomeOptimizer does not support sparse gradients")
            state, k = self.state[p], 0
            if counts:
                counter = state.get("step")
                if not isinstance(counter, Tensor):  # none yet, or a number out of somebody's checkpoint
                    counter = torch.tensor(float(counter or 0), dtype=torch.float32, device="cpu")
                    state["step"] = counter
                counters.append(counter)
                k = int(counter.item()) + 1
            bucket = buckets.get((p.device, p.dtype, k))
            if bucket is None:
                bucket = buckets[p.device, p.dtype, k] = _Tensors([], [], [], [])
            bucket.params.append(p)
            bucket.grads.append(g)
            if reads_m:
                bucket.exp_avgs.append(_moment(state, "exp_avg", p))
            if reads_v:
                bucket.exp_avg_sqs.append(_moment(state, "exp_avg_sq", p))
        if counters:
            torch._foreach_add_(counters, 1)
        return buckets


class _Tensors(NamedTuple):
    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]


def _moment(state: dict[str, Any], name: str, p: Tensor) -> Tensor:
    moment: Tensor | None = state.get(name)
    if moment is None:
        moment = state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return moment


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


def _group_scalars(group: dict[str, Any], k: int) -> Scalars:
    return step_scalars(
        group["coefficients"],
        lr=float(group["lr"]),
        betas=group["betas"],
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        clip_value=group["clip_value"],
        k=k,
    )


def step_scalars(
    coefficients: Sequence[float],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    clip_value: float | None,
    k: int,
) -> Scalars:
    """The numbers of one step.

    Args:
        coefficients: Of `Rule.coefficients`; those of an older table are fewer.
        lr: Learning rate η of this step, the schedule's factor included.
        betas: Decays (β₁, β₂) of the moments, 0 where one is not kept.
        eps: ε; anything where nothing is divided.
        weight_decay: λ.
        clip_value: Limit of |g|, None for none.
        k: Step count from 1 on, 0 without bias correction.
    """
    a, b, c, d, s, u, *others = coefficients
    beta1, beta2 = betas
    first, second = (1 - beta1**k, 1 - beta2**k) if k else (1.0, 1.0)
    return Scalars(
        keep=1 - lr * weight_decay,
        grad=lr * a,
        momentum=lr * b / first,
        rms=lr * c,
        adam=lr * d / first,
        sign=lr * s,
        unit=lr * u,
        root=second**0.5,
        eps=eps,
        beta1=beta1,
        beta2=beta2,
        clip=float("inf") if clip_value is None else clip_value,
        correction=1 / first,
        # A checkpoint of a smaller table has fewer; a kernel's numbers are as many as the table's entries.
        others=tuple(lr * c for c in (*others, *[0.0] * (len(BASIS) - len(coefficients)))),
    )


def rule_scalars(rule: Rule, *, lr: float, weight_decay: float, step: int) -> Scalars:
    """The numbers of a rule's step.

    Args:
        rule: The canonical update.
        lr: Learning rate η of this step, the schedule's factor included.
        weight_decay: λ.
        step: Step count from 1 on.
    """
    return step_scalars(
        rule.coefficients,
        lr=lr,
        betas=(rule.beta1 or 0.0, rule.beta2 or 0.0),
        eps=rule.eps or 0.0,
        weight_decay=weight_decay,
        clip_value=rule.clip_value,
        k=step if rule.bias_correction else 0,
    )
