"""The canonical update: eager `torch._foreach_*`, one compiled kernel, and many candidates stacked.

All take the same numbers as data, so a kernel compiled for a list of shapes serves every genome. None of them
reads anything back from the device.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import types
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from optevo.optim.eager import EAGER
from optevo.optim.terms.table import BASIS, FUSED, Inputs

logger = logging.getLogger(__name__)


class Scalars(NamedTuple):
    """What one step multiplies by; the learning rate and bias corrections are folded in already."""

    keep: float  # 1 − η·weight_decay
    grad: float  # η·a
    momentum: float  # η·b / (1 − β₁ᵏ)
    rms: float  # η·c
    adam: float  # η·d / (1 − β₁ᵏ)
    sign: float  # η·s
    unit: float  # η·u
    root: float  # √(1 − β₂ᵏ), which divides √v
    eps: float
    beta1: float
    beta2: float
    clip: float  # infinity for none
    correction: float = 1.0  # 1 / (1 − β₁ᵏ), for entries of the basis beyond the first six
    others: tuple[float, ...] = ()  # η times the coefficient of each of those

    @property
    def rates(self) -> tuple[float, ...]:
        """What each entry of the basis is multiplied by, in its order."""
        return self.grad, self.momentum, self.rms, self.adam, self.sign, self.unit, *self.others

    def without_unused(self) -> Scalars:
        """The same without the entries beyond the first six, where the rule has none of them."""
        return self if any(self.others) else self._replace(others=())

    def folded(self) -> tuple[float, ...]:
        """The numbers that `stacked_update` and the compiled kernel take, in their order.

        Fourteen for the first six entries of the basis; three more, and one for each later entry, follow.

        The correction of √v̂ moves into the coefficients and ε, and a term that the rule lacks gets numbers
        under which it is zero rather than 0/0 or 0·∞: a divisor that nothing is divided by gets ε = 1, and
        a rule that reads the sign alone sees every other gradient clipped to 0. (A step at η = 0 reads
        nothing, and moves the moments all the same.)
        """
        rooted = self.rms or self.adam
        divided = self.unit or (rooted and not self.beta2)  # without v, √v̂ is |g|
        reads = self.grad or self.momentum or rooted or self.unit
        return (
            self.keep,
            self.grad,
            self.momentum,
            self.rms * self.root,
            self.adam * self.root,
            self.sign,
            self.unit,
            self.eps * self.root if rooted else 1.0,
            self.eps if divided else 1.0,
            self.beta1,
            1 - self.beta1,
            self.beta2,
            1 - self.beta2,
            self.clip if reads or not self.sign or any(self.others) else 0.0,
            *((self.correction, self.root, self.eps, *self.others) if self.others else ()),
        )


class Lists:
    """What an entry of the basis reads and changes, as lists of tensors of one device and dtype.

    Args:
        params: Weights, changed in place.
        grads: Gradients, clipped already.
        exp_avgs: First moments; empty where none is kept.
        exp_avg_sqs: Second moments; empty where none is kept.
        k: The step's numbers.
    """

    def __init__(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        k: Scalars,
    ) -> None:
        self.params: list[Tensor] = params
        self.grads: list[Tensor] = grads
        self.exp_avgs: list[Tensor] = exp_avgs
        self.exp_avg_sqs: list[Tensor] = exp_avg_sqs
        self.k = k

    @functools.cached_property
    def root(self) -> list[Tensor]:
        """√v̂ + ε, or |g| + ε without second moments."""
        if not self.exp_avg_sqs:
            return self.magnitude
        root = list(torch._foreach_sqrt(self.exp_avg_sqs))
        if self.k.root != 1:
            torch._foreach_div_(root, self.k.root)
        torch._foreach_add_(root, self.k.eps)
        return root

    @functools.cached_property
    def magnitude(self) -> list[Tensor]:
        """|g| + ε."""
        magnitude = list(torch._foreach_abs(self.grads))
        torch._foreach_add_(magnitude, self.k.eps)
        return magnitude

    @functools.cached_property
    def m_hat(self) -> list[Tensor]:
        """m̂, or g without first moments; the first six entries have its correction in their rates."""
        return list(torch._foreach_mul(self.exp_avgs, self.k.correction)) if self.exp_avgs else self.grads

    @property
    def sign(self) -> list[Tensor]:
        """sign(g)."""
        return list(torch._foreach_sign(self.grads))

    def subtract(self, tensors: list[Tensor], rate: float) -> None:
        """params ← params − rate · tensors."""
        torch._foreach_add_(self.params, tensors, alpha=-rate)

    def subtract_quotient(self, tensors: list[Tensor], divisors: list[Tensor], rate: float) -> None:
        """params ← params − rate · tensors / divisors."""
        torch._foreach_addcdiv_(self.params, tensors, divisors, -rate)


def foreach_update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
) -> None:
    """Update `params` and the moments in place; an empty list of moments means that none is kept.

    Terms whose coefficient is zero are not computed. All parameters and gradients are of one device and
    dtype; half-precision ones are updated in float32 and rounded once, as the compiled kernel does, and
    their moments are float32.
    """
    if params[0].dtype not in (torch.float16, torch.bfloat16):
        return _foreach(params, grads, exp_avgs, exp_avg_sqs, k)
    wide = [p.float() for p in params]
    _foreach(wide, [g.float() for g in grads], exp_avgs, exp_avg_sqs, k)
    torch._foreach_copy_(params, wide)
    return None


def _foreach(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
) -> None:
    if k.clip != float("inf"):
        grads = list(torch._foreach_clamp_max(grads, k.clip))
        torch._foreach_clamp_min_(grads, -k.clip)
    torch._foreach_mul_(params, k.keep)
    if exp_avgs:
        torch._foreach_lerp_(exp_avgs, grads, 1 - k.beta1)
    if exp_avg_sqs:
        torch._foreach_mul_(exp_avg_sqs, k.beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - k.beta2)
    lists = Lists(params, grads, exp_avgs, exp_avg_sqs, k)
    for entry, rate in zip(BASIS.values(), k.rates, strict=False):
        if rate:
            entry.foreach(lists, rate)


def _apply(
    p: Tensor,
    g: Tensor,
    m: Tensor | None,
    v: Tensor | None,
    k: Sequence[Tensor],
    *,
    work: Sequence[Tensor | None] = (None,) * 4,
    clips: bool = True,
) -> None:
    """The formula, in place on p, m and v; each number of `k` is a tensor that broadcasts against p."""
    keep, a, b, c, d, s, u, root_eps, unit_eps, beta1, rest1, beta2, rest2, clip, *later = k
    delta, gradient, x, y = work
    delta = torch.sign(g, out=delta).mul_(s)
    if clips:
        g = torch.minimum(torch.maximum(g, -clip, out=gradient), clip, out=gradient)
    if m is not None:
        m.mul_(beta1).add_(torch.mul(g, rest1, out=x))
    if v is not None:
        v.mul_(beta2).add_(torch.mul(g, g, out=x).mul_(rest2))
    over = torch.mul(g, u if v is not None else u + c, out=x)  # over |g| + ε
    if v is None and m is not None:
        over.add_(torch.mul(m, d, out=y))
    over.div_(torch.abs(g, out=y).add_(unit_eps))
    straight = torch.mul(g, a, out=y)
    if v is None:
        # Where v is read, a gradient of ∞ or NaN makes NaN of every rule; without, 0·∞ must not.
        straight = torch.where(a != 0, straight, 0.0)
        over = torch.where((u != 0) | (c != 0) | (d != 0), over, 0.0)
    delta.add_(straight).add_(over)
    if m is not None:
        delta.add_(torch.mul(m, b, out=x))
    if v is not None:
        over = torch.mul(g, c, out=x)  # over √v̂ + ε
        if m is not None:
            over.add_(torch.mul(m, d, out=y))
        delta.add_(over.div_(torch.sqrt(v, out=y).add_(root_eps)))
    if later:
        correction, divisor, eps, *rates = later
        m_hat = g if m is None else m * correction
        root = g.abs() if v is None else v.sqrt() / divisor
        names = [name for name in BASIS if name not in FUSED]
        for name, rate in zip(names, rates, strict=True):
            # A row without the entry must not get 0·∞ of it.
            delta.add_(torch.where(rate != 0, BASIS[name].value(Inputs(g, m_hat, root, eps)) * rate, 0.0))
    p.mul_(keep).sub_(delta)


@torch.no_grad()
def stacked_update(  # noqa: PLR0917  five kinds of tensors and where to work
    params: Tensor,
    grads: Tensor,
    exp_avgs: Tensor | None,
    exp_avg_sqs: Tensor | None,
    scalars: Tensor,
    work: Tensor | None = None,
) -> None:
    """Update K candidates with K different rules at once, in place and eager.

    Row k comes out as `foreach_update` of that row alone, but for rounding, and but for what is not finite:
    a NaN in a gradient always makes its row's weight NaN, and where one comes out infinite the other may be
    NaN. A row whose rule does not read a moment that others read gets one that means nothing.

    Args:
        params: Weights, shape (K, P), float32 or float64.
        grads: Gradients, shape (K, P); not changed.
        exp_avgs: First moments, shape (K, P); None where no row reads one.
        exp_avg_sqs: Second moments, shape (K, P); None where no row reads one.
        scalars: Shape (14, K), more rows with a longer basis; column k from `Scalars.folded`, in the weights'
            dtype and on their device.
        work: Memory of shape (4, K, P) to be overwritten, for a caller who steps many times; 20 × 6,570
            weights take 0.9 ms without and 0.6 ms with it. Default: None, allocated anew.
    """
    memory = (None,) * 4 if work is None else work.unbind()
    _apply(params, grads, exp_avgs, exp_avg_sqs, scalars.unsqueeze(-1).unbind(), work=memory)


def _kernel(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scalars: Tensor,
    *,
    clips: bool,
) -> None:
    k = scalars.unbind()
    for i, p in enumerate(params):
        m = exp_avgs[i] if exp_avgs else None
        v = exp_avg_sqs[i] if exp_avg_sqs else None
        if p.dtype == scalars.dtype:
            _apply(p, grads[i], m, v, k, clips=clips)
            continue
        # Half-precision parameters are updated in float32 and rounded once; their moments are float32.
        wide = p.to(scalars.dtype)
        _apply(wide, grads[i].to(scalars.dtype), m, v, k, clips=clips)
        p.copy_(wide)


_kernels: dict[Hashable, Callable[..., None]] = {}


def _layout(tensors: Sequence[list[Tensor]], k: Scalars) -> Hashable:
    """All that a kernel is compiled for, since it has no guards of its own."""
    device = tensors[0][0].device
    # Clipping takes a fifth of a step in cache, so rules without it have kernels of their own.
    facts = device, torch.get_num_threads(), torch.is_inference_mode_enabled(), k.clip != float("inf")
    shapes = [tuple([(type(t), t.dtype, t.shape, t.stride()) for t in ts]) for ts in tensors]
    return facts, tuple(BASIS) if k.others else (), *shapes


def _no_guards(guards: Sequence[object]) -> list[bool]:
    return [False] * len(guards)


def compiled_update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
    *,
    layout: Hashable = None,
) -> None:
    """As `foreach_update`, in one kernel. Compiled once a layout of the tensors, whatever the genome."""
    k = k.without_unused()
    layout = layout or _layout((params, grads, exp_avgs, exp_avg_sqs), k)
    if len(set(map(id, grads))) < len(grads):  # a compiler that met them as one would keep them as one
        grads = [g.clone() for g in grads]
    kernel = _kernels.get(layout)
    if kernel is None:
        # Dynamo counts recompilations by code object: a copy a layout keeps each well below the limit.
        copy = types.FunctionType(_kernel.__code__.replace(), _kernel.__globals__, "genome_update")
        # The layout says what the guards would, and they took 80 µs of SmallCNN's 730 µs a step.
        kernel = _kernels[layout] = torch.compile(
            copy, fullgraph=True, dynamic=False, options={"guard_filter_fn": _no_guards}
        )
    device = params[0].device
    dtype = torch.promote_types(params[0].dtype, torch.float32)
    scalars = torch.tensor(k.folded(), dtype=dtype, device="cpu", pin_memory=device.type == "cuda")
    scalars = scalars.to(device, non_blocking=True)
    kernel(params, grads, exp_avgs, exp_avg_sqs, scalars, clips=k.clip != float("inf"))


_broken: set[str] = set()  # device types on which the compiler failed in this process
# Where gradients come and go from step to step, every subset would be compiled anew. Counted an optimizer, so
# that what a run does depends on nothing that its process did before.
_MOST_LAYOUTS = 8


def update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
    *,
    compiled: bool | None,
    layouts: set[Hashable],
) -> None:
    """Dispatch: True compiles, False is eager, None compiles where it pays and falls back on failure.

    `layouts` are those that the optimizer has met, and is added to.
    """
    tensors = (params, grads, exp_avgs, exp_avg_sqs)
    if compiled:
        return compiled_update(*tensors, k)
    if compiled is None and pays(params):
        k = k.without_unused()
        layout = _layout(tensors, k)
        if layout in layouts or len(layouts) < _MOST_LAYOUTS:
            layouts.add(layout)
            known = layout in _kernels
            try:
                return compiled_update(*tensors, k, layout=layout)
            except (RuntimeError, OSError) as error:
                if not known:
                    _kernels.pop(layout, None)
                if known or isinstance(error, torch.OutOfMemoryError):
                    raise
                # Raised while compiling, before any tensor has changed.
                _broken.add(params[0].device.type)
                logger.warning("torch.compile failed, using eager updates from here on: %s", error)
    return foreach_update(*tensors, k)


# Elements. There the kernel saves 0.4 ms a step (0.1 ms at 150,000, nothing below 65,000), so that the 2 s
# which a process needs to load one out of the compiler's cache come back within ten runs of 500 steps.
COMPILE_FROM = 500_000


def pays(params: list[Tensor]) -> bool:
    """Whether compiling is worth its seconds: enough elements, and a compiler for their device."""
    device = params[0].device.type
    if EAGER.get() or device in _broken or params[0].dtype == torch.float64:
        return False
    if any(type(p) not in (Tensor, torch.nn.Parameter) for p in params):
        return False  # of a subclass, shapes and strides don't say all
    return sum(p.numel() for p in params) >= COMPILE_FROM and has_compiler(device)


@functools.cache
def has_compiler(device: str) -> bool:
    """Whether torch.compile can be expected to work here for tensors on `device`."""
    if device == "cpu":
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
        return any(shutil.which(name) for name in names)
    return device == "cuda" and importlib.util.find_spec("triton") is not None
