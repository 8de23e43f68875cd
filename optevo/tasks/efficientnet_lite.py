"""EfficientNet-Lite0: MobileNet's blocks with neither squeeze-and-excitation nor swish, for small devices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.tasks.layers import Dropout, StochasticDepth, build

#: (blocks, kernel, stride of the first, expansion, channels out), as in the reference.
_STAGES = [
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
]
_STEM, _LAST = 32, 1280


class _SameConv2d(nn.Conv2d):
    """A convolution without biases over an image padded as TensorFlow does: more at the bottom and the right.

    He's normal weights by the fan out, as in the reference.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False, groups=groups)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        fan_out = self.kernel_size[0] ** 2 * self.out_channels // self.groups
        self.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if kernel > 1:
            lacking = [max(kernel - (size % stride or stride), 0) for size in inputs.shape[:1:-1]]
            inputs = F.pad(inputs, [side for n in lacking for side in (n // 2, n - n // 2)])
        return super().forward(inputs)


class _Head(nn.Linear):
    """A dense layer that begins uniform in ±1/√classes, with biases of zero, as in the reference."""

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(self.out_features)
        self.weight.uniform_(-bound, bound, generator=generator)
        self.bias.zero_()


def _norm(channels: int) -> nn.BatchNorm2d:
    # torch's momentum: after some hundred steps the reference's 0.01 scores with statistics of old weights.
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """1 x 1 convolution to more channels, depthwise convolution, 1 x 1 convolution back; and the shortcut."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _SameConv2d(inputs, inner, 1), _norm(inner)
        self._depthwise_conv = _SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = _SameConv2d(inner, outputs, 1), _norm(outputs)
        self.expands = expansion > 1
        self.drop = StochasticDepth(drop) if stride == 1 and inputs == outputs else None

    def forward(self, inputs: Tensor) -> Tensor:
        x: Tensor = F.relu6(self._bn0(self._expand_conv(inputs))) if self.expands else inputs
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x if self.drop is None else self.drop(x) + inputs


class EfficientNetLite0(nn.Module):
    """Class scores (N, classes) of images (N, channels, H, W); with 1,000 classes 4,652,008 parameters.

    Its parameters have the names of the package `efficientnet-lite-pytorch`, whose weights so fit.

    Args:
        classes: How many scores.
        dropout: Before the last layer. Default: 0.2.
        drop_connect: With which probability the last block is left out; those before it, less. Default: 0.2.
    """

    def __init__(self, classes: int, dropout: float = 0.2, drop_connect: float = 0.2) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _SameConv2d(3, _STEM, 3, 2), _norm(_STEM)
        count, inputs, blocks = sum(stage[0] for stage in _STAGES), _STEM, list[nn.Module]()
        for repeats, kernel, first, expansion, outputs in _STAGES:
            for stride in (first, *[1] * (repeats - 1)):
                drop = drop_connect * len(blocks) / count
                blocks.append(_Block(inputs, outputs, kernel, stride=stride, expansion=expansion, drop=drop))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _SameConv2d(inputs, _LAST, 1), _norm(_LAST)
        self._dropout, self._fc = Dropout(dropout), _Head(_LAST, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(inputs))))
        x = F.relu6(self._bn1(self._conv_head(x)))
        scores: Tensor = self._fc(self._dropout(x.mean((2, 3))))
        return scores


def efficientnet_lite0(generator: torch.Generator, *, classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0 for RGB images, weights drawn from `generator`.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, and
    the lite variants in TensorFlow's repository `tpu`.
    """
    return build(lambda: EfficientNetLite0(classes), generator)
