"""Image classification: the digits that come with scikit-learn, MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import models
from optevo.tasks.base import Normalise, Split, Splits, Task
from optevo.tasks.data import load_images
from optevo.tasks.sources import digits_file


def fixed_order(count: int, key: str) -> list[int]:
    """A shuffle of 0 .. count - 1 that is the same everywhere and for ever: by SHA-256 of key and number.

    A seeded generator's stream may change with torch's or NumPy's version, and with it what "the same 15,000
    examples" are.
    """
    return sorted(range(count), key=lambda number: hashlib.sha256(f"{key}:{number}".encode()).digest())


def stratified_order(labels: Sequence[int], key: str) -> list[int]:
    """A fixed shuffle in which any leading part holds each class in proportion, to within one example."""
    totals: dict[int, int] = {}
    for label in labels:
        totals[label] = totals.get(label, 0) + 1
    seen = dict.fromkeys(totals, 0)
    share = {}
    shuffled = fixed_order(len(labels), key)
    for number in shuffled:
        seen[labels[number]] += 1
        share[number] = (seen[labels[number]] - 0.5) / totals[labels[number]]
    return sorted(shuffled, key=share.__getitem__)


class Digits(Task):
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 grey: nothing to download, milliseconds a step.

    1,077 examples to train, 360 to validate, 360 to test, each class in proportion. The 17 grey levels are
    spread over the full range of uint8. Mean and deviation are those of the training part.
    """

    name = "digits"
    normalise = Normalise((0.3046,), (0.3756,))

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

    def model(self, generator: torch.Generator) -> nn.Module:
        return models.mlp(generator)


def _read_digits() -> tuple[Tensor, Tensor]:
    """Pixels 0 to 16, float64 (1797, 64), and int64 labels, of scikit-learn's packaged file."""
    table = torch.from_numpy(np.loadtxt(digits_file(), delimiter=","))
    return table[:, :-1].contiguous(), table[:, -1].to(torch.int64)


class _ImageTask(Task):
    """A set with an official test part, which stays whole, and a train part, which gives the other two.

    Args:
        train_examples: Size of the fixed random subset to train on. Default 15,000, as published.
        validation_examples: Size of another, disjoint from it. Default 5,000.

    Raises:
        UserError: A size is below one. `load` raises it where the train part is too small for both.
    """

    def __init__(self, *, train_examples: int = 15_000, validation_examples: int = 5_000) -> None:
        for option, value in (
            ("train_examples", train_examples),
            ("validation_examples", validation_examples),
        ):
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"task {self.name}: {option} must be a whole number of at least 1, not {value!r}"
                )
        self.train_examples = train_examples
        self.validation_examples = validation_examples

    def load(self, root: Path) -> Splits:
        images, labels = load_images(self.name, root, "train")
        wanted = self.train_examples + self.validation_examples
        if wanted > len(images):
            raise UserError(
                f"task {self.name}: train_examples + validation_examples is {wanted}, but the train part in "
                f"{root} has {len(images)} images"
            )
        order = fixed_order(len(images), self.name)
        # Validation comes from the far end: so it stays the same examples when train_examples changes.
        train = torch.tensor(order[: self.train_examples])
        validation = torch.tensor(order[len(order) - self.validation_examples :])
        return {
            "train": Split(images[train], labels[train]),
            "validation": Split(images[validation], labels[validation]),
            "test": Split(*load_images(self.name, root, "test")),
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        return models.small_cnn(generator)


class MNIST(_ImageTask):
    """Handwritten digits, 28 x 28 grey, with the published SmallCNN."""

    name = "mnist"
    normalise = Normalise((0.1307,), (0.3081,))


class FashionMNIST(_ImageTask):
    """Articles of clothing, 28 x 28 grey, with the published SmallCNN."""

    name = "fashion_mnist"
    normalise = Normalise((0.2860,), (0.3530,))


class CIFAR10(_ImageTask):
    """Photographs of ten kinds of things, 32 x 32 RGB, cropped and flipped at random while training."""

    name = "cifar10"
    normalise = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return crop_and_flip(inputs, generator, padding=4)

    def model(self, generator: torch.Generator) -> nn.Module:
        return models.cifar_cnn(generator)


def crop_and_flip(images: Tensor, generator: torch.Generator, *, padding: int = 4) -> Tensor:
    """Pad each image with zeros, cut out its own size at a random place, mirror half of them left to right.

    Every placement is equally likely, one draw an image. About 0.7 ms for 128 of 3 x 32 x 32 on one core.

    Args:
        images: (N, C, H, W), any dtype.
        generator: On the images' device.
        padding: Pixels of zeros on each side. Default 4.

    Returns:
        A new tensor of the same shape and dtype.
    """
    count, _, height, width = images.shape
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=images.device)
    mirrored = torch.randint(0, 2, (count,), generator=generator, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    placements = torch.stack((padded, padded.flip(3))).unfold(3, height, 1).unfold(4, width, 1)
    # In the mirrored image what was `lefts` from the left is as far from the right.
    lefts = torch.where(mirrored == 1, 2 * padding - lefts, lefts)
    return placements[mirrored, torch.arange(count, device=images.device), :, tops, lefts]
