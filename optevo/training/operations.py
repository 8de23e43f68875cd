"""Floating-point operations of a training step, the update's own included: counted, not timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from optevo.optim.eager import EAGER
from optevo.tasks.roots import data_root
from optevo.training.base import Operations
from optevo.training.precision import autocast
from optevo.training.single import NUMERICAL, backward, generator_for, isolated, parameters

if TYPE_CHECKING:
    from optevo.optim.candidate import Candidate
    from optevo.tasks.base import Split, Task

COUNTED = 10  # updates after the first; some optimizers have one in ten that is dearer, as SOAP and Sophia
ADAMW = 8  # operations a parameter of torch's AdamW, see `_fused_adam`
_HORIZON = 1000  # steps that schedules are made for, so that a count is that of any run


def operations_a_step(
    task: Task, candidate: Candidate, batch_size: int, split: Split | None = None
) -> Operations:
    """Count one training step: forward, backward and the candidate's own update.

    On the CPU, in float32, with one real batch and its gradient. The first update, which makes the state, is
    not counted; of the ten after it the mean is taken. So the count is the same on every machine, whatever
    device and precision the study has. Counted are

    - matrix products, convolutions and attention by the formulas of `torch.utils.flop_counter`: two
      operations a multiplication with its addition;
    - decompositions by the usual estimates (Golub and Van Loan, *Matrix Computations*): 9n³ for the
      eigenvectors of a symmetric matrix and so on;
    - a reduction, such as a sum or a norm, by the elements that it reads;
    - everything else by the elements that it writes, one each, whatever it computes of them; of torch's lists
      of tensors, all of them;
    - torch's fused optimizers as what their unfused forms write: AdamW 8 a parameter;
    - views, copies, fills and new tensors, integers and single numbers: nothing.

    Nothing is compiled, no global generator is read or left changed.

    Args:
        task: What is trained.
        candidate: Builds the optimizer.
        batch_size: Examples a mini-batch.
        split: The training data, on any device. Default: None, the task loads it from the usual place.
    """
    if split is None:
        split = task.load(data_root())["train"]
    cpu = torch.device("cpu")
    with isolated(task.name, 0, split.device):
        generator = generator_for(split.device, task.name, 0, "batches")
        batch = next(iter(task.batches(split, batch_size, generator)))
        batch = batch[0].to(cpu), batch[1].to(cpu)
        model = task.model(generator_for(cpu, task.name, 0, "model")).to(cpu)
        model.train()

        def gradients(*, with_graph: bool) -> int:
            model.zero_grad(set_to_none=True)
            counter = OperationCounter()
            with autocast(cpu, "float32"), counter:
                backward(task.loss(model, batch), with_graph=with_graph)
            return counter.total

        of_model = gradients(with_graph=False)
        grads = {p: p.grad for p in model.parameters() if p.grad is not None}
        optimizer, scheduler = candidate.build(parameters(task, model, candidate), _HORIZON)
        every, counts = getattr(optimizer, "graph_every", 0), list[int]()
        for step in range(COUNTED + 1):
            if every and step % every == 0:
                gradients(with_graph=True)
            else:
                for p, grad in grads.items():
                    p.grad = grad.clone()  # an optimizer may work in its memory
            token = EAGER.set(True)
            try:
                with OperationCounter() as counter:
                    optimizer.step()
            except NUMERICAL:  # which would end a run, too
                break
            finally:
                EAGER.reset(token)
            counts.append(counter.total)
            scheduler.step()
        model.zero_grad(set_to_none=True)
    later = counts[1:] or counts
    adamw = ADAMW * sum(p.numel() for p in grads)
    # An update that failed at once trains nothing; it must not seem cheap.
    return Operations(of_model, round(sum(later) / len(later)) if later else adamw, adamw)


class OperationCounter(TorchDispatchMode):
    """Counts the operations that run under it, as `operations_a_step` says.

    Attributes:
        total: Those so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):
            return func(*args, **kwargs)
        if func._overloadpacket not in flop_registry:
            with self:  # one that is made of others is counted by those
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.total += _operations(func, args, kwargs, out)
        return out


def _operations(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if packet in _FORMULAS:
        return int(_FORMULAS[packet](*args, **kwargs))
    name = func._schema.name.removeprefix("aten::").removeprefix("_foreach_").rstrip("_")
    read = [t for t in _tensors((args, tuple(kwargs.values()))) if t.is_floating_point()]
    if func.is_view or name in _MOVES or name.endswith("_like") or not read:
        return 0
    if torch.Tag.reduction in func.tags or name == "norm":
        return sum(t.numel() for t in read if t.dim())
    written = [t for t in _tensors(out) if t.is_floating_point()]
    if not written:  # lists that are changed in place are not returned; comparisons return no floats
        changed = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written = list(_tensors(changed or out))
    return sum(t.numel() for t in written if t.dim())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)


# What only moves numbers, without "_foreach_" before its name and "_" after it.
_MOVES = frozenset(
    {
        *("copy", "_to_copy", "clone", "fill", "zero", "set", "resize", "alias", "detach"),
        *("lift_fresh", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "cat"),
        *("stack", "index_select", "index", "gather", "embedding", "slice_scatter", "select_scatter"),
        *("slice_backward", "select_backward", "constant_pad_nd", "repeat", "repeat_interleave"),
        *("flip", "roll", "tril", "triu", "_unsafe_view", "_reshape_alias", "_local_scalar_dense"),
        *("scatter", "index_put", "masked_fill", "pixel_shuffle"),
    }
)


def _elements(tensors: list[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _fused_adam(params: list[Tensor], *_: Any, **said: Any) -> int:
    """Both moments, root, correction, ε and step are seven; then decay, the greatest v, the sign."""
    return _elements(params) * (
        7 + bool(said["weight_decay"]) + bool(said["amsgrad"]) + bool(said["maximize"])
    )


def _fused_sgd(params: list[Tensor], *_: Any, **said: Any) -> int:
    averaging = 2 * bool(said["momentum"]) + bool(said["nesterov"])
    return _elements(params) * (1 + bool(said["weight_decay"]) + averaging + bool(said["maximize"]))


def _fused_adagrad(params: list[Tensor], *_: Any, **said: Any) -> int:
    return _elements(params) * (5 + bool(said["weight_decay"]) + bool(said["maximize"]))


def _product(_: Tensor, a: Tensor, b: Tensor, **__: Any) -> int:
    return 2 * a.numel() * b.shape[-1]


def _cubed(factor: float) -> Callable[..., float]:
    """A multiple of n³, for each n × n matrix."""
    return lambda a, *_, **__: factor * a.shape[-1] * a.numel()


def _orthogonalised(a: Tensor, *_: Any, **__: Any) -> float:
    """Householder's triangular factor of m × n matrices, and as much again for the orthogonal one."""
    n, m = sorted(a.shape[-2:])
    return 4 * n**2 * (m - n / 3) * math.prod(a.shape[:-2])


def _singular(a: Tensor, *_: Any, **__: Any) -> float:
    """Values and vectors of both sides of m × n matrices, by Golub and Reinsch."""
    n, m = sorted(a.shape[-2:])
    return (14 * m * n**2 + 8 * n**3) * math.prod(a.shape[:-2])


_aten = torch.ops.aten
# What `flop_registry` lacks and is more than its elements.
_FORMULAS: dict[Any, Callable[..., float]] = {
    _aten._fused_adam_: _fused_adam,
    _aten._fused_adamw_: _fused_adam,
    _aten._fused_sgd_: _fused_sgd,
    _aten._fused_adagrad_: _fused_adagrad,
    _aten.addmm_: _product,
    _aten.baddbmm_: _product,
    _aten.addbmm: _product,
    _aten.addbmm_: _product,
    _aten.mv: lambda a, _: 2 * a.numel(),
    _aten.addmv: lambda _, a, *__, **___: 2 * a.numel(),
    _aten.addmv_: lambda _, a, *__, **___: 2 * a.numel(),
    _aten.dot: lambda a, _: 2 * a.numel(),
    _aten._linalg_eigh: _cubed(9),
    _aten.linalg_inv_ex: _cubed(2),
    _aten.linalg_cholesky_ex: _cubed(1 / 3),
    _aten.linalg_qr: _orthogonalised,
    _aten._linalg_svd: _singular,
    _aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q.shape, k.shape, v.shape)
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape)
    ),
}
