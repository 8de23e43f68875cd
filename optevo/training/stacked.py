"""Several candidates on one task with one seed, trained as one stacked model.

They share the initial weights, the batches and the dropout masks, so one forward and backward pass with a
leading dimension of K does the work of K; their rules step as one, see `optevo.optim.candidate.Stacked`.
Networks that are chains of dense layers go through `torch.baddbmm`; all others through
`torch.func.vmap`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.conv import _ConvNd

from optevo.tasks.base import Task
from optevo.training.dense import CrossEntropy, chain, logits
from optevo.training.fitness import tenths
from optevo.training.precision import autocast
from optevo.training.run import Run
from optevo.training.single import (
    LOOK_EVERY,
    finish,
    generator_for,
    isolated,
    loss_limit,
    not_fine,
)

if TYPE_CHECKING:
    from optevo.optim.candidate import Stacked
    from optevo.tasks.base import Split
    from optevo.training.base import OnPoint

Batch = tuple[Tensor, Tensor]
SMALL = 100_000  # parameters


def stacks(task: Task, device: torch.device) -> bool:
    """Whether a task can be stacked, and gains by it on a device.

    A CPU gains where a model is so small that calls cost more than sums. A stacked convolution is a grouped
    one, which it computes slowly: eight SmallCNNs took 1.4 s a step stacked and 0.5 s one by one.
    """
    model = task.model(torch.Generator().manual_seed(0))
    weights = list(model.parameters())
    if len(weights) < len(list(model.named_parameters(remove_duplicate=False))):
        return False  # `functional_call` would part what is tied
    convolves = any(isinstance(module, _ConvNd) for module in model.modules())
    return device.type == "cuda" or (not convolves and sum(w.numel() for w in weights) <= SMALL)


def train_stacked(
    task: Task,
    splits: dict[str, Split],
    rules: Callable[[Tensor], Stacked],
    count: int,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    split: str = "validation",
    precision: str = "float32",
    on_points: Sequence[OnPoint] = (),
    check: Callable[[], None] = lambda: None,
) -> list[Run]:
    """Train a fresh model a candidate and score each; what `train` does, but for rounding.

    (And but for a parameter that gets no gradient, whose weights and moments decay here.)

    Args:
        task: What to train.
        splits: Its data, all on the device to train on.
        rules: Makes the candidates' rules, as one, for weights of shape (K, P).
        count: K, how many candidates.
        seed: Of the runs.
        steps: Mini-batches.
        batch_size: Examples a mini-batch. Default: 128.
        split: Which part is scored. Default: "validation".
        precision: "float32", or "bfloat16" for autocast. Default: "float32".
        on_points: What `train` calls on_point, of each candidate. Default: none.
        check: Called every step; what it raises ends the runs.

    Returns:
        A run each, in order. Their `seconds` are the stack's, shared out. Where a candidate diverges or is
        ended, the others go on; a diverged one counts the steps up to the look that found it.
    """
    start, device = time.perf_counter(), splits["train"].device
    with isolated(task.name, seed, device):
        model = task.model(generator_for(torch.device("cpu"), task.name, seed, "model")).to(device).train()
        stack = _Stack(task, model, count, rules, precision)
        batches = task.batches(splits["train"], batch_size, generator_for(device, task.name, seed, "batches"))
        losses = torch.zeros(steps, count, device=device)
        diverged_at: dict[int, int] = {}
        taken = [steps] * count
        looked, marks = 0, tenths(steps)
        ended, gone = set[int](), set[int]()
        for step in range(1, steps + 1):
            check()
            losses[step - 1].index_copy_(0, stack.numbers, stack.step(next(batches)))
            if step % LOOK_EVERY == 0 or step in marks:
                bad = not_fine(losses[looked:step], loss_limit(task))
                for k in bad.any(dim=0).nonzero().flatten().tolist():
                    diverged_at[k], taken[k] = looked + int(bad[:, k].nonzero()[0]), step
                looked = step
                if on_points and step in marks[:-1]:
                    tenth = losses[[0, *marks][marks.index(step)] : step].T.tolist()
                    for k in stack.rows:
                        if k not in diverged_at and on_points[k](step, sum(tenth[k]) / len(tenth[k])):
                            taken[k] = step
                            ended.add(k)
                gone = ended | diverged_at.keys()
                if len(gone) == count:
                    break
                stack.drop(gone)
        runs = [
            finish(
                task=task,
                model=model if k in gone else stack.member(k),
                split=splits[split],
                losses=losses[:, k],
                seed=seed,
                taken=taken[k],
                diverged_at=diverged_at.get(k),
                precision=precision,
            )
            for k in range(count)
        ]
    seconds = (time.perf_counter() - start) / count
    return [dataclasses.replace(run, seconds=seconds) for run in runs]


class _Stack:
    """K copies of a model, their rules and their moments, each row of a matrix one copy."""

    def __init__(
        self, task: Task, model: nn.Module, k: int, rules: Callable[[Tensor], Stacked], precision: str
    ) -> None:
        self.model, self.precision = model, precision
        self.loss, self.dense = _Loss(task, model), chain(task, model)
        trained = [(name, p) for name, p in self.loss.named_parameters() if p.requires_grad]
        self.names, self.trained = [name for name, _ in trained], [p for _, p in trained]
        initial = [p.detach() for p in self.trained]
        flat = torch.cat([p.reshape(-1) for p in initial]).expand(k, -1)
        self.rules = rules(flat)  # of all copies
        self.buffers = {name: b.expand(k, *b.shape).clone() for name, b in self.loss.named_buffers()}
        self.rows = list(range(k))  # the candidates' numbers, and the same on the device
        self.numbers = torch.arange(k, device=flat.device)
        self._lay_out(flat.contiguous())

    def _lay_out(self, flat: Tensor) -> None:
        """Weights of shape (K, P), and the copies' parameters as views of them."""
        self.flat = flat
        self.leaves = [
            piece.view(len(flat), *p.shape).detach().requires_grad_()
            for piece, p in zip(
                flat.split([p.numel() for p in self.trained], dim=1), self.trained, strict=True
            )
        ]
        self.grads = torch.empty_like(flat)

    def drop(self, numbers: Collection[int]) -> None:
        """Go on without these candidates: a row that diverged costs as much as any."""
        kept = [i for i, k in enumerate(self.rows) if k not in numbers]
        if len(kept) == len(self.rows):
            return
        self.rows, rows = [self.rows[i] for i in kept], torch.tensor(kept, device=self.flat.device)
        self.numbers = self.numbers[rows]
        self.rules.keep(rows)
        self.buffers = {name: buffer[rows] for name, buffer in self.buffers.items()}
        self._lay_out(self.flat[rows])

    def step(self, batch: Batch) -> Tensor:
        """One training step of every copy; returns their losses, shape (K,)."""
        with autocast(batch[0].device, self.precision, mapped=not self._is_dense(batch)):
            losses = self.forward(batch)
        gradients = torch.autograd.grad(losses.sum(), self.leaves, allow_unused=True, materialize_grads=True)
        torch.cat([g.flatten(1) for g in gradients], dim=1, out=self.grads)
        self.rules.step(self.flat, self.grads)
        return losses.detach().float()

    def forward(self, batch: Batch) -> Tensor:
        """The K losses of one batch."""
        if self.dense is not None and self._is_dense(batch):
            losses: Tensor = CrossEntropy.apply(logits(self.dense, self.leaves, batch[0]), batch[1])
            return losses
        if batch[0].is_cuda:
            # On channels_last, cuDNN's batch norm asks for the layout, and `vmap` refuses to say.
            batch = batch[0].contiguous(), batch[1]

        def loss(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            one: Tensor = functional_call(self.loss, (params, buffers), (batch,))
            return one

        named = dict(zip(self.names, self.leaves, strict=True))
        return vmap(loss, randomness="same")(named, self.buffers)

    def _is_dense(self, batch: Batch) -> bool:
        """Whether a batch is one for `dense`'s formulas; others go through `vmap`."""
        return self.dense is not None and batch[1].dim() == 1 and batch[1].dtype == torch.int64

    def member(self, number: int) -> nn.Module:
        """The model with the weights of a candidate that was not dropped, until the next call."""
        k = self.rows.index(number)
        with torch.no_grad():
            for p, leaf in zip(self.trained, self.leaves, strict=True):
                p.copy_(leaf[k])
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self.buffers[f"model.{name}"][k])
        return self.model


class _Loss(nn.Module):
    """A task's loss of its model as a module, so that `functional_call` can lend it other weights."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch) -> Tensor:
        return self.task.loss(self.model, batch)
