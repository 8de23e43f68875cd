"""A recurrent language model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from optevo.tasks.layers import Dropout, build

#: Of Zaremba et al.: up to so many units, weights are uniform in plus or minus so much.
_BOUNDS = ((200, 0.1), (650, 0.05), (math.inf, 0.04))


class LSTM(nn.Module):
    """One layer of long short-term memory, (length, batch, inputs) to (length, batch, units), from zeros on.

    What ``nn.LSTM`` computes with its two biases in one, written out: torch's own can't be stacked by vmap,
    differentiated twice on a GPU, or counted. Gates are in the order input, forget, output, candidate.

    Args:
        inputs: Features of a step.
        units: Of the state.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.given = nn.Linear(inputs, 4 * units)
        self.recurrent = nn.Linear(units, 4 * units, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        state = memory = inputs.new_zeros(inputs.shape[1], self.units)
        states = []
        for given in self.given(inputs).unbind(0):
            gates = given + self.recurrent(state)
            into, kept, out = gates[:, : 3 * self.units].sigmoid().chunk(3, dim=1)
            memory = kept * memory + into * gates[:, 3 * self.units :].tanh()
            state = out * memory.tanh()
            states.append(state)
        return torch.stack(states)


class RecurrentLanguageModel(nn.Module):
    """Next-symbol logits (batch, length, symbols) of int64 symbols (batch, length), each row from zeros on.

    With 650 units, 2 layers and dropout 0.5 the medium model of Zaremba et al., "Recurrent Neural Network
    Regularization", 2014: dropout on what goes into and out of the layers, not from step to step; all
    weights uniform.

    Args:
        symbols: How many there are.
        units: Of each layer, and of the embedding.
        layers: How many.
        dropout: Its probability.
    """

    def __init__(self, *, symbols: int, units: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, units)
        self.before = Dropout(dropout)
        self.layers = nn.Sequential(
            *(part for _ in range(layers) for part in (LSTM(units, units), Dropout(dropout)))
        )
        self.head = nn.Linear(units, symbols)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = next(bound for most, bound in _BOUNDS if self.head.in_features <= most)
        for weight in self.parameters():
            weight.uniform_(-bound, bound, generator=generator)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.initialise(generator)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.layers(self.before(self.symbols(inputs.t())))
        logits: Tensor = self.head(states.transpose(0, 1))
        return logits


def recurrent_language_model(
    generator: torch.Generator, *, symbols: int, units: int, layers: int, dropout: float
) -> RecurrentLanguageModel:
    """`RecurrentLanguageModel`, with weights from `generator`."""
    return build(
        lambda: RecurrentLanguageModel(symbols=symbols, units=units, layers=layers, dropout=dropout),
        generator,
    )
