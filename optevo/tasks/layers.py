"""Weights and dropout with every random number drawn from a generator that the caller gives.

torch's modules initialise themselves from the global generator. Here they are built on the meta device, where
nothing is drawn, and then filled by `initialise`, whose distributions are those of torch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from optevo.errors import UserError

M = TypeVar("M", bound=nn.Module)


def build(make: Callable[[], M], generator: torch.Generator) -> M:
    """Construct a network without touching the global generator.

    Args:
        make: Constructs it; called with the meta device as the default.
        generator: A CPU generator for weights and dropout seeds.

    Returns:
        The network on the CPU, in training mode.

    Raises:
        UserError: A module in it can't be initialised; see `initialise`.

    Example:
        >>> import torch
        >>> from optevo.tasks import build
        >>> model = build(lambda: torch.nn.Linear(4, 2), torch.Generator().manual_seed(0))
        >>> again = build(lambda: torch.nn.Linear(4, 2), torch.Generator().manual_seed(0))
        >>> torch.equal(model.weight, again.weight)
        True
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

    Example:
        >>> import torch
        >>> from optevo.tasks import initialise
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
        >>> initialise(model, torch.Generator().manual_seed(0))
        >>> bool(model[0].weight.abs().max() <= 0.5)  # 1/√4
        True
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
    elif any(True for _ in module.parameters(recurse=False)) or any(
        True for _ in module.buffers(recurse=False)
    ):
        raise UserError(
            f"optevo doesn't know how to initialise a {type(module).__name__}: give it a method "
            "initialise(generator) that fills its parameters, its buffers and its children"
        )
    for child in module.children():
        initialise(child, generator)


class Flatten(nn.Module):
    """(N, C, H, W) to (N, H·W·C): nn.Flatten with the channels innermost, as channels_last activations lie.

    nn.Flatten copies such activations, and its gradient makes the max-pooling before it copy its own twice.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.movedim(1, -1).flatten(1)


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own: zero with probability p, else scaled to keep the mean.

    The generator is made on the input's device when first needed. Copies and `state_dict` carry its state
    (as a uint8 tensor), so a copied or restored model draws what the original would have drawn; on another
    kind of device it starts again from its seed. Which entries become zero depends on the shape alone, not on
    dtype, strides or, under `torch.vmap`, the batch.

    On the CPU p is rounded to a multiple of 1/65536, and the scale is one over the share kept then.

    Args:
        p: Probability of a zero, in [0, 1). Default 0.5.
        seed: What the generator starts from. Default 0; `initialise` sets it.

    Raises:
        ValueError: p is out of range.

    Example:
        >>> import torch
        >>> from optevo.tasks import Dropout
        >>> one, other = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
        >>> x = torch.ones(100)
        >>> torch.equal(one(x), other(x))
        True
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
        generator, shape = self._generator_on(inputs.device), self._shape(inputs)
        if inputs.device.type != "cpu":
            mask = torch.empty(shape, dtype=inputs.dtype, device=inputs.device)
            return inputs * mask.bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)
        return inputs * _mask(shape, inputs.dtype, self.p, generator)

    def _shape(self, inputs: Tensor) -> torch.Size:
        """Of the mask."""
        return inputs.shape

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
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's has no types
        assert self._saved is not None
        self.set_extra_state(self._saved)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class StochasticDepth(Dropout):
    """Dropout of whole examples, for what is added to a shortcut: a block is left out or scaled."""

    def _shape(self, inputs: Tensor) -> torch.Size:
        return torch.Size([len(inputs), *[1] * (inputs.dim() - 1)])


def _mask(shape: torch.Size, dtype: torch.dtype, p: float, generator: torch.Generator) -> Tensor:
    """Zero with probability p, else 1/(1-p), on the CPU: several decisions out of each 64-bit number drawn.

    bernoulli_ took 8.8 ms for the million decisions of CIFAR-10's first dropout; this takes 0.9 ms.
    """
    if p * 256 % 1 == 0:  # 8 bits a decision say it exactly
        levels, view = 256, torch.uint8
    else:
        levels, view = 65536, torch.uint16
    zeros = min(round(p * levels), levels - 1)
    count = math.prod(shape)
    words = torch.empty(-(-count * view.itemsize // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    # float32 holds all levels, bfloat16 does not.
    mask = words.view(view)[:count].to(torch.float32).ge_(zeros).to(dtype).mul_(levels / (levels - zeros))
    if len(shape) != 4:
        return mask.view(shape)
    # Images' activations are channels_last, and a product of unlike strides takes several times as long.
    images, channels, height, width = shape
    return mask.view(images, height, width, channels).permute(0, 3, 1, 2)
