"""What image tasks share: a network, a resolution, a scale and an augmentation by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import networks
from optevo.tasks.augmentation import Augmentation, augmentation
from optevo.tasks.base import Normalise, Split, Task

#: What `scale` names besides "standard", the set's own. "symmetric" is (x - 127.5) / 128.
SCALES = {
    "unit": Task.normalise,
    "symmetric": Normalise((0.5,) * 3, (128 / 255,) * 3),
    "imagenet": Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class ImageTask(Task):
    """Images to classify, uint8 (N, channels, H, W), with any network of `optevo.tasks.networks`.

    Attributes:
        own_network: The network that the task has by itself.
        network: The one that it has. Default: None, for a subclass that does without our `__init__`.
        width: Of a convnet. Default: 32.
        classes: How many classes. Default: 10.
        channels: Of the images. Default: 1.
        size: Pixels of the stored images' sides.
        resolution: Of what the network sees. Default: None, `size`.
        weights: Trained ones, see `optevo.tasks.weights.trained`. Default: None.
        dropout: See `optevo.tasks.networks.classifier`. Default: None.
        augmentation: What training batches go through. Default: nothing.
    """

    own_network: str
    network: str | None = None
    width = 32
    classes = 10
    channels = 1
    size: int
    resolution: int | None = None
    weights: str | None = None
    dropout: float | None = None
    augmentation: Augmentation = augmentation("none")

    def choose(
        self,
        *,
        network: str | None = None,
        width: int | None = None,
        resolution: int | None = None,
        augmentation: str | None = None,
        weights: str | None = None,
        dropout: float | None = None,
        scale: str = "standard",
    ) -> None:
        """Take over options, for `__init__`. What is None stays as the class has it.

        Raises:
            UserError: One has no such value.
        """
        self.network = network or self.own_network
        with _of(self.name):
            networks.check(self.network, width=width, dropout=dropout)
            if augmentation is not None:
                self.augmentation = Augmentation(augmentation)
        self.width = width or self.width
        self.resolution = None if resolution is None else check_count(self.name, "resolution", resolution)
        self.weights, self.dropout = weights, dropout
        check_option(self.name, "scale", scale, ("standard", *SCALES))
        self.normalise = SCALES.get(scale, self.normalise)

    def model(self, generator: torch.Generator) -> nn.Module:
        with _of(self.name):
            name = self.network or self.own_network
            return networks.classifier(
                name,
                classes=self.classes,
                channels=self.channels,
                resolution=self.resolution or self.size,
                weights=self.weights,
                dropout=self.dropout,
                width=self.width if name == "convnet" else None,
                generator=generator,
            )

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in super().batches(split, batch_size, generator):
            yield self.augmentation.prepared(inputs, targets, generator, classes=self.classes)

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return self.augmentation.raw(inputs, generator)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Normalised, and resized where a resolution says so, each pixel the mean of what it covers."""
        images, size = super().prepare(inputs), self.resolution
        if size is None or images.shape[-2:] == (size, size):
            return images
        resized = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        return resized.contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _of(task: str) -> Iterator[None]:
    """Errors about options begin with the task's name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"task {task}: {error}") from error


def check_option(task: str, option: str, value: object, known: Sequence[str]) -> None:
    """Raise a UserError unless an option has one of the known values."""
    if value not in known:
        expected = " or ".join(map(repr, known))
        raise UserError(f"task {task}: {option} must be {expected}, not {value!r}")


def check_count(task: str, option: str, value: object) -> int:
    """Raise a UserError unless an option is a whole number of at least 1; which it is."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"task {task}: {option} must be a whole number of at least 1, not {value!r}")
    return value
