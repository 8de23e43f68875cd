"""A CUDA device that is not there: its tensors hold no numbers, and say where a program would wait for it.

torch's own fake tensors carry shapes, dtypes and devices through any operation. Here those on "cuda" are fake
and those on the CPU are real, so that a whole training run goes through. Three things are added:

- Two devices in one operation are an error, as on a GPU.
- Whatever waits for the device is noted with the line that asked for it, and answered with a constant.
- Generators on "cuda" and gradients work, which fake tensors alone can't do without a GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_CODE = [Path(__file__).parent, Path(__file__).parents[1] / "optevo"]
#: Sizes or values of their results are known on the device alone.
_DEPENDS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)
#: Written in place, and without a fake in torch.
_NO_FAKE = (aten._fused_sgd_.default,)
_COPIES = (aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default)


class DeviceMismatchError(RuntimeError):
    """Tensors of two devices met in one operation."""


@dataclass(frozen=True)
class Wait:
    """One time that the host waited for the device.

    Attributes:
        what: The operation.
        where: "module.function" of the innermost frame of optevo or of the tests.
        line: The line in it.
        step: How many steps had begun.
    """

    what: str
    where: str
    line: int
    step: int


class FakeCuda:
    """The device, while `rehearsing` is entered.

    Attributes:
        waits: Every wait so far.
        answer: What whoever reads from the device finds in every place.
        step: Of the run in progress; `begin_step` counts it.
    """

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.answer: float = 0
        self.step = 0

    def begin_step(self) -> None:
        """To be called at the start of every step, as the `check` of a run."""
        self.step += 1

    def places(self) -> Counter[str]:
        """How often each function waited, and restart the list."""
        found = Counter(wait.where for wait in self.waits)
        self.waits.clear()
        return found

    def wait(self, what: str) -> None:
        """Note a wait, and who asked for it."""
        frame = sys._getframe(1)
        while frame.f_back is not None:
            path = Path(frame.f_code.co_filename)
            if path.name != Path(__file__).name and any(path.is_relative_to(folder) for folder in _CODE):
                break
            frame = frame.f_back
        where = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
        self.waits.append(Wait(what, where, frame.f_lineno, self.step))


@contextlib.contextmanager
def rehearsing(patch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """Within it, "cuda" is a fake device on any machine."""
    cuda = FakeCuda()
    patch.setattr(torch, "Generator", _Generator)
    patch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    patch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    patch.setattr(torch.cuda, "synchronize", lambda device=None: cuda.wait("synchronize"))
    # Autocast asks both whether there is a GPU that has it.
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)
    # torch's own reads number by number.
    patch.setattr(FakeTensor, "tolist", lambda tensor: tensor.cpu().tolist())
    # For `Module.to`; torch's own refuses tensors with weak references to them, and the fake mode keeps some.
    patch.setattr(torch.utils, "swap_tensors", lambda old, new: setattr(old, "data", new))
    # Optimizers choose by the tensors' class what they do on a GPU.
    patch.setattr(
        importlib.import_module("torch.optim.optimizer"),
        "_foreach_supported_types",
        [Tensor, torch.nn.Parameter, FakeTensor],
    )
    patch.setattr(FakeTensor, "__format__", lambda tensor, spec: format(tensor.tolist(), spec))
    patch.setattr(FakeTensor, "__repr__", lambda tensor: f"tensor({tensor.tolist()})")
    with FakeTensorMode(allow_non_fake_inputs=True), _Functions(), _Operations(cuda):
        yield cuda


class _Generator(torch.Generator):
    """One "on cuda" says so; what draws from it is fake and reads no state."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        fake = torch.device(device).type == "cuda"
        generator = super().__new__(cls, "cpu" if fake else device)
        generator._device = CUDA if fake else torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self._device


class _Functions(TorchFunctionMode):
    """What has to be answered before torch looks for a real device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ANSWERS:
            return _ANSWERS[func](*args, **kwargs)
        if kwargs.pop("pin_memory", False):
            return _pinned(func(*args, **kwargs))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        generator = kwargs.get("generator")
        if generator is None:
            return func(*args, **kwargs)
        if generator.device.type == "cuda":
            del kwargs["generator"]
        drawn = func(*args, **kwargs)
        if drawn.device.type != generator.device.type:
            raise DeviceMismatchError(f"{func}: a generator on {generator.device} for {drawn.device}")
        return drawn


def _pinned(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu":
        raise RuntimeError("only tensors on the CPU can be pinned")
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


class _Operations(TorchDispatchMode):
    """Fakes what is on "cuda", runs what is on the CPU, and notes waits."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self.cuda = cuda

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        device = kwargs.get("device")
        if not any(isinstance(x, FakeTensor) for x in tensors) and (
            device is None or torch.device(device).type != "cuda"
        ):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func not in _COPIES and func not in _INDEXING:
            _check_devices(func, tensors, args)
        if func in _NO_FAKE:
            return None
        waits = _waits(func, args, kwargs)
        if waits:
            self.cuda.wait(func.name())
        if func in (aten.copy_.default, *_INDEXING[1:]) and isinstance(args[0], FakeTensor):
            return args[0]
        if not waits or (device is not None and torch.device(device).type == "cuda"):
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            found = func(*tree_map(self._read, args), **tree_map(self._read, kwargs))
        return found if func in _COPIES else tree_map(_on_device, found)

    def _read(self, x: Any) -> Any:
        """What is found where a fake tensor is read."""
        if isinstance(x, FakeTensor):
            return torch.full(x.shape, self.cuda.answer, dtype=x.dtype)
        return x


def _on_device(x: Any) -> Any:
    """A fake tensor like `x`; what is no tensor as it is."""
    return torch.empty(x.shape, dtype=x.dtype, device=CUDA) if isinstance(x, Tensor) else x


def _check_devices(func: torch._ops.OpOverload, tensors: list[Tensor], args: tuple[Any, ...]) -> None:
    written = [
        x
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.is_write
        for x in tree_leaves(value)
    ]
    for x in tensors:
        # A number on the CPU is an argument of the kernel, but nothing can be written to it.
        if x.device.type == "cpu" and (x.dim() > 0 or any(x is y for y in written)):
            raise DeviceMismatchError(f"{func.name()}: a tensor of shape {tuple(x.shape)} is on the CPU")


def _waits(func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation on fake tensors waits."""
    if func in _INDEXING:
        indices = [x for x in args[1] if x is not None]
        return any(x.dtype in (torch.bool, torch.uint8) or x.device.type == "cpu" for x in indices)
    if func is aten._to_copy.default:
        target = torch.device(kwargs.get("device") or args[0].device)
        return target.type != args[0].device.type and not _overlaps(args[0], kwargs.get("non_blocking"))
    if func in (aten.copy_.default, aten._foreach_copy_.default):
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking")
        pairs = zip(tree_leaves(args[0]), tree_leaves(args[1]), strict=True)
        return any(to.device != x.device and not _overlaps(x, non_blocking) for to, x in pairs)
    return any(tag in func.tags for tag in _DEPENDS) or func is aten._linalg_check_errors.default


def _overlaps(source: Tensor, non_blocking: bool | None) -> bool:
    """Whether a copy between devices leaves the host free: asked for, and out of pinned memory."""
    return bool(non_blocking) and hasattr(source, "pinned")


def _backward(loss: Tensor, gradient: Tensor | None = None, *, create_graph: bool = False, **_: Any) -> None:
    for leaf, grad in gradients([loss], [gradient], create_graph).items():
        leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def _grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    materialize_grads: bool = False,
    **_: Any,
) -> tuple[Tensor | None, ...]:
    roots = tree_leaves(outputs)
    outer = [None] * len(roots) if grad_outputs is None else tree_leaves(grad_outputs)
    found = gradients(roots, outer, create_graph)
    unused = torch.zeros_like if materialize_grads else lambda leaf: None
    return tuple(found[leaf] if leaf in found else unused(leaf) for leaf in tree_leaves(inputs))


def gradients(
    roots: Sequence[Tensor], outer: Sequence[Tensor | None], create_graph: bool = False
) -> dict[Tensor, Tensor]:
    """The gradient of each leaf: torch's engine, which needs a real device, in Python."""
    gathered: dict[Any, dict[int, Tensor]] = {}
    found: dict[Tensor, Tensor] = {}
    for root, grad in zip(roots, outer, strict=True):
        slots = gathered.setdefault(root.grad_fn, {})
        _add(slots, root.output_nr, torch.ones_like(root) if grad is None else grad)
    with torch.set_grad_enabled(create_graph):
        for node in _sorted([root.grad_fn for root in roots]):
            grads = gathered.pop(node, {})
            if not grads:
                continue
            given = [_fitted(grads.get(i), meta) for i, meta in enumerate(node._input_metadata)]
            if hasattr(node, "variable"):
                found[node.variable] = given[0]
                continue
            python = isinstance(node, torch.autograd.function.BackwardCFunction)
            results = node.apply(*given) if python else node(*given)
            results = results if isinstance(results, tuple) else (results,)
            for result, (following, number) in zip(results, node.next_functions, strict=True):
                if following is not None and result is not None:
                    _add(gathered.setdefault(following, {}), number, result)
    return found


def _add(slots: dict[int, Tensor], number: int, grad: Tensor) -> None:
    slots[number] = slots[number] + grad if number in slots else grad


def _fitted(grad: Tensor | None, meta: Any) -> Tensor | None:
    """A gradient of the shape and dtype of what it is of, as torch's engine hands it on."""
    if grad is None:
        return None
    if grad.device != meta.device:
        raise DeviceMismatchError(f"a gradient on {grad.device} for a tensor on {meta.device}")
    return grad.sum_to_size(meta.shape).to(meta.dtype)


def _sorted(roots: Sequence[Any]) -> list[Any]:
    """The nodes of a graph, each before those that its results go to."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, left = stack.pop()
        if left:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following is not None)
    return order[::-1]


_ANSWERS: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.backward: _backward,
    torch.autograd.grad: _grad,
    Tensor.pin_memory: _pinned,
    Tensor.is_pinned: lambda tensor: hasattr(tensor, "pinned"),
}
