"""The six-coefficient update on lists of tensors: eager `torch._foreach_*`, and one compiled kernel.

Both take the same twelve numbers, so a kernel compiled for a list of shapes serves every genome. Neither
reads anything back from the device.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import types
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

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


def foreach_update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
) -> None:
    """Update `params` and the moments in place; an empty list of moments means that none is kept.

    Terms whose coefficient is zero are not computed. All tensors are of one device and dtype. Half-precision
    ones are updated in float32 and rounded once, as the compiled kernel does.
    """
    if params[0].dtype not in (torch.float16, torch.bfloat16):
        return _foreach(params, grads, exp_avgs, exp_avg_sqs, k)
    wide = [[t.float() for t in tensors] for tensors in (params, grads, exp_avgs, exp_avg_sqs)]
    _foreach(wide[0], wide[1], wide[2], wide[3], k)
    for tensors, values in ((params, wide[0]), (exp_avgs, wide[2]), (exp_avg_sqs, wide[3])):
        if tensors:
            torch._foreach_copy_(tensors, values)
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
    if k.grad:
        torch._foreach_add_(params, grads, alpha=-k.grad)
    if k.momentum:
        torch._foreach_add_(params, exp_avgs, alpha=-k.momentum)
    if k.rms or k.adam:
        root = torch._foreach_sqrt(exp_avg_sqs) if exp_avg_sqs else torch._foreach_abs(grads)
        if k.root != 1:
            torch._foreach_div_(root, k.root)
        torch._foreach_add_(root, k.eps)
        if k.rms:
            torch._foreach_addcdiv_(params, grads, root, -k.rms)
        if k.adam:
            torch._foreach_addcdiv_(params, exp_avgs, root, -k.adam)
    if k.sign:
        torch._foreach_add_(params, torch._foreach_sign(grads), alpha=-k.sign)
    if k.unit:
        magnitude = torch._foreach_abs(grads)
        torch._foreach_add_(magnitude, k.eps)
        torch._foreach_addcdiv_(params, grads, magnitude, -k.unit)


def _kernel(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scalars: Tensor,
) -> None:
    for i, p in enumerate(params):
        # Half-precision parameters are updated in float32 and rounded once.
        dtype = torch.promote_types(p.dtype, torch.float32)
        keep, a, b, c, d, s, u, root, eps, beta1, beta2, clip = scalars.to(dtype).unbind()
        g = torch.minimum(torch.maximum(grads[i].to(dtype), -clip), clip)
        m = torch.lerp(g, exp_avgs[i].to(dtype), beta1) if exp_avgs else g
        v = torch.lerp(g * g, exp_avg_sqs[i].to(dtype), beta2) if exp_avg_sqs else g * g
        magnitude = g.abs()
        divisor = (v.sqrt() / root if exp_avg_sqs else magnitude) + eps
        zero = torch.zeros((), dtype=dtype, device=p.device)
        # A term that the rule lacks must not turn an infinite gradient into NaN, as 0·∞ would.
        delta = torch.where(a != 0, a * g, zero) + torch.where(b != 0, b * m, zero)
        delta += torch.where(c != 0, c * g / divisor, zero) + torch.where(d != 0, d * m / divisor, zero)
        delta += torch.where(s != 0, s * g.sign(), zero)
        delta += torch.where(u != 0, u * g / (magnitude + eps), zero)
        p.copy_(p * keep - delta)
        if exp_avgs:
            exp_avgs[i].copy_(m)
        if exp_avg_sqs:
            exp_avg_sqs[i].copy_(v)


_kernels: dict[Hashable, Callable[..., None]] = {}


def _layout(params: list[Tensor], grads: list[Tensor], *moments: list[Tensor]) -> Hashable:
    """What a kernel is compiled for."""
    tensors = tuple((p.shape, p.stride(), g.stride()) for p, g in zip(params, grads, strict=True))
    return params[0].device, params[0].dtype, tensors, *(bool(m) for m in moments)


def compiled_update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
) -> None:
    """As `foreach_update`, in one kernel. Compiled once a layout of the tensors, whatever the genome."""
    layout = _layout(params, grads, exp_avgs, exp_avg_sqs)
    if layout not in _kernels:
        # Dynamo counts recompilations by code object: a copy a layout keeps each well below the limit.
        copy = types.FunctionType(_kernel.__code__.replace(), _kernel.__globals__, "genome_update")
        _kernels[layout] = torch.compile(copy, fullgraph=True, dynamic=False)
    device = params[0].device
    scalars = torch.tensor(k, dtype=torch.float64, pin_memory=device.type == "cuda")
    scalars = scalars.to(device, non_blocking=True)
    _kernels[layout](params, grads, exp_avgs, exp_avg_sqs, scalars)


_broken: set[str] = set()  # device types on which the compiler failed in this process
# Where gradients come and go from step to step, every subset would be compiled anew; a search needs a dozen.
_MOST_LAYOUTS = 32


def update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    k: Scalars,
    *,
    compiled: bool | None,
) -> None:
    """Dispatch: True compiles, False is eager, None compiles where it pays and falls back on failure."""
    tensors = (params, grads, exp_avgs, exp_avg_sqs)
    if compiled:
        return compiled_update(*tensors, k)
    if compiled is None and pays(params):
        known = _layout(*tensors) in _kernels
        if known or len(_kernels) < _MOST_LAYOUTS:
            try:
                return compiled_update(*tensors, k)
            except (RuntimeError, OSError) as error:
                if known or isinstance(error, torch.OutOfMemoryError):
                    raise
                # Raised while compiling, before any tensor has changed.
                _broken.add(params[0].device.type)
                logger.warning("torch.compile failed, using eager updates from here on: %s", error)
    return foreach_update(*tensors, k)


COMPILE_FROM = 500_000  # elements; below, eager updates cost less than the seconds of a compilation


def pays(params: list[Tensor]) -> bool:
    """Whether compiling is worth its seconds: enough elements, and a compiler for their device."""
    device = params[0].device.type
    if device in _broken or params[0].dtype == torch.float64:
        return False
    return sum(p.numel() for p in params) >= COMPILE_FROM and has_compiler(device)


@functools.cache
def has_compiler(device: str) -> bool:
    """Whether torch.compile can be expected to work here for tensors on `device`."""
    if device == "cpu":
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
        return any(shutil.which(name) for name in names)
    return device == "cuda" and importlib.util.find_spec("triton") is not None
