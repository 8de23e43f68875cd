"""The networks, with every random number drawn from a generator that the caller gives.

torch's modules initialise themselves from the global generator. Here they are built on the meta device, where
nothing is drawn, and then filled by `initialise`, whose distributions are those of torch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from optevo.errors import UserError


def build(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Construct a network without touching the global generator.

    Args:
        make: Constructs it; called with the meta device as the default.
        generator: A CPU generator for weights and dropout seeds.

    Returns:
        The network on the CPU, in training mode.

    Raises:
        UserError: A module in it can't be initialised; see `initialise`.
    """
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu")
    initialise(model, generator)
    return model


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of a module anew, with the distributions of torch's own defaults.

    Linear and convolution: weight and bias uniform in ±1/√fan_in (what ``kaiming_uniform_(a=√5)`` comes to).
    Embedding: N(0, 1). Normalisation layers: ones and zeros. A module with a method
    ``initialise(generator)``, such as `Dropout`, looks after itself and its children.

    Args:
        module: On the generator's device.
        generator: The only source of randomness.

    Raises:
        UserError: A module is of a kind not named here and holds parameters or buffers of its own, or it is
            one of torch's dropouts, which draw from the global generator.
    """
    own = getattr(module, "initialise", None)
    if callable(own):
        own(generator)
        return
    if isinstance(module, nn.Linear | _ConvNd):
        bound = 1 / math.sqrt(module.weight[0].numel())
        module.weight.uniform_(-bound, bound, generator=generator)
        if module.bias is not None:
            module.bias.uniform_(-bound, bound, generator=generator)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(generator=generator)
        if module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
    elif isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
        module.reset_parameters()  # draws nothing
    elif isinstance(module, _DropoutNd):
        raise UserError(
            f"{type(module).__name__} draws from torch's global generator, so runs could not be repeated; "
            "use optevo.tasks.Dropout"
        )
    elif any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
        raise UserError(
            f"optevo doesn't know how to initialise a {type(module).__name__}: give it a method "
            "initialise(generator) that fills its parameters, its buffers and its children"
        )
    for child in module.children():
        initialise(child, generator)


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own: zero with probability p, else scaled by 1/(1-p).

    The generator is made on the input's device when first needed. Copies and `state_dict` carry its state
    (as a uint8 tensor), so a copied or restored model draws what the original would have drawn; on another
    kind of device it starts again from its seed.

    Args:
        p: Probability of a zero, in [0, 1). Default 0.5.
        seed: What the generator starts from. Default 0; `initialise` sets it.

    Raises:
        ValueError: p is out of range.
    """

    def __init__(self, p: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), not {p}")
        self.p = p
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._saved: Tensor | None = None

    def initialise(self, generator: torch.Generator) -> None:
        """Start anew from a seed drawn from `generator`."""
        self.seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._generator = self._saved = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return inputs
        mask = torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device)
        mask.bernoulli_(1 - self.p, generator=self._generator_on(inputs.device))
        return inputs * mask.div_(1 - self.p)

    def _generator_on(self, device: torch.device) -> torch.Generator:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self.seed)
            # A state of another length is another kind of device's.
            if self._saved is not None and len(self._saved) == len(self._generator.get_state()):
                self._generator.set_state(self._saved)
            self._saved = None
        return self._generator

    def get_extra_state(self) -> Tensor:
        """Seed and generator state as one uint8 tensor: 8 bytes of seed, then the state if there is one."""
        seed = torch.tensor([self.seed], dtype=torch.int64, device="cpu").view(torch.uint8)
        state = self._saved if self._generator is None else self._generator.get_state()
        return seed if state is None else torch.cat([seed, state])

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave."""
        state = state.cpu()
        self.seed = int(state[:8].clone().view(torch.int64))
        self._generator = None
        self._saved = state[8:].clone() if len(state) > 8 else None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_generator": None, "_saved": self.get_extra_state()}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        assert self._saved is not None
        self.set_extra_state(self._saved)

    def extra_repr(self) -> str:
        return f"p={self.p}"


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
        return self.out_proj((weights @ value).transpose(1, 2).reshape(batch, length, width))


class TransformerLayer(nn.Module):
    """x ← norm(x + attention(x)), x ← norm(x + feed-forward(x)): torch's default encoder layer (norm last)."""

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
        return self.feed_forward_norm(inputs + self.feed_forward(inputs))


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
        return self.head(self.layers(embedded))


def small_cnn(generator: torch.Generator) -> nn.Module:
    """The published SmallCNN for (N, 1, 28, 28): 824,458 parameters."""
    return build(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 7 * 7, 256), nn.ReLU(inplace=True), Dropout(0.3)),
            nn.Linear(256, 10),
        ),
        generator,
    )


def cifar_cnn(generator: torch.Generator) -> nn.Module:
    """The published network for (N, 3, 32, 32), batch norm after each block's first convolution: 2,168,554."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)),
            *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.MaxPool2d(2), Dropout(0.25)),
        ]

    return build(
        lambda: nn.Sequential(
            *block(3, 32),
            *block(32, 64),
            *(nn.Flatten(), nn.Linear(64 * 8 * 8, 512), nn.ReLU(inplace=True), Dropout(0.5)),
            nn.Linear(512, 10),
        ),
        generator,
    )


def mlp(generator: torch.Generator) -> nn.Module:
    """64-64-32-10 for (N, 1, 8, 8): 6,570 parameters.

    Two hidden layers spread the optimizers widest at 100 to 200 steps: validation accuracy after 100 steps, mean
    of 3 seeds, from 0.38 (Adam, lr 1e-4) through 0.90 (Adam, 1e-3) to 0.96 (Adam, 1e-2). With one layer of 32
    they are slower together, with two of 128 and 64 they are all above 0.94.
    """
    return build(
        lambda: nn.Sequential(
            *(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        ),
        generator,
    )


def char_transformer(generator: torch.Generator) -> nn.Module:
    """The published byte-level Transformer: 2 layers, width 128, 4 heads, feed-forward 512, windows of 64.

    torch's own encoder starts all its layers as copies of one; here each layer draws its own weights.
    """
    return build(
        lambda: CharTransformer(symbols=256, window=64, width=128, heads=4, layers=2, hidden=512, dropout=0.1),
        generator,
    )
