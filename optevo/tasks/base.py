"""The contract between a task and whoever trains it: data, model, batches, loss, score."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.tasks.scoring import LOSSES, METRICS, canonical

#: The keys of what `Task.load` returns. Search and sweeps see the first two; "test" is for the end.
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One part of a data set, whole on one device.

    Attributes:
        inputs: First dimension: examples. Raw, e.g. uint8 (N, C, H, W) for images, as small as it gets.
        targets: As many entries as `inputs`; int64 class numbers (N,) for classification, floats (N,) or
            (N, k) for regression.
        streamed: Whether the inputs stay on the CPU wherever the split goes, as they are too large for a
            device: `Task.batches` and `Task.score` then take them there batch by batch. Default: False.

    Raises:
        UserError: The two differ in length or, unless streamed, in device.

    Example:
        >>> import torch
        >>> from optevo.tasks import Split
        >>> split = Split(inputs=torch.rand(100, 3), targets=torch.arange(100) % 2)
        >>> len(split)
        100
    """

    inputs: Tensor
    targets: Tensor
    streamed: bool = False

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise UserError(f"a split has {len(self.inputs)} inputs but {len(self.targets)} targets")
        if self.inputs.device != self.targets.device and not self.streamed:
            raise UserError(f"a split has inputs on {self.inputs.device}, targets on {self.targets.device}")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        return self.targets.device

    def to(self, device: torch.device | str) -> Split:
        """The same examples on another device."""
        inputs = self.inputs if self.streamed else self.inputs.to(device)
        return Split(inputs, self.targets.to(device), self.streamed)


Splits = dict[str, Split]


class Normalise:
    """(x - mean) / std for uint8 images, with mean and std a channel in units of the full range 0..1.

    Args:
        mean: One number a channel, or one for all.
        std: As many numbers as `mean`.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = mean, std
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (N, C, H, W) in channels_last, of uint8 (N, C, H, W)."""
        if images.device not in self._constants:  # making them anew each batch would sync a GPU each batch
            shape = (1, len(self.mean), 1, 1)
            mean = torch.tensor(self.mean, device=images.device).mul_(255).view(shape)
            scale = torch.tensor(self.std, device=images.device).mul_(255).reciprocal_().view(shape)
            self._constants[images.device] = mean, scale
        mean, scale = self._constants[images.device]
        # Channels last at the end: inner loops of 3 made it 1.0 ms instead of 0.25 for 128 of 3 x 32 x 32.
        normalised = images.to(torch.float32).sub_(mean).mul_(scale)
        return normalised.contiguous(memory_format=torch.channels_last)

    def __getstate__(self) -> dict[str, object]:
        return {"mean": self.mean, "std": self.std, "_constants": {}}


class Task(abc.ABC):
    """Data, model and metric: what one run trains and scores.

    The built-in tasks and a user's own implement the same contract. The least one is a subclass with `load`
    and `model`; everything else has a default that suits classification::

        import torch
        from torch import nn
        from optevo.tasks import Split, Task, build

        class Rings(Task):
            name = "rings"

            def load(self, root):
                generator = torch.Generator().manual_seed(0)
                points = torch.randn(3_000, 2, generator=generator)
                labels = (points.norm(dim=1) > 1.2).long()
                return {
                    "train": Split(points[:2_000], labels[:2_000]),
                    "validation": Split(points[2_000:2_500], labels[2_000:2_500]),
                    "test": Split(points[2_500:], labels[2_500:]),
                }

            def model(self, generator):
                return build(lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), generator)

    Saved as ``rings.py``, a study file names it ``rings:Rings``. A regression says ``loss = "mse"`` and
    ``metric = "r2"`` in the class, with float targets of the shape of what the model returns. Three promises
    make runs reproducible: `load` returns the same examples every time; `model`, `batches` and `augment` draw
    from the generator they are given and from nothing else, above all not from torch's global one; nothing in
    `batches` and `loss` waits for the device (no ``.item()``, no ``print`` of a tensor).

    Attributes:
        name: A short name, unique in a study; results are stored under it.
        loss: A method, or the name of a loss: "cross_entropy", "mse", "l1", "huber". Default "cross_entropy".
        metric: The name of a metric, "accuracy", "r2", "-mse" or "-perplexity" ("neg_mse" and
            "neg_perplexity" are the same); or, of a class with a `score` of its own, any word for tables.
            Default "accuracy". Higher is better, on whatever scale.
        bonus: Whether fitness is the published one, metric + 0.05 · max(0, 1 − training loss), or the metric
            alone. The published one suits a cross-entropy and a metric from 0 to 1. Default: None, the metric
            alone where a loss other than "cross_entropy" or a metric other than "accuracy" is named.
        max_loss: A training loss above it is divergence. Default: None, no limit where a loss other than
            "cross_entropy" is named, otherwise 50, as published.
        normalise: How `prepare` treats uint8 images. Default: to 0..1.
        score_batch_size: Examples a forward pass in `score`. Default 250: on one core twice as fast as 1,000.
        identity: A digest of the data, set by `load`: a study that is resumed with other data is refused.
            Default: none, and nothing is compared.
    """

    name: str
    metric: str = "accuracy"
    bonus: bool | None = None
    max_loss: float | None = None
    normalise: Normalise = Normalise((0.0,), (1.0,))
    score_batch_size: int = 250
    identity: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(loss := vars(cls).get("loss"), str):
            cls.loss = _named_loss(canonical("loss", loss, LOSSES, cls.__name__))  # type: ignore[method-assign]

    @property
    def has_bonus(self) -> bool:
        """What `bonus` says, or follows from the names of loss and metric."""
        if self.bonus is not None:
            return self.bonus
        return not self.other_loss and (type(self).score is not Task.score or self.metric == "accuracy")

    @property
    def other_loss(self) -> bool:
        """Whether a loss other than cross-entropy is named."""
        return hasattr(type(self).loss, "named")

    @abc.abstractmethod
    def load(self, root: Path) -> Splits:
        """Read the data.

        Args:
            root: The data root (`optevo.tasks.roots.data_root`). A task with its data elsewhere ignores it.

        Returns:
            "train", "validation" and "test", disjoint, on the CPU, the same every time.

        Raises:
            UserError: Data is missing or damaged.
        """

    @abc.abstractmethod
    def model(self, generator: torch.Generator) -> nn.Module:
        """A fresh network in training mode, on the CPU; the caller moves it.

        Args:
            generator: A CPU generator, the only source of initial weights and of the dropouts' seeds.
                `optevo.tasks.build` does both for ordinary modules.
        """

    def kinds(self, model: nn.Module) -> Mapping[str, str]:
        """Kinds of parameters by name, where shapes and positions don't tell.

        Some optimizers treat kinds differently: "convolution", "hidden", "vector", and "head", which is
        embeddings and the last layer. An embedding is a matrix like any other by its shape.

        Args:
            model: One that `model` has made.

        Returns:
            A kind for each name out of `model.named_parameters()` that needs one. Default: "head" for what
            an `nn.Embedding` holds.
        """
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        return {name: "head" for name, p in model.named_parameters() if id(p) in embedded}

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches without end: epochs of random permutations, an incomplete last batch dropped.

        Args:
            split: The examples.
            batch_size: Examples a batch.
            generator: On the split's device; draws the permutations and the augmentation.

        Yields:
            (inputs, targets) on the split's device, ready for the model.

        Raises:
            UserError: The split holds less than one batch.
        """
        check_batch(self.name, len(split), batch_size)
        while True:
            order = torch.randperm(len(split), generator=generator, device=split.device)
            places = order.to(split.inputs.device)  # once an epoch, where the inputs are streamed
            for start in range(0, len(split) - batch_size + 1, batch_size):
                chosen = slice(start, start + batch_size)
                inputs = split.inputs.index_select(0, places[chosen]).to(split.device)
                yield (
                    self.prepare(self.augment(inputs, generator)),
                    split.targets.index_select(0, order[chosen]),
                )

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Vary a raw training batch at random. Default: leave it as it is."""
        return inputs

    def prepare(self, inputs: Tensor) -> Tensor:
        """Raw to what the model takes. Default: normalise uint8 images to float32, leave all else alone."""
        if inputs.dtype == torch.uint8 and inputs.dim() == 4:
            return self.normalise(inputs)
        return inputs

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The training loss of one batch, a scalar that still has its graph. Default: mean cross-entropy."""
        inputs, targets = batch
        return LOSSES["cross_entropy"](model(inputs), targets)

    def score(self, model: nn.Module, split: Split) -> float:
        """Measure a model on a whole split, in evaluation mode. Default: by the metric that `metric` names.

        The model's mode is restored afterwards. One wait for the device in all.

        Args:
            model: On the split's device.
            split: The examples; none is left out.

        Raises:
            UserError: There is no metric of this name, or it does not take what the model returns.
        """
        metric = METRICS[canonical("metric", self.metric, METRICS, type(self).__name__)]
        with evaluating(model):
            parts = (
                (model(self.prepare(inputs.to(split.device))), targets)
                for inputs, targets in zip(
                    split.inputs.split(self.score_batch_size),
                    split.targets.split(self.score_batch_size),
                    strict=True,
                )
            )
            return metric(parts, split.targets).item()


def _named_loss(name: str) -> Any:
    """The method of a class that names its loss; the default's is `Task.loss` itself, which some look for."""

    def loss(self: Task, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return LOSSES[name](model(inputs), targets)

    loss.named = name  # type: ignore[attr-defined]
    return Task.loss if name == "cross_entropy" else loss


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; on leaving, every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_batch(name: str, examples: int, batch_size: int) -> None:
    """Raise a UserError unless a split of `examples` gives at least one batch."""
    if not 1 <= batch_size <= examples:
        raise UserError(f"task {name}: batch_size is {batch_size}, but the split has {examples} examples")
