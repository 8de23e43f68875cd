"""The networks: those of the published study, and a small one for the digits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.tasks.layers import Dropout, Flatten, build, initialise

__all__ = [
    "CharTransformer",
    "Dropout",
    "Flatten",
    "build",
    "char_transformer",
    "cifar_cnn",
    "convnet",
    "initialise",
    "mlp",
    "small_cnn",
]


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and those before it.

    As ``nn.MultiheadAttention``, initialisation included (in-projection Xavier uniform over the joint matrix,
    both biases zero), but for a dropout on the attention weights which is ours.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        for child in (self.in_proj, self.out_proj, self.dropout):
            initialise(child, generator)
        nn.init.xavier_uniform_(self.in_proj.weight, generator=generator)
        self.in_proj.bias.zero_()
        self.out_proj.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        batch, length, width = inputs.shape
        projected = self.in_proj(inputs).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        future = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu_(1)
        logits = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        weights = self.dropout(logits.masked_fill(future, -math.inf).softmax(dim=-1))
        attended: Tensor = self.out_proj((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return attended


class TransformerLayer(nn.Module):
    """x ← norm(x + attention(x)), x ← norm(x + feed-forward(x)): torch's default encoder layer."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = CausalAttention(width, heads, dropout)
        self.attention_dropout = Dropout(dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, width), Dropout(dropout)
        )
        self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.attention_norm(inputs + self.attention_dropout(self.attention(inputs)))
        outputs: Tensor = self.feed_forward_norm(inputs + self.feed_forward(inputs))
        return outputs


class CharTransformer(nn.Module):
    """Next-byte logits (batch, length, symbols) of int64 bytes (batch, length), length ≤ `window`."""

    def __init__(
        self, *, symbols: int, window: int, width: int, heads: int, layers: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.positions = nn.Embedding(window, width)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads, hidden, dropout) for _ in range(layers)))
        self.head = nn.Linear(width, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        embedded = self.symbols(inputs) + self.positions.weight[: inputs.shape[1]]
        logits: Tensor = self.head(self.layers(embedded))
        return logits


def _pool() -> tuple[nn.Module, nn.Module]:
    """What ReLU, then max-pooling computes, gradients included, with a quarter of the entries in the ReLU."""
    return nn.MaxPool2d(2), nn.ReLU(inplace=True)


def small_cnn(
    generator: torch.Generator, *, classes: int = 10, channels: int = 1, resolution: int = 28
) -> nn.Module:
    """The published SmallCNN for (N, channels, resolution, resolution), as published 824,458 parameters.

    Like `cifar_cnn`, it counts the features before its first linear layer with the channels innermost.

    Args:
        generator: Of all weights.
        classes: How many scores it gives. Default: 10.
        channels: Of the images. Default: 1.
        resolution: Pixels of the images' sides, at least 4. Default: 28.
    """
    return build(
        lambda: nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), *_pool()),
            *(nn.Conv2d(32, 64, 3, padding=1), *_pool()),
            *(Flatten(), nn.Linear((resolution // 4) ** 2 * 64, 256), nn.ReLU(inplace=True), Dropout(0.3)),
            nn.Linear(256, classes),
        ),
        generator,
    )


def cifar_cnn(
    generator: torch.Generator, *, classes: int = 10, channels: int = 3, resolution: int = 32
) -> nn.Module:
    """The published network for (N, channels, resolution, resolution), as published 2,168,554 parameters.

    Batch norm follows the first convolution of each block only, as in the published code.

    Args:
        generator: Of all weights.
        classes: How many scores it gives. Default: 10.
        channels: Of the images. Default: 3.
        resolution: Pixels of the images' sides, at least 4. Default: 32.
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)),
            *(nn.Conv2d(outputs, outputs, 3, padding=1), *_pool(), Dropout(0.25)),
        ]

    return build(
        lambda: nn.Sequential(
            *block(channels, 32),
            *block(32, 64),
            *(Flatten(), nn.Linear((resolution // 4) ** 2 * 64, 512), nn.ReLU(inplace=True), Dropout(0.5)),
            nn.Linear(512, classes),
        ),
        generator,
    )


@torch.no_grad()
def _glorot_uniform(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Weights uniform in ±√(6/(fan_in + fan_out)), biases zero."""
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        layer.bias.zero_()


class _GlorotLinear(nn.Linear):
    """A dense layer that begins with Glorot's uniform weights."""

    def initialise(self, generator: torch.Generator) -> None:
        _glorot_uniform(self, generator)


class _SameConv2d(nn.Conv2d):
    """A 3 x 3 convolution over an image padded so that the n-th output is centred as TensorFlow's is.

    With stride 2 an even size is padded at the bottom and the right alone.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1)

    def initialise(self, generator: torch.Generator) -> None:
        _glorot_uniform(self, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.stride[0] == 2:
            height, width = inputs.shape[2] % 2, inputs.shape[3] % 2
            inputs = F.pad(inputs, (width, 1, height, 1))
        return super().forward(inputs)


class _GlobalPool(nn.Module):
    """(N, C, H, W) to (N, C): the mean over the image."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3))


def convnet(
    generator: torch.Generator, *, classes: int = 10, channels: int = 3, width: int = 32
) -> nn.Module:
    """ConvNet(B) of arXiv 2404.06679 for (N, channels, H, W), with B = 32 on RGB 94,986 parameters.

    Args:
        generator: Of all weights.
        classes: How many scores it gives. Default: 10.
        channels: Of the images. Default: 3.
        width: B, the first convolution's channels; the others have 2 B and 4 B. Default: 32.
    """

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        return [_SameConv2d(inputs, outputs, stride), norm, nn.SiLU()]

    return build(
        lambda: nn.Sequential(
            *(*block(channels, width, 1), *block(width, 2 * width, 2), *block(2 * width, 4 * width, 2)),
            *(_GlobalPool(), Dropout(0.2), _GlorotLinear(4 * width, classes)),
        ),
        generator,
    )


def mlp(
    generator: torch.Generator, *, classes: int = 10, channels: int = 1, resolution: int = 8
) -> nn.Module:
    """Two hidden layers of 64 and 32 units; for (N, 1, 8, 8) and ten classes 6,570 parameters.

    Small enough for a search in a minute, and deep enough that 100 to 200 steps tell optimizers apart.

    Args:
        generator: Of all weights.
        classes: How many scores it gives. Default: 10.
        channels: Of the images. Default: 1.
        resolution: Pixels of the images' sides. Default: 8.
    """
    return build(
        lambda: nn.Sequential(
            *(nn.Flatten(), nn.Linear(channels * resolution**2, 64), nn.ReLU()),
            *(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes)),
        ),
        generator,
    )


def char_transformer(generator: torch.Generator) -> CharTransformer:
    """The published byte-level Transformer: 2 layers, width 128, 4 heads, feed-forward 512, windows of 64.

    torch's own encoder starts all its layers as copies of one; here each layer draws its own weights.
    """
    return build(
        lambda: CharTransformer(
            symbols=256, window=64, width=128, heads=4, layers=2, hidden=512, dropout=0.1
        ),
        generator,
    )
