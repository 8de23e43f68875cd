"""`ModernOptimizer`: a genome of the modern catalogue as an ordinary torch optimizer."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from optevo.naming import explain_keywords, hint
from optevo.optim.cautious import mask_updates
from optevo.optim.checked import CheckedOptimizer, ranges, step_count
from optevo.optim.kinds import KINDS, check_kind, kinds_by_shape, mark_head
from optevo.optim.orthogonal import orthogonalise
from optevo.optim.terms.kernels import Lists, Scalars, update
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.modern_rule import ENTRIES, READS_SIZE, for_vectors, reads
from optevo.optim.terms.optimizer import step_scalars
from optevo.optim.terms.table import FUSED

MOMENTS = ("exp_avg", "exp_avg_sq", "exp_avg_slow")  # the state besides `step`


@explain_keywords
class ModernOptimizer(CheckedOptimizer):
    r"""The update of a `ModernGenome`: one rule, or two for different kinds of parameters.

        w ← (1 − η·λ)·w − η·Δ,   η = lr · the rate of the parameter's kind

    Kinds are "convolution" (three or more dimensions), "hidden" (two), "head" (embeddings and the last layer)
    and "vector" (fewer than two). An optimizer sees parameters without their layers: the head is the last
    two-dimensional parameter that it is made with. Where that is not so, where there are embeddings, or where
    each process makes an optimizer of a part of the parameters, say it with groups, as in
    ``{"params": model.embedding.parameters(), "kind": "head"}``; what such a group holds is of that kind,
    vectors excepted. A group stays one group, and its `kinds` say what is what.

    State is kept only for what a parameter's rule reads: `exp_avg`, `exp_avg_sq`, `exp_avg_slow`, and `step`
    where moments are bias-corrected. float16 and bfloat16 parameters are updated in float32 and rounded once,
    and their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        genome: The update rule with its hyperparameters.
        lr: Learning rate of kinds whose rate is 1. Default: the genome's.
        weight_decay: Decoupled weight decay λ. Default: the genome's.
        compiled: True updates with one `torch.compile`d kernel what has no LION, SLOW, ORTHO or caution,
            False with eager `torch._foreach_*` calls. Default: None, the kernel for 500,000 parameters and
            more where there is a compiler.
        maximize: Ascend instead of descend. Default: False.
        hyperparameters: What else a group has by default in the place of the genome's, such as `betas`.
            Default: nothing.

    Raises:
        ValueError: A hyperparameter of a group, or of a checkpoint, is out of range, or a parameter is
            complex.
        TypeError: `genome` is no ModernGenome.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> import torch
        >>> from optevo.optim import PRESETS, ModernOptimizer
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = ModernOptimizer(model.parameters(), PRESETS["lion"], lr=1e-4)
    """

    RANGES: ClassVar[Mapping[str, tuple[float, float, int]]] = {
        **ranges({"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}),
        "beta_slow": (0.0, math.nextafter(1.0, 0.0), 1),
        "beta_lion": (0.0, 1.0, 1),
        "second_beta1": (0.0, math.nextafter(1.0, 0.0), 1),
    }

    def __init__(
        self,
        params: Iterable[Any],
        genome: ModernGenome,
        *,
        lr: float | Tensor | None = None,
        weight_decay: float | None = None,
        compiled: bool | None = None,
        maximize: bool = False,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(genome, ModernGenome):
            raise TypeError(f"genome is {genome!r}, expected a ModernGenome")
        rule, second = genome.rule(), genome.second_rule()
        rules = [one for one in (rule, second) if one is not None]
        defaults = {
            "lr": genome.lr if lr is None else lr,
            "weight_decay": genome.weight_decay if weight_decay is None else weight_decay,
            "betas": (rule.beta1 or 0.0, max(one.beta2 or 0.0 for one in rules)),
            "beta_slow": max(one.beta_slow or 0.0 for one in rules),
            "beta_lion": max(one.beta_lion or 0.0 for one in rules),
            "eps": max(one.eps or 0.0 for one in rules),
            "coefficients": dict(rule.coefficients),
            "bias_correction": genome.bias_correction,
            "clip_value": genome.clip_value if genome.gradient_clipping else None,
            "cautious": genome.cautious,
            "rates": genome.rates(),
            "second_kinds": [] if genome.second is None else list(genome.second.kinds),
            "second_coefficients": {} if second is None else dict(second.coefficients),
            "second_beta1": 0.0 if second is None else second.beta1 or 0.0,
            "kind": None,
            "maximize": maximize,
            "compiled": compiled,
            **(hyperparameters or {}),
        }
        self._layouts: set[Hashable] = set()
        self._check(defaults)
        super().__init__(params, defaults)
        mark_head(self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps were taken; of a later one no matrix is taken for the head."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ("coefficients", "second_coefficients", "rates", "second_kinds"):
            group[name] = copy.copy(group[name])  # its own, so that a change is one of this group alone
        kind = group["kind"]
        group["kinds"] = [
            shape if kind is None or shape == "vector" else kind for shape in kinds_by_shape(group["params"])
        ]

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        check_kind(group.get("kind"))
        clip_value = group.get("clip_value")
        if clip_value is not None and not self._within(clip_value, 0.0, math.inf):
            raise ValueError(f"Invalid clip_value value: {clip_value}")
        for name, known in (("coefficients", ENTRIES), ("second_coefficients", ENTRIES), ("rates", KINDS)):
            for key, value in dict(group.get(name, {})).items():
                if key not in known:
                    raise ValueError(f"Invalid {name}: {key!r}, {hint(key, known)}")
                if not self._within(value, 0.0 if name == "rates" else -math.inf, math.inf):
                    raise ValueError(f"Invalid {name} value of {key}: {value}")
        for kind in (*group.get("second_kinds", ()), *group.get("kinds", ())):
            check_kind(kind)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layouts = set()
        for group, now in zip(state["param_groups"], vars(self).get("param_groups", ()), strict=False):
            group.setdefault("kinds", now["kinds"])
        super().__setstate__(state)

    def _step(self) -> None:
        with self._widened():
            for group in self.param_groups:
                for bucket in self._buckets(group):
                    bucket.update(group, self._layouts)

    def _buckets(self, group: dict[str, Any]) -> Iterable[_Bucket]:
        """What has a gradient, by all that its update depends on; creates and counts the state."""
        rules = {kind: _Numbers.of(group, kind) for kind in dict.fromkeys(group["kinds"])}
        rates = {kind: float(group["rates"].get(kind, 1.0)) for kind in rules}
        buckets: dict[Hashable, _Bucket] = {}
        counters = []
        for p, kind in zip(group["params"], group["kinds"], strict=True):
            if p.grad is None:
                continue
            rule, state, k = rules[kind], self.state[p], 0
            if rule.counts:
                counters.append(step_count(state))
                k = int(counters[-1].item()) + 1
            key = (p.device, p.dtype, k, rule.key, rates[kind])
            bucket = buckets.get(key)
            if bucket is None:
                bucket = buckets[key] = _Bucket(rule, rates[kind], k)
            bucket.params.append(p)
            bucket.grads.append(p.grad)
            for name in rule.state:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
                bucket.moments[name].append(state[name])
        for counter in counters:
            counter.add_(1)
        return buckets.values()


@dataclass(frozen=True)
class _Numbers:
    """The rule of one kind of parameters of a group."""

    coefficients: Mapping[str, float]
    betas: tuple[float, float]
    state: frozenset[str]
    counts: bool

    @functools.cached_property
    def key(self) -> Hashable:
        """What is equal for equal rules."""
        return tuple(self.coefficients.items()), self.betas

    @classmethod
    def of(cls, group: Mapping[str, Any], kind: str) -> _Numbers:
        second = kind in group["second_kinds"]
        given = group["second_coefficients" if second else "coefficients"]
        coefficients = {name: float(c) for name, c in given.items() if c}
        beta1 = float(group["second_beta1"] if second else group["betas"][0])
        beta2 = float(group["betas"][1])
        if kind == "vector":
            coefficients = for_vectors(coefficients, m=beta1 > 0, v=beta2 > 0)
        needs = reads(coefficients)
        kept = (beta1 > 0 and "m" in needs, beta2 > 0 and "root" in needs, "slow" in needs)
        state = frozenset(name for name, read in zip(MOMENTS, kept, strict=True) if read)
        corrects = "exp_avg_sq" in state or (
            "exp_avg" in state and any(n in READS_SIZE for n in coefficients)
        )
        return cls(coefficients, (beta1, beta2), state, group["bias_correction"] and corrects)


@dataclass
class _Bucket:
    """Parameters of one device, dtype, step count, rule and rate, with their gradients and state."""

    rule: _Numbers
    rate: float
    k: int
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    moments: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in MOMENTS})

    def update(self, group: Mapping[str, Any], layouts: set[Hashable]) -> None:
        """One step of all of them."""
        lr = float(group["lr"]) * self.rate
        grads = list(torch._foreach_neg(self.grads)) if group["maximize"] else self.grads
        fused = tuple(self.rule.coefficients.get(name, 0.0) for name in FUSED)
        clip_value = group["clip_value"]
        options: dict[str, Any] = {
            "betas": self.rule.betas,
            "eps": float(group["eps"]),
            "clip_value": None if clip_value is None else float(clip_value),
            "k": self.k,
        }
        exp_avgs, exp_avg_sqs, slow = self.moments.values()
        tensors = (self.params, grads, exp_avgs, exp_avg_sqs)
        decay = float(group["weight_decay"])
        if not group["cautious"] and self.rule.coefficients.keys() <= set(FUSED):
            scalars = step_scalars(fused, lr=lr, weight_decay=decay, **options)
            update(*tensors, scalars, compiled=group["compiled"], layouts=layouts)
            return
        numbers = Numbers(
            self.rule.coefficients,
            step_scalars(fused, lr=1.0, weight_decay=0.0, **options),
            float(group["beta_slow"]),
            float(group["beta_lion"]),
            bool(group["cautious"]),
        )
        if numbers.cautious:
            delta = direction(*tensors, slow, numbers)
            mask_updates(delta, grads)
            torch._foreach_mul_(self.params, 1 - lr * decay)
            torch._foreach_add_(self.params, delta, alpha=-lr)
            return
        lists = _advance(*tensors, slow, numbers)
        torch._foreach_mul_(self.params, 1 - lr * decay)
        _subtract(lists, numbers, lr)


@dataclass(frozen=True)
class Numbers:
    """What one step of a modern rule multiplies by.

    Attributes:
        coefficients: By the name of the basis's entry.
        k: Of the published entries, at a learning rate of 1; the others read their betas and ε here too.
        beta_slow: Decay of the slow moment.
        beta_lion: Weight of the first moment in LION.
        cautious: Whether the update is masked.
    """

    coefficients: Mapping[str, float]
    k: Scalars
    beta_slow: float
    beta_lion: float
    cautious: bool


def direction(  # noqa: PLR0917  five kinds of tensors
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    slow: list[Tensor],
    numbers: Numbers,
) -> list[Tensor]:
    """The update Δ of parameters of one device and dtype, unmasked; the moments move on, in place.

    Args:
        params: Weights, whose shapes alone are read.
        grads: Gradients, not changed.
        exp_avgs: First moments; empty where none is kept.
        exp_avg_sqs: Second moments, likewise.
        slow: Slow moments, likewise.
        numbers: The rule.
    """
    delta = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in params]
    _subtract(_advance(delta, grads, exp_avgs, exp_avg_sqs, slow, numbers), numbers, -1.0)
    return delta


def _advance(  # noqa: PLR0917  likewise
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    slow: list[Tensor],
    numbers: Numbers,
) -> ModernLists:
    """Move the moments on; what the entries read, and subtract from `params`."""
    k = numbers.k
    if k.clip != math.inf:
        grads = list(torch._foreach_clamp_max(grads, k.clip))
        torch._foreach_clamp_min_(grads, -k.clip)
    lion: list[Tensor] = []
    if numbers.coefficients.get("lion"):
        lion = list(torch._foreach_lerp(exp_avgs or grads, grads, 1 - numbers.beta_lion))
        torch._foreach_sign_(lion)
    if exp_avgs:
        torch._foreach_lerp_(exp_avgs, grads, 1 - k.beta1)
    if exp_avg_sqs:
        torch._foreach_mul_(exp_avg_sqs, k.beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - k.beta2)
    if slow:
        torch._foreach_lerp_(slow, grads, 1 - numbers.beta_slow)
    return ModernLists(params, grads, exp_avgs, exp_avg_sqs, k, lion=lion, slow=slow)


def _subtract(lists: ModernLists, numbers: Numbers, lr: float) -> None:
    """params ← params − lr · Δ."""
    for name, coefficient in numbers.coefficients.items():
        corrected = "m" in ENTRIES[name].reads and name in FUSED and lists.exp_avgs
        ENTRIES[name].foreach(lists, lr * coefficient * (numbers.k.correction if corrected else 1.0))


class ModernLists(Lists):
    """`Lists` with what the entries of `LATER` read.

    Args:
        params: Where entries are subtracted, the negative update.
        grads: Gradients, clipped already.
        exp_avgs: First moments; empty where none is kept.
        exp_avg_sqs: Second moments, likewise.
        k: The step's numbers.
        lion: LION's signs; empty where nothing reads them.
        slow: Slow moments, likewise.
    """

    def __init__(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        k: Scalars,
        *,
        lion: list[Tensor],
        slow: list[Tensor],
    ) -> None:
        super().__init__(params, grads, exp_avgs, exp_avg_sqs, k)
        self.lion = lion
        self.slow = slow

    @functools.cached_property
    def ortho(self) -> list[Tensor]:
        """The orthogonal factors of Nesterov's momentum, scaled to the root mean square of AdamW's update."""
        nesterov = (
            list(torch._foreach_lerp(self.grads, self.exp_avgs, self.k.beta1))
            if self.exp_avgs
            else self.grads
        )
        matrices = [n.flatten(1) for n in nesterov]
        factors = orthogonalise(matrices)
        torch._foreach_mul_(factors, [0.2 * math.sqrt(max(m.shape)) for m in matrices])
        return [factor.reshape(n.shape) for factor, n in zip(factors, nesterov, strict=True)]
