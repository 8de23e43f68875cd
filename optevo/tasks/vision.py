"""Image classification: the digits that come with scikit-learn, MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks.augmentation import crop_and_flip, cut_out
from optevo.tasks.base import Normalise, Split, Splits, check_batch
from optevo.tasks.data import load_images
from optevo.tasks.image_task import ImageTask, check_count, check_option
from optevo.tasks.orders import fixed_order, stratified_order
from optevo.tasks.sources import digits_file


class Digits(ImageTask):
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 grey: nothing to download, milliseconds a step.

    1,077 examples to train, 360 to validate, 360 to test, each class in proportion. The 17 grey levels are
    spread over the full range of uint8. Mean and deviation are those of the training part.

    Args:
        network: Any of `optevo.tasks.networks`. Default: "mlp".
        width: Of a convnet, see `optevo.tasks.models.convnet`. Default: 32.

    Raises:
        UserError: There is no such network, or it has no such width.
    """

    name = "digits"
    own_network = "mlp"
    size = 8
    normalise = Normalise((0.3046,), (0.3756,))

    def __init__(self, *, network: str = "mlp", width: int | None = None) -> None:
        self.choose(network=network, width=width)

    def load(self, root: Path) -> Splits:
        pixels, labels = _read_digits()
        levels = pixels.mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        order = torch.tensor(stratified_order(labels.tolist(), self.name))
        train, validation, test = order[:1077], order[1077:1437], order[1437:]
        return {
            "train": Split(levels[train], labels[train]),
            "validation": Split(levels[validation], labels[validation]),
            "test": Split(levels[test], labels[test]),
        }


def _read_digits() -> tuple[Tensor, Tensor]:
    """Pixels 0 to 16, float64 (1797, 64), and int64 labels, of scikit-learn's packaged file."""
    table = torch.from_numpy(np.loadtxt(digits_file(), delimiter=","))
    return table[:, :-1].contiguous(), table[:, -1].to(torch.int64)


class _OfficialTest(ImageTask):
    """A set with an official test part, which stays whole, and a train part, which gives the other two.

    Args:
        train_examples: Size of the fixed random subset to train on. Default 15,000, as published.
        validation_examples: Size of another, disjoint from it. Default 5,000.
        network: Any of `optevo.tasks.networks`. Default: the published one.
        width: Of a convnet, see `optevo.tasks.models.convnet`. Default: 32.

    Raises:
        UserError: A size is below one, or there is no such network. `load` raises it where the train part is
            too small for both.
    """

    own_network = "small_cnn"
    size = 28

    def __init__(
        self,
        *,
        train_examples: int = 15_000,
        validation_examples: int = 5_000,
        network: str | None = None,
        width: int | None = None,
    ) -> None:
        self.train_examples = check_count(self.name, "train_examples", train_examples)
        self.validation_examples = check_count(self.name, "validation_examples", validation_examples)
        self.choose(network=network, width=width)

    def load(self, root: Path) -> Splits:
        images, labels = load_images(self.name, root, "train")
        wanted = self.train_examples + self.validation_examples
        if wanted > len(images):
            raise UserError(
                f"task {self.name}: train_examples + validation_examples is {wanted}, but the train part in "
                f"{root} has {len(images)} images"
            )
        order = self._order(labels)
        # Validation comes from the far end: so it stays the same examples when train_examples changes.
        train = torch.tensor(order[: self.train_examples])
        validation = torch.tensor(order[len(order) - self.validation_examples :])
        return {
            "train": Split(images[train], labels[train]),
            "validation": Split(images[validation], labels[validation]),
            "test": Split(*load_images(self.name, root, "test")),
        }

    def _order(self, labels: Tensor) -> list[int]:
        """Of the train part: to train on come from its beginning, to validate on from its end."""
        return fixed_order(len(labels), self.name)


class MNIST(_OfficialTest):
    """Handwritten digits, 28 x 28 grey, with the published SmallCNN."""

    name = "mnist"
    normalise = Normalise((0.1307,), (0.3081,))


class FashionMNIST(_OfficialTest):
    """Articles of clothing, 28 x 28 grey, with the published SmallCNN."""

    name = "fashion_mnist"
    normalise = Normalise((0.2860,), (0.3530,))


class CIFAR10(_OfficialTest):
    """Photographs of ten kinds of things, 32 x 32 RGB, cropped and flipped at random while training.

    Args:
        train_examples: How many to train on. Default: None, 15,000, or 45,000 in the "published" order.
        validation_examples: How many to validate on. Default: 5,000.
        network: Any of `optevo.tasks.networks`. Default: "cifar_cnn".
        width: Of a convnet, see `optevo.tasks.models.convnet`. Default: 32.
        order: "shuffled": a fixed random subset, in a new random order every epoch. "published", that of
            arXiv 2404.06679: the first images of the files to train on, the last to validate on, never
            shuffled, and the incomplete last batch of an epoch is kept. Image folders are sorted by class;
            the fixed shuffle is their order then. Default: "shuffled".
        augment: Of training images: "crop_flip", see `crop_and_flip`; "reflect_cutout", the same with
            reflected edges, and a square of 8 x 8 set to the mean by `cut_out`; or "none". Default:
            "crop_flip".
        scale: What `prepare` makes of pixels: "standard", mean 0 and deviation 1 a channel over the whole
            train part, "unit", 0 to 1, "symmetric", (x - 127.5) / 128, or "imagenet", by ImageNet's mean and
            deviation. Default: "standard".
        resolution: To which size images are resized after augmentation. Default: None, 32, as they are.
        augmentation: In place of `augment`, a text as `optevo.tasks.augmentation.Augmentation` takes it.
            Default: None, `augment`.
        weights: Trained ones, see `optevo.tasks.weights.trained`. Default: None.
        dropout: See `optevo.tasks.networks.classifier`. Default: None.

    Raises:
        UserError: An option has no such value. `load` raises it where the train part is too small for both.
    """

    name = "cifar10"
    own_network = "cifar_cnn"
    channels = 3
    size = 32
    normalise = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

    def __init__(
        self,
        *,
        train_examples: int | None = None,
        validation_examples: int = 5_000,
        network: str = "cifar_cnn",
        width: int | None = None,
        order: str = "shuffled",
        augment: str | None = None,
        scale: str = "standard",
        resolution: int | None = None,
        augmentation: str | None = None,
        weights: str | None = None,
        dropout: float | None = None,
    ) -> None:
        check_option(self.name, "order", order, ("shuffled", "published"))
        check_option(self.name, "augment", augment or "crop_flip", ("crop_flip", "reflect_cutout", "none"))
        if augment is not None and augmentation is not None:
            raise UserError(f"task {self.name}: augmentation takes the place of augment; give one of them")
        if train_examples is None:
            train_examples = 45_000 if order == "published" else 15_000
        super().__init__(train_examples=train_examples, validation_examples=validation_examples)
        self.choose(
            network=network,
            width=width,
            resolution=resolution,
            augmentation=augmentation or (augment if augment == "none" else "crop_flip"),
            weights=weights,
            dropout=dropout,
            scale=scale,
        )
        self.order, self.reflects = order, augment == "reflect_cutout"

    def _order(self, labels: Tensor) -> list[int]:
        by_class = bool((labels[1:] >= labels[:-1]).all())
        return super()._order(labels) if self.order == "shuffled" or by_class else list(range(len(labels)))

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        batches = super().batches(split, batch_size, generator)
        if self.order == "published":
            batches = self._in_order(split, batch_size, generator)
        for inputs, targets in batches:
            # After scaling, so that zeros are the mean.
            yield cut_out(inputs, generator) if self.reflects else inputs, targets

    def _in_order(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        check_batch(self.name, len(split), batch_size)
        while True:
            for images, targets in zip(
                split.inputs.split(batch_size), split.targets.split(batch_size), strict=True
            ):
                inputs = self.prepare(self.augment(images, generator))
                yield self.augmentation.prepared(inputs, targets, generator, classes=self.classes)

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        if self.reflects:
            return crop_and_flip(inputs, generator, reflect=True)
        return super().augment(inputs, generator)
