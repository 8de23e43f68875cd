"""`GenomeOptimizer`: a genome as an ordinary torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from optevo.naming import explain_keywords, hint, nearest
from optevo.optim.checked import CheckedOptimizer, ranges, step_count
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.kernels import Scalars, update
from optevo.optim.terms.presets import PRESETS
from optevo.optim.terms.table import BASIS, FUSED, reads_of

if TYPE_CHECKING:
    from optevo.optim.terms.rule import Rule


@explain_keywords
class GenomeOptimizer(CheckedOptimizer):
    r"""The update of a genome's canonical rule.

        w ← (1 − η·λ)·w − η·Δ,   Δ = a·g + b·m̂ + (c·g + d·m̂)/(√v̂ + ε) + s·sign(g) + u·g/(|g| + ε)

    Every group holds its own `lr`, `weight_decay`, `betas`, `eps`, `coefficients`, `bias_correction` and
    `clip_value`, and each step reads them there, so schedulers and per-group settings work as with any torch
    optimizer. `coefficients` are by name, so that a checkpoint holds whatever terms other packages add: a is
    "grad", b "momentum", c "rms", d "adam", s "sign", u "unit". They are what NESTEROV split into under the
    genome's β₁; cycling `betas` later moves the averages alone. State is kept only for what the rule reads:
    `exp_avg`, `exp_avg_sq`, and `step` where moments are bias-corrected.

    float16 and bfloat16 parameters are updated in float32 and rounded once, and their moments are float32:
    4 bytes a number instead of 2, so up to 8 bytes a parameter. In their own dtype, the moments of small
    gradients would be 0.

    The genome's warmup and cosine decay are not in here: take them from `genome.scheduler`.

    Args:
        params: Parameters, named parameters or groups.
        genome: The update rule with its hyperparameters.
        lr: Learning rate η; a CUDA tensor costs a wait for the device each step. Default: the genome's.
        weight_decay: Decoupled weight decay λ. Default: the genome's.
        compiled: True updates with one `torch.compile`d kernel, False with eager `torch._foreach_*` calls.
            Default: None, the kernel for 500,000 parameters and more where there is a compiler.
        maximize: Ascend instead of descend. Default: False.
        hyperparameters: What else a group has by default in the place of the genome's, such as `betas`.
            Default: nothing.

    Raises:
        ValueError: A hyperparameter of a group, or of a checkpoint, is out of range, or a parameter is
            complex.
        TypeError: `genome` is no genome, but a preset's name, say.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> from optevo.optim import PRESETS
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = PRESETS["adamw"].optimizer(model.parameters(), lr=3e-4)
    """

    RANGES = ranges({"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8})

    def __init__(
        self,
        params: Iterable[Any],
        genome: TermGenome,
        *,
        lr: float | Tensor | None = None,
        weight_decay: float | None = None,
        compiled: bool | None = None,
        maximize: bool = False,
        hyperparameters: Mapping[str, Any] | None = None,
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
            "coefficients": {name: getattr(rule, name) for name in FUSED} | dict(rule.others),
            "bias_correction": rule.bias_correction,
            "clip_value": rule.clip_value,
            "maximize": maximize,
            "compiled": compiled,
            **(hyperparameters or {}),
        }
        self._layouts: set[Hashable] = set()
        self._check(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps were taken; its coefficients are its own."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["coefficients"] = _by_name(group["coefficients"])

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        clip_value = group.get("clip_value")
        if clip_value is not None and not self._within(clip_value, 0.0, math.inf):
            raise ValueError(f"Invalid clip_value value: {clip_value}")
        for name, coefficient in _by_name(group.get("coefficients", {})).items():
            if not self._within(coefficient, -math.inf, math.inf):
                raise ValueError(f"Invalid coefficient of {name}: {coefficient}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layouts = set()
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("compiled", None)
            group["coefficients"] = _by_name(group["coefficients"])

    def _step(self) -> None:
        for group in self.param_groups:
            for (*_, k), (params, gradients, exp_avgs, exp_avg_sqs) in self._buckets(group).items():
                grads = list(torch._foreach_neg(gradients)) if group["maximize"] else gradients
                scalars = _group_scalars(group, k)
                update(
                    *(params, grads, exp_avgs, exp_avg_sqs, scalars),
                    compiled=group["compiled"],
                    layouts=self._layouts,
                )

    def _buckets(self, group: dict[str, Any]) -> dict[tuple[torch.device, torch.dtype, int], _Tensors]:
        """What has a gradient by (device, dtype, step count); creates and counts the state."""
        reads = reads_of(_in_order(group["coefficients"]))
        reads_m, reads_v = "m" in reads, "root" in reads and group["betas"][1] > 0
        counts = group["bias_correction"] and (reads_m or reads_v)
        buckets: dict[tuple[torch.device, torch.dtype, int], _Tensors] = {}
        counters: list[Tensor] = []
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            state, k = self.state[p], 0
            if counts:
                counters.append(step_count(state))
                k = int(counters[-1].item()) + 1
            bucket = buckets.get((p.device, p.dtype, k))
            if bucket is None:
                bucket = buckets[p.device, p.dtype, k] = _Tensors([], [], [], [])
            bucket.params.append(p)
            bucket.grads.append(g)
            if reads_m:
                bucket.exp_avgs.append(_moment(state, "exp_avg", p))
            if reads_v:
                bucket.exp_avg_sqs.append(_moment(state, "exp_avg_sq", p))
        for counter in counters:
            counter.add_(1)
        return buckets


class _Tensors(NamedTuple):
    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]


def _moment(state: dict[str, Any], name: str, p: Tensor) -> Tensor:
    moment: Tensor | None = state.get(name)
    if moment is None:
        dtype = torch.float32 if p.dtype in CheckedOptimizer.NARROW else p.dtype
        moment = state[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
    return moment


def _by_name(coefficients: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Coefficients by the names of the basis's entries; a checkpoint of before has them by position."""
    if isinstance(coefficients, Mapping):
        for name in coefficients:
            if name not in BASIS:
                raise ValueError(
                    f"Invalid coefficients: {name!r}, {hint(name, BASIS)}, or use its term first"
                )
        return dict(coefficients)
    if len(coefficients) > len(BASIS):
        raise ValueError(
            f"Invalid coefficients: {len(coefficients)} numbers, expected {len(BASIS)} at most; of terms of "
            "other packages use those that they were saved with first"
        )
    return dict(zip(BASIS, coefficients, strict=False))


def _in_order(coefficients: Mapping[str, Any]) -> tuple[float, ...]:
    """One for each entry of the basis; tensors and NumPy's numbers become Python's."""
    return tuple(float(coefficients.get(name, 0.0)) for name in BASIS)


def _group_scalars(group: dict[str, Any], k: int) -> Scalars:
    beta1, beta2 = group["betas"]
    clip_value = group["clip_value"]
    return step_scalars(
        _in_order(group["coefficients"]),
        lr=float(group["lr"]),
        betas=(float(beta1), float(beta2)),
        eps=float(group["eps"]),
        weight_decay=float(group["weight_decay"]),
        clip_value=None if clip_value is None else float(clip_value),
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
        coefficients: Of `Rule.coefficients`.
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
        # A kernel's numbers are as many as the table's entries, which grow when a term is used.
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
