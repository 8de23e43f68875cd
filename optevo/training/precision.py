"""What forward passes run under: float32, or torch's autocast to bfloat16, on CPUs without it too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: What `autocast` and `train` take as `precision`.
PRECISIONS = ("float32", "bfloat16")
# What torch's autocast gives bfloat16 operands, as far as it is called from Python.
_PRODUCTS = frozenset(
    {
        *(F.linear, F.conv1d, F.conv2d, F.conv3d),
        *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(torch.conv1d, torch.conv2d, torch.conv3d),
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum),
        *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm),
        *(Tensor.addmm, Tensor.baddbmm),
    }
)


@contextlib.contextmanager
def autocast(device: torch.device, precision: str, *, mapped: bool = False) -> Iterator[None]:
    """What forward passes and losses run under; "float32" also shuts out a caller's own autocast.

    Args:
        device: Where they run.
        precision: One of `PRECISIONS`.
        mapped: Whether they run under `torch.func.vmap`, which takes convolutions in float32 whatever
            autocast says, and mixes no precisions in a batch norm. Default: False.

    On CPUs without bfloat16 instructions torch's own products of bfloat16 matrices and images take ten times
    as long as float32's. There the products are taken in float32, of operands and with results rounded to
    bfloat16: what the instructions compute, up to the order of their float32 sums.
    """
    with contextlib.ExitStack() as stack:
        lower = precision == "bfloat16"
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=lower))
        if lower and device.type == "cpu" and not mapped and not has_bfloat16():
            stack.enter_context(RoundedProducts())
        yield


class RoundedProducts(TorchFunctionMode):
    """Products on the CPU under autocast to bfloat16, taken in float32 between roundings to bfloat16."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not _casts():
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            product = func(*map(_rounded, args), **{key: _rounded(value) for key, value in kwargs.items()})
        return product.to(torch.bfloat16) if product.dtype == torch.float32 else product


def _rounded(value: Any) -> Any:
    """A float32 or bfloat16 tensor on the CPU as float32 with bfloat16's values; others as they are."""
    if isinstance(value, Tensor) and value.is_cpu and value.dtype in (torch.float32, torch.bfloat16):
        return value.to(torch.bfloat16).to(torch.float32)
    return value


def _casts() -> bool:
    """Whether autocast is on: a model may have switched it off for a part of itself."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


@functools.cache
def has_bfloat16() -> bool:
    """Whether oneDNN, which computes torch's products on a CPU, has bfloat16 kernels for this one."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())
