"""A task tried once before a search: what is wrong with it is told in a message, not by every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from optevo.errors import UserError
from optevo.tasks.base import Split, Task
from optevo.tasks.faults import is_users, users_code, users_number
from optevo.training.precision import autocast
from optevo.training.single import isolated, loss_limit

Batch = tuple[Tensor, Tensor]


def rehearse(task: Task, splits: Mapping[str, Split], *, batch_size: int, split: str, precision: str) -> int:
    """One forward pass of a task; of a user's, a backward pass and a score too.

    Args:
        task: Which.
        splits: Its data, on the device to train on.
        batch_size: Examples a mini-batch.
        split: Which part is scored.
        precision: As in `optevo.training.single.train`.

    Returns:
        Floating-point operations of the forward pass.

    Raises:
        UserError: The batch size doesn't fit the data, or a user's task has a fault.
    """
    name, device = f"task {task.name!r}", splits["train"].device
    with isolated(task.name, 0, device):
        model = _model(task, name, device)
        generator = torch.Generator(device).manual_seed(0)
        with users_code(f"{name}: batches()", task, lambda: f"; {_split('train', splits['train'])}"):
            batch = next(iter(task.batches(splits["train"], batch_size, generator)))

        def given() -> str:
            return _given(task, model, batch, splits["train"])

        with users_code(f"{name}: loss()", task, given):
            precise, counter = autocast(device, precision), FlopCounterMode(display=False)
            with torch.no_grad(), precise, counter:
                task.loss(model, batch)
            if is_users(task):
                with autocast(device, precision):
                    loss = task.loss(model, batch)
                _check_loss(task, loss, model, batch)
        if is_users(task):
            with autocast(device, precision):
                _score(task, model, split, splits[split])
    return counter.get_total_flops()


def _model(task: Task, name: str, device: torch.device) -> nn.Module:
    with users_code(f"{name}: model()", task):
        model = task.model(torch.Generator().manual_seed(0))
        if not isinstance(model, nn.Module):
            raise UserError(f"it returned a {type(model).__name__}, not a torch.nn.Module")
    with users_code(f"{name}: moving the model to {device}", task):
        model = model.to(device)
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.device.type != device.type:
                raise UserError(f"{key!r} stays on {tensor.device}")
    return model


def _check_loss(task: Task, loss: object, model: nn.Module, batch: Batch) -> None:
    """Whether a loss can be trained with.

    Raises:
        UserError: It can't.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UserError(
            f"it returned {_told(loss)}, not one number as a tensor, such as a mean over the batch"
        )
    if not loss.requires_grad:
        raise UserError(
            "what it returned has no graph to differentiate: no .item(), no .detach(), no no_grad"
        )
    value, limit = loss.item(), loss_limit(task)
    if not value <= limit or math.isinf(value):
        raise UserError(
            f"of the untrained model it is {value:g}, so that every run would count as diverged; "
            f"the class's max_loss, now {limit:g}, says from where on"
        )
    if type(task).loss is Task.loss:
        _check_classes(batch[1], model(batch[0]))
    loss.backward()


def _check_classes(targets: Tensor, outputs: Tensor) -> None:
    """Whether targets are what cross-entropy takes them for.

    Raises:
        UserError: They are numbers to regress on, which it would take for probabilities.
    """
    if outputs.dim() > 1 and outputs.shape[1] == 1:
        raise UserError("cross-entropy over a single class is always 0")
    if targets.is_floating_point():
        sums = targets.sum(dim=1)
        if bool((targets < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            raise UserError("cross-entropy takes float targets for probabilities, and these are none")


def _score(task: Task, model: nn.Module, key: str, split: Split) -> None:
    what = f"task {task.name!r}: score()"
    if type(task).score is Task.score:  # which takes any part of a split as well as the whole
        first = slice(task.score_batch_size)
        split = Split(split.inputs[first], split.targets[first], split.streamed)

    def given() -> str:
        known = 'metric = "accuracy", "r2", "-mse" or "-perplexity"'
        return f"; {_split(key, split)}; override score(), or name a metric in the class: {known}"

    with users_code(what, task, given):
        metric = task.score(model, split)
    users_number(what, metric)


def _given(task: Task, model: nn.Module, batch: Batch, split: Split) -> str:
    """What a loss was given, and what to do."""
    try:
        with torch.no_grad():
            returned = _told(model(batch[0]))
    except Exception:  # which may be what the loss has met
        returned = "nothing, it raises"
    hint = "override loss()"
    if type(task).loss is Task.loss:
        hint = (
            "the loss is cross-entropy, of targets that are int64 class numbers; for a regression write "
            'loss = "mse" and metric = "r2" in the class, or override loss() and score()'
        )
    elif task.other_loss:
        hint = "make outputs and targets one shape, or override loss()"
    batches = f"a batch of it {_told(batch)}, for which the model returns {returned}"
    return f"; {_split('train', split)}, {batches}; {hint}"


def _split(key: str, split: Split) -> str:
    return f"split {key!r} has inputs {_told(split.inputs)} and targets {_told(split.targets)}"


def _told(value: object) -> str:
    """A value as dtype, shape and device."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
    if isinstance(value, tuple):
        return " and ".join(map(_told, value))
    return f"a {type(value).__name__}"
