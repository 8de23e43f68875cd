"""What training images go through, by name: crop and flip, RandAugment, cut-out, mix-up."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.naming import hint

#: The steps, and of each option its types, the range of its values, and both as said in a message.
STEPS: dict[str, dict[str, tuple[tuple[type, ...], float, float, str]]] = {
    "crop_flip": {"padding": ((int,), 1, math.inf, "a whole number of at least 1")},
    "randaugment": {
        "magnitude": ((int,), 0, 30, "a whole number from 0 to 30"),
        "operations": ((int,), 1, math.inf, "a whole number of at least 1"),
    },
    "cutout": {"size": ((int,), 2, math.inf, "a whole number of at least 2")},
    "mixup": {"alpha": ((int, float), 1e-3, 1, "a number from 0.001 to 1")},
}
_LEVELS = 30  # of RandAugment's magnitudes
_CANDIDATES = 64  # of which each is of use with a probability of at least one half


class Augmentation:
    """Steps that vary a training batch at random, in order.

    Args:
        text: Their names with "+" between them, options in brackets behind a name; or "none"::

                crop_flip
                crop_flip + randaugment(magnitude=9, operations=2) + cutout(size=8) + mixup(alpha=0.2)

            See `crop_and_flip`, `randaugment`, `cut_out` and `mix_up` for what they are, and for the
            defaults; that of cutout's size is a quarter of the image's side.

    Raises:
        UserError: There is no such step, or it takes no such option or value.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = [] if text == "none" else list(_parsed(text))

    def raw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What is done to pixels, uint8 (N, C, H, W): for `Task.augment`."""
        for name, options in self._steps:
            if name == "crop_flip":
                images = crop_and_flip(images, generator, **options)
            elif name == "randaugment":
                images = randaugment(images, generator, **options)
        return images

    def prepared(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator, *, classes: int
    ) -> tuple[Tensor, Tensor]:
        """What is done to normalised images and their targets: for what `Task.batches` yields.

        Args:
            inputs: Floats (N, C, H, W), of which zeros are the mean.
            targets: int64 class numbers (N,).
            generator: On their device.
            classes: How many classes.

        Returns:
            Both; after mix-up the targets are probabilities, float32 (N, classes), as `Task.loss` takes them.
        """
        for name, options in self._steps:
            if name == "cutout":
                inputs = cut_out(inputs, generator, size=options.get("size", max(2, inputs.shape[-1] // 4)))
            elif name == "mixup":
                inputs, targets = mix_up(inputs, targets, generator, classes=classes, **options)
        return inputs, targets


def augmentation(text: str) -> Augmentation:
    """`Augmentation` by its text, see there."""
    return Augmentation(text)


def _parsed(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options) of each step of a text.

    Raises:
        UserError: It can't be read, or says what isn't there.
    """
    for part in text.split("+"):
        try:
            said = ast.parse(part.strip(), mode="eval").body
            call = said if isinstance(said, ast.Call) else ast.Call(said, [], [])
            if not isinstance(call.func, ast.Name) or call.args:
                raise ValueError
            name = call.func.id
            options: dict[str, Any] = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        except (SyntaxError, ValueError):
            expected = "write it as in 'crop_flip + randaugment(magnitude=9)'"
            raise UserError(f"augmentation {text!r}: {part.strip()!r} can't be read: {expected}") from None
        if name not in STEPS:
            raise UserError(f"augmentation {text!r}: unknown step {name!r}: {hint(name, [*STEPS, 'none'])}")
        for key, value in options.items():
            if key not in STEPS[name]:
                raise UserError(f"augmentation {text!r}: {name} has no {key!r}: {hint(key, STEPS[name])}")
            kinds, least, most, expected = STEPS[name][key]
            if type(value) not in kinds or not least <= value <= most:
                raise UserError(f"augmentation {text!r}: {key} must be {expected}, not {value!r}")
        yield name, options


def cut_out(images: Tensor, generator: torch.Generator, *, size: int = 8) -> Tensor:
    """Set a square of each image to zero; its centre is a random pixel, so that a border may cut it.

    Args:
        images: (N, C, H, W), floating point.
        generator: On the images' device.
        size: Of the square's side, in pixels; even. Default: 8.

    Returns:
        A new tensor.
    """
    count, _, height, width = images.shape
    inside = []
    for length in (height, width):
        centre = torch.randint(0, length, (count, 1), generator=generator, device=images.device)
        offset = torch.arange(length, device=images.device) - centre
        inside.append((offset >= -(size // 2)) & (offset < size // 2))
    rows, columns = inside
    # Of a clone, since masked_fill would lose channels_last.
    return images.clone().masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int | None = None, reflect: bool = False
) -> Tensor:
    """Pad each image with zeros, cut out its own size at a random place, mirror half of them left to right.

    Every placement is equally likely, one draw an image. About 0.7 ms for 128 of 3 x 32 x 32 on one core.

    Args:
        images: (N, C, H, W), any dtype.
        generator: On the images' device.
        padding: Pixels on each side. Default: None, an eighth of the height.
        reflect: Pad with the image mirrored at its outermost pixels, not with zeros. Default: False.

    Returns:
        A new tensor of the same shape and dtype.
    """
    count, _, height, width = images.shape
    padding = max(1, height // 8) if padding is None else padding
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=images.device)
    mirrored = torch.randint(0, 2, (count,), generator=generator, device=images.device)
    padded = _reflected(images, padding) if reflect else F.pad(images, (padding,) * 4)
    placements = torch.stack((padded, padded.flip(3))).unfold(3, height, 1).unfold(4, width, 1)
    # In the mirrored image what was `lefts` from the left is as far from the right.
    lefts = torch.where(mirrored == 1, 2 * padding - lefts, lefts)
    return placements[mirrored, torch.arange(count, device=images.device), :, tops, lefts]


def _reflected(images: Tensor, padding: int) -> Tensor:
    """`F.pad` by reflection, of any dtype."""
    for dim in (2, 3):
        last = images.shape[dim] - 1
        places = torch.arange(-padding, last + padding + 1, device=images.device).abs()
        images = images.index_select(dim, last - (last - places).abs())
    return images


def randaugment(
    images: Tensor, generator: torch.Generator, *, magnitude: int = 9, operations: int = 2
) -> Tensor:
    """RandAugment of Cubuk et al., arXiv 1909.13719: some of 14 operations, drawn anew for each image.

    The operations and their strengths are those of `torchvision.transforms.v2.RandAugment`, which draws
    from the global generator and has one operation for a whole batch. What comes from outside is black.

    Which image gets which is drawn on the CPU, so that a GPU is not waited for to group them; torchvision's
    operations themselves wait a few times a batch, as they bring numbers to the device.

    Args:
        images: uint8 (N, C, H, W) with 1 or 3 channels.
        generator: On the images' device.
        magnitude: How strong, from 0 to 30. Default 9.
        operations: How many after one another. Default 2.

    Returns:
        A new tensor.

    Raises:
        UserError: The images have neither 1 nor 3 channels.
    """
    if images.shape[1] not in (1, 3):
        raise UserError(f"randaugment takes images of 1 or 3 channels, not of {images.shape[1]}")
    host, names = _on_host(generator), list(_STRENGTHS)
    for _ in range(operations):
        kinds = torch.randint(0, 2 * len(names), (len(images),), generator=host)
        varied = images.clone()
        for kind in kinds.unique().tolist():
            where = (kinds == kind).nonzero().flatten()
            if images.is_cuda:
                where = where.pin_memory().to(images.device, non_blocking=True)
            name, sign = names[kind // 2], (1, -1)[kind % 2]
            strength = sign * _STRENGTHS[name] * magnitude / _LEVELS
            varied.index_copy_(0, where, _operations()[name](images.index_select(0, where), strength))
        images = varied
    return images


def _on_host(generator: torch.Generator) -> torch.Generator:
    """One on the CPU that goes on with the given one, which is not read where that would be waited for."""
    if generator.device.type == "cpu":
        return generator
    torch.rand(1, generator=generator, device=generator.device)  # so that the next time it gives another
    seed = (generator.initial_seed() + 0x9E3779B97F4A7C15 * generator.get_offset()) % 2**63
    return torch.Generator().manual_seed(seed)


#: RandAugment's operations with what each has at the full magnitude; of most, both signs are as likely.
_STRENGTHS = {
    **{"identity": 0.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331},
    **{"rotate": 30.0, "brightness": 0.9, "colour": 0.9, "contrast": 0.9, "sharpness": 0.9},
    **{"posterize": 4.0, "solarize": 1.0, "autocontrast": 0.0, "equalize": 0.0},
}


@functools.cache
def _operations() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """What they make of uint8 (N, C, H, W) and a strength."""
    from torchvision.transforms.v2 import functional as ops  # noqa: PLC0415 - a second that others don't need

    still: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}

    def sheared(images: Tensor, *slopes: float) -> Tensor:
        degrees = [math.degrees(math.atan(slope)) for slope in slopes]
        made: Tensor = ops.affine(images, **still | {"shear": degrees, "center": [0, 0]})
        return made

    def moved(images: Tensor, x: float, y: float) -> Tensor:
        made: Tensor = ops.affine(images, **still | {"translate": [int(x), int(y)]})
        return made

    return {
        "identity": lambda images, s: images,
        "shear_x": lambda images, s: sheared(images, s, 0.0),
        "shear_y": lambda images, s: sheared(images, 0.0, s),
        "translate_x": lambda images, s: moved(images, s * images.shape[-1], 0),
        "translate_y": lambda images, s: moved(images, 0, s * images.shape[-2]),
        "rotate": lambda images, s: ops.rotate(images, angle=s),
        "brightness": lambda images, s: ops.adjust_brightness(images, 1 + s),
        "colour": lambda images, s: ops.adjust_saturation(images, 1 + s),
        "contrast": lambda images, s: ops.adjust_contrast(images, 1 + s),
        "sharpness": lambda images, s: ops.adjust_sharpness(images, 1 + s),
        "posterize": lambda images, s: ops.posterize(images, bits=8 - round(abs(s))),
        "solarize": lambda images, s: ops.solarize(images, threshold=255 * (1 - abs(s))),
        "autocontrast": lambda images, s: ops.autocontrast(images),
        "equalize": lambda images, s: ops.equalize(images),
    }


def mix_up(
    inputs: Tensor, targets: Tensor, generator: torch.Generator, *, classes: int, alpha: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Mix each example with another of the batch: mix-up of Zhang et al., arXiv 1710.09412.

    λ x + (1 - λ) x' and the same of the targets, with one λ ~ Beta(α, α) a batch. λ is drawn by Jöhnk's
    method, which takes the first of some pairs that will do: all are drawn, so that a GPU is not waited for.

    Args:
        inputs: Floats (N, ...).
        targets: int64 class numbers (N,).
        generator: On their device.
        classes: How many classes.
        alpha: α, from 0.001 to 1. Default 0.2.

    Returns:
        The inputs, and the probabilities of the classes, float32 (N, classes).
    """
    device, count = inputs.device, len(inputs)
    drawn = torch.rand(2, _CANDIDATES, dtype=torch.float64, generator=generator, device=device)
    logs = drawn.log_().div_(alpha)
    fits = logs.exp().sum(0) <= 1
    pair = logs.index_select(1, fits.int().argmax().view(1))
    share = pair.softmax(0)[0].to(inputs.dtype)
    others = torch.randperm(count, generator=generator, device=device)
    one_hot = torch.zeros(count, classes, device=device).scatter_(1, targets[:, None], 1.0)
    mixed = inputs * share + inputs.index_select(0, others) * (1 - share)
    return mixed, one_hot * share + one_hot.index_select(0, others) * (1 - share)
