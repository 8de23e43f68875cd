"""A user's own images as a task: folders of classes, or an archive of MedMNIST."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks.base import Normalise, Splits
from optevo.tasks.decoded import read_splits
from optevo.tasks.image_task import ImageTask
from optevo.tasks.own.archives import npz_source
from optevo.tasks.own.image_sources import Source, folder_source
from optevo.tasks.own.options import Shares, refuse, whole
from optevo.tasks.roots import find

_SAMPLE = 1024  # training images whose mean and deviation are taken


class Images(ImageTask):
    """A user's own images and their classes.

    The images are decoded once, into a file that is mapped: they may be larger than memory.

    Args:
        name: Of the task.
        path: Of a folder with a folder a class, of one with such a folder for train and maybe validation (or
            val) and test, or of an ``.npz`` in MedMNIST's layout. See `optevo.tasks.roots.find`.
        resolution: Pixels of a side; images are cut to a square and resized. Default: 64, in an archive its
            own.
        channels: 1 for grey, 3 for RGB. Default: 3, in an archive its own.
        network: See `optevo.tasks.networks.classifier`. Default: "convnet".
        width: Of a convnet. Default: 32.
        weights: See `classifier`. Default: None, all are drawn.
        dropout: See there. Default: None.
        augmentation: Of training images, see `optevo.tasks.augmentation.Augmentation`. Default: "none".
        scale: What pixels become: "standard", mean 0 and deviation 1 a channel, or a key of
            `optevo.tasks.image_task.SCALES`. Default: "standard".
        validation: Share of the images, where they have no part of their own. Default: 0.15.
        test: The same. Default: 0.15.
        seed: Of the split. Default: 0.

    Raises:
        UserError: An option has no such value.
    """

    own_network = "convnet"

    def __init__(
        self,
        name: str,
        path: str,
        *,
        resolution: int | None = None,
        channels: int | None = None,
        network: str = "convnet",
        width: int | None = None,
        weights: str | None = None,
        dropout: float | None = None,
        augmentation: str = "none",
        scale: str = "standard",
        validation: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
    ) -> None:
        self.name, self.path = name, path
        self.choose(
            network=network,
            width=width,
            augmentation=augmentation,
            weights=weights,
            dropout=dropout,
            scale=scale,
        )
        self.standard = scale == "standard"
        self.wanted = None if resolution is None else whole(name, "resolution", resolution, 4, 4096)
        if channels not in (None, 1, 3):
            raise refuse(name, "channels", channels, "1 or 3")
        self.colours = channels
        self.shares = Shares(name, validation, test, seed)

    def load(self, root: Path) -> Splits:
        place = find(self.path, root, f"task {self.name!r}")
        source = self._source(place)
        self.size, self.channels = self.wanted or source.size, self.colours or source.channels
        self.classes = len(source.classes)
        shape = self.channels, self.size, self.size
        splits, digest = read_splits(
            place.stem, source.key, source.labels, shape, lambda: source.blocks(shape)
        )
        self.identity = _identity(digest, source)
        if self.standard:
            self.normalise = normalising(splits["train"].inputs)
        elif len(self.normalise.mean) > self.channels:
            raise UserError(f"task {self.name!r}: this scale is one of RGB images: say channels = 3")
        return splits

    def _source(self, place: Path) -> Source:
        remedy = f"correct it, or remove it from the data of task {self.name!r}"
        if place.is_dir():
            return folder_source(place, self.shares, remedy)
        if place.suffix.lower() != ".npz":
            raise UserError(
                f"task {self.name!r}: {place} is no folder and no .npz file: unpack it, and name the folder"
            )
        return npz_source(place, remedy)


def _identity(digest: str, source: Source) -> str:
    """Of what was decoded, in which order and which classes: the same on every machine."""
    what: list[Any] = [digest, source.labels, source.classes]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def normalising(images: Tensor) -> Normalise:
    """To mean 0 and deviation 1 a channel, as they are in a sample of the images.

    Args:
        images: uint8 (N, C, H, W).
    """
    places = torch.linspace(0, len(images) - 1, min(_SAMPLE, len(images)), dtype=torch.float64).long()
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chosen_places in places.split(32):
        # Of each of the 256 levels: sums of doubles took 11 times as long, and 150 MB at 224 pixels.
        for count, channel in zip(counts, images[chosen_places].unbind(1), strict=True):
            count.add_(torch.bincount(channel.flatten(), minlength=256))
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ levels
    deviation = (shares @ levels.square() - mean.square()).clamp_min(0).sqrt().clamp_min(1 / 255)
    return Normalise(tuple(mean.tolist()), tuple(deviation.tolist()))
