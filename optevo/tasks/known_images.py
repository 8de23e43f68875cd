"""Known sets of images with more classes: CIFAR-100, TinyImageNet, Flowers102, StanfordCars, Caltech101."""

from __future__ import annotations

from pathlib import Path

import torch

from optevo.errors import UserError
from optevo.tasks.base import Normalise, Split, Splits
from optevo.tasks.data import load_images
from optevo.tasks.image_task import SCALES, ImageTask, check_count
from optevo.tasks.orders import stratified_order
from optevo.tasks.photographs import PHOTOGRAPHS, load_photographs


class _KnownImages(ImageTask):
    """A set with a test part, which stays whole, and a train part, which gives the other two.

    Args:
        network: Any of `optevo.tasks.networks`. Default: "convnet".
        width: Of a convnet, see `optevo.tasks.models.convnet`. Default: 32.
        resolution: Pixels of the sides of what the network sees. Default: 32 for CIFAR-100, 64 for
            TinyImageNet, 224 for the others.
        augmentation: What training batches go through, see `optevo.tasks.augmentation.Augmentation`.
            Default: "crop_flip".
        weights: Trained ones, see `optevo.tasks.weights.trained`. Default: None.
        dropout: See `optevo.tasks.networks.classifier`. Default: None.
        scale: What is made of pixels: "standard", by the set's own mean and deviation, or by ImageNet's for
            Flowers102, StanfordCars and Caltech101; "unit", 0 to 1; "symmetric", (x - 127.5) / 128;
            "imagenet", by ImageNet's. Default: "standard".
        train_examples: How many to train on, each class in proportion. Default: None, all but those to
            validate on.
        validation_examples: How many of the train part to validate on. Default: None, a fifth, rounded.

    Raises:
        UserError: An option has no such value. `load` raises it where the data are missing or damaged, or
            the train part is too small for both.
    """

    own_network = "convnet"
    channels = 3
    normalise = SCALES["imagenet"]
    size = 224

    def __init__(
        self,
        *,
        network: str | None = None,
        width: int | None = None,
        resolution: int | None = None,
        augmentation: str = "crop_flip",
        weights: str | None = None,
        dropout: float | None = None,
        scale: str = "standard",
        train_examples: int | None = None,
        validation_examples: int | None = None,
    ) -> None:
        self.choose(
            network=network,
            width=width,
            resolution=resolution,
            augmentation=augmentation,
            weights=weights,
            dropout=dropout,
            scale=scale,
        )
        counts = {"train_examples": train_examples, "validation_examples": validation_examples}
        for option, value in counts.items():
            if value is not None:
                check_count(self.name, option, value)
        self.train_examples, self.validation_examples = train_examples, validation_examples

    def load(self, root: Path) -> Splits:
        parts = self._parts(root)
        whole = parts["train"]
        validate = self.validation_examples or round(len(whole) / 5)
        train = self.train_examples or len(whole) - validate
        if train < 1 or train + validate > len(whole):
            raise UserError(
                f"task {self.name}: {train} examples to train on and {validate} to validate on, but the "
                f"train part in {root} has {len(whole)} images"
            )
        # Validation comes from the far end: so it stays the same examples when train_examples changes.
        places = {"train": slice(train), "validation": slice(len(whole) - validate, None)}
        chosen = {
            key: Split(whole.inputs[place], whole.targets[place], whole.streamed)
            for key, place in places.items()
        }
        return chosen | {"test": parts["test"]}

    def _parts(self, root: Path) -> Splits:
        """ "test" and "train", this in an order whose parts hold each class in proportion."""
        return load_photographs(self.name, root, self.resolution or self.size)


class CIFAR100(_KnownImages):
    """Photographs of 100 kinds of things, 32 x 32 RGB: 50,000 to train and validate on, 10,000 to test."""

    name = "cifar100"
    classes = 100
    size = 32
    normalise = Normalise((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

    def _parts(self, root: Path) -> Splits:
        images, labels = load_images(self.name, root, "train")
        order = torch.tensor(stratified_order(labels.tolist(), self.name))
        test = Split(*load_images(self.name, root, "test"))
        return {"train": Split(images[order], labels[order]), "test": test}


class TinyImageNet(_KnownImages):
    """200 classes of ImageNet, 64 x 64 RGB: 100,000 to train and validate on, 10,000 to test.

    The labels of the official test part are not public; the official val part is the test part here.
    """

    name = "tiny_imagenet"
    classes = PHOTOGRAPHS[name].classes
    size = 64
    normalise = Normalise((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))


class Flowers102(_KnownImages):
    """102 kinds of flowers: 2,040 to train and validate on, the official train and val; 6,149 to test."""

    name = "flowers102"
    classes = PHOTOGRAPHS[name].classes


class StanfordCars(_KnownImages):
    """196 models of cars: 8,144 to train and validate on, 8,041 to test."""

    name = "stanford_cars"
    classes = PHOTOGRAPHS[name].classes


class Caltech101(_KnownImages):
    """101 kinds of things: 30 images of each to train and validate on, the others to test."""

    name = "caltech101"
    classes = PHOTOGRAPHS[name].classes
