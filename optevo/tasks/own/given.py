"""A model and data that a Python program gives as they are: a task without a class.

It lives in the program that gave it: no other process can make it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, TensorDataset

from optevo.errors import UserError
from optevo.tasks import GIVEN
from optevo.tasks.base import Split, Splits, Task, evaluating
from optevo.tasks.layers import Dropout

#: By what its study stores of it, the tasks of this process.
_here: dict[tuple[str, ...], Callable[[], Task]] = {}
VALIDATION = 0.15  # share of the training data where no validation data are given

Loss = str | Callable[[Tensor, Tensor], Tensor]
Metric = str | Callable[[Tensor, Tensor], Any]


def give(
    name: str,
    model: Callable[[], nn.Module],
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    loss: Loss = "cross_entropy",
    metric: Metric = "accuracy",
) -> dict[str, Any]:
    """Make a task of a model and data, and keep it as long as this process lives.

    Args:
        name: Of the task.
        model: Makes a fresh network. What it draws comes from torch's global generator, which is seeded for
            it; a plain `nn.Dropout` in it is replaced by one that can be repeated.
        train: Examples: a pair of tensors or arrays, a `Split`, a map-style data set of pairs or a loader of
            one. They are read once; what a data set draws at random is drawn once, too.
        validation: The same. Default: None, a share of `VALIDATION` of the training examples.
        test: The same. Default: None, and nothing can be measured on it.
        loss: A name, or of a batch's outputs and targets their mean loss. Default: "cross_entropy".
        metric: A name, or of all outputs and targets a number, the higher the better. Default: "accuracy".

    Returns:
        The entry of ``evaluation.tasks`` that names it.

    Raises:
        UserError: The model is none or can't be made, or the data have no examples that fit together.
    """
    if isinstance(model, nn.Module) or not callable(model):
        raise UserError(
            "model: give a function that makes one, such as lambda: MyNetwork(); each run begins with new "
            f"weights, not with those of one {type(model).__name__}"
        )
    options = {
        "title": name,
        "model": _digest_of(_make(model, torch.Generator().manual_seed(0))),
        "loss": loss if isinstance(loss, str) else _name(loss),
        "metric": metric if isinstance(metric, str) else _name(metric),
    }
    splits = _splits(train, validation, test)
    kind = type("Given", (_Given,), {"loss": loss} if isinstance(loss, str) else {})
    _here[tuple(options.values())] = lambda: kind(name, model, splits, loss, metric)
    return {"name": GIVEN, "options": options}


def given(title: str, model: str, loss: str, metric: str) -> Task:
    """The task that this process was given under that name, with a model of that digest.

    Raises:
        UserError: It was not: another process was.
    """
    make = _here.get((title, model, loss, metric))
    if make is None:
        raise UserError(
            f"task {title!r} is a model and data of the Python program that began the study: call "
            "optevo.search there again, with the same model and data"
        )
    return make()


class _Given(Task):
    """See `give`."""

    def __init__(
        self, name: str, make: Callable[[], nn.Module], splits: Splits, loss: Loss, metric: Metric
    ) -> None:
        self.name, self._make, self._splits, self._loss = name, make, splits, loss
        self._metric = metric
        if isinstance(metric, str):
            self.metric = metric
        else:
            self.metric, self.bonus = _name(metric), False
        if not isinstance(loss, str):
            self.bonus = False
            self.max_loss = float("inf")
            self.loss = self._own_loss  # type: ignore[method-assign]
        # Of the data that the search sees; test data may be given later.
        self.identity = _digest(*(one for key in ("train", "validation") for one in _tensors(splits[key])))

    def load(self, root: Path) -> Splits:
        """Those that were given."""
        return dict(self._splits)

    def model(self, generator: torch.Generator) -> nn.Module:
        """A fresh one, made with a seed drawn from `generator`."""
        return _make(self._make, generator)

    def _own_loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert not isinstance(self._loss, str)
        return self._loss(model(batch[0]), batch[1])

    def score(self, model: nn.Module, split: Split) -> float:
        """By the metric that was given: of all outputs at once where it is a function."""
        if isinstance(self._metric, str):
            return super().score(model, split)
        with evaluating(model):
            parts = split.inputs.split(self.score_batch_size)
            outputs = torch.cat([model(self.prepare(part.to(split.device))) for part in parts])
            return float(self._metric(outputs, split.targets))


class _NoTest:
    """In the place of test data that were not given."""

    @property
    def targets(self) -> Tensor:
        raise UserError("no test data were given: optevo.search(…, test=…)")


def _make(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**62, (), generator=generator))
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        model = make()
    if not isinstance(model, nn.Module):
        raise UserError(f"model: the function returned a {type(model).__name__}, not a torch.nn.Module")
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
            elif isinstance(child, _DropoutNd):
                raise UserError(
                    f"model: {type(child).__name__} draws from torch's global generator, so runs could not "
                    "be repeated; use torch.nn.Dropout or optevo.tasks.Dropout"
                )
    for module in model.modules():
        if isinstance(module, Dropout):
            module.initialise(generator)
    return model.to("cpu").train()


def _splits(train: Any, validation: Any, test: Any) -> Splits:
    whole = _split("train", train)
    if validation is None:
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        kept = len(whole) - max(1, round(VALIDATION * len(whole)))
        if kept < 1:
            raise UserError(f"train: {len(whole)} examples are too few to keep some for validation")
        parts = [Split(whole.inputs[some], whole.targets[some]) for some in (order[:kept], order[kept:])]
    else:
        parts = [whole, _split("validation", validation)]
    last: Any = _NoTest() if test is None else _split("test", test)
    return {"train": parts[0], "validation": parts[1], "test": last}


def _split(what: str, data: Any) -> Split:
    """Examples as tensors, read once."""
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Split):
        found = data.to("cpu")
    elif isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data)):
        found = _pair(what, *(torch.as_tensor(np.asarray(one) if _foreign(one) else one) for one in data))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        found = _read(what, data)
    else:
        raise UserError(
            f"{what} is a {type(data).__name__}: give two tensors, inputs and targets, or a map-style data "
            "set of such pairs, which has __len__ and __getitem__"
        )
    if not len(found):
        raise UserError(f"{what} has no examples")
    return found


def _read(what: str, data: Any) -> Split:
    inputs, targets = [], []
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)  # as above
        for i in range(len(data)):
            example = data[i]
            if not isinstance(example, tuple | list) or len(example) != 2:
                raise UserError(f"{what}: example {i} is no pair of input and target")
            inputs.append(_tensor(example[0]))
            targets.append(_tensor(example[1]))
    for name, found in (("input", inputs), ("target", targets)):
        odd = next((i for i, one in enumerate(found) if one.shape != found[0].shape), None)
        if odd is not None:
            raise UserError(
                f"{what}: the {name} of example {odd} has shape {tuple(found[odd].shape)}, that of example 0 "
                f"{tuple(found[0].shape)}: have the data set make them alike, such as by a transform"
            )
    if not inputs:
        raise UserError(f"{what} has no examples")
    return _pair(what, torch.stack(inputs), torch.stack(targets))


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    array = np.array(value)
    if array.ndim == 3 and hasattr(value, "getbands"):  # an image of Pillow's: channels come first here
        array = array.transpose(2, 0, 1)
    elif array.ndim == 2 and hasattr(value, "getbands"):
        array = array[None]
    return torch.as_tensor(array)


def _pair(what: str, inputs: Tensor, targets: Tensor) -> Split:
    if len(inputs) != len(targets):
        raise UserError(f"{what} has {len(inputs)} inputs but {len(targets)} targets")
    inputs, targets = inputs.detach().cpu(), targets.detach().cpu()
    inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
    whole = not targets.is_floating_point()
    return Split(inputs, targets.long() if whole else targets.float())


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or _foreign(value)


def _foreign(value: Any) -> bool:
    """Whether something not torch's or NumPy's is an array, such as a frame's column."""
    return not isinstance(value, Tensor) and hasattr(value, "__array__")


def _tensors(split: Split) -> Sequence[Tensor]:
    return split.inputs, split.targets


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for one in tensors:
        digest.update(f"{one.dtype} {tuple(one.shape)}".encode())
        digest.update(one.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest_of(model: nn.Module) -> str:
    """Of a network as far as it can be told from outside: its modules, its parameters' names and shapes."""
    held = itertools.chain(model.named_parameters(), model.named_buffers())
    said = [repr(model), *(f"{name} {one.dtype} {tuple(one.shape)}" for name, one in held)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__).strip("<>")
