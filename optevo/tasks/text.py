"""Language modelling: the next byte of Shakespeare, the next word of the Penn Treebank."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import models, recurrent
from optevo.tasks.base import Split, Splits, Task, check_batch, evaluating
from optevo.tasks.data import load_text
from optevo.tasks.image_task import check_count, check_option
from optevo.tasks.layers import build
from optevo.tasks.treebank import WORDS, load_treebank


class _Text(Task):
    """A text in windows, each apart from all others: (N,) symbols, and the same text one on as the targets.

    Attributes:
        window: Symbols that a network sees at a time.
    """

    window: int

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows at uniformly random places, without end: int64 (batch, window), and the same one on."""
        places = len(split) - self.window + 1
        check_batch(self.name, places, batch_size)
        steps = torch.arange(self.window, device=split.device)
        while True:
            starts = torch.randint(0, places, (batch_size, 1), generator=generator, device=split.device)
            chosen = starts + steps
            yield split.inputs[chosen].long(), split.targets[chosen].long()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


class CharLM(_Text):
    """Bytes of Tiny Shakespeare in windows of 64, with the published 2-layer causal Transformer.

    The first 90 % of the text train; the rest is halved into validation, then test. A split is the text
    itself, uint8 (N,), and the same text one byte on as the targets.
    """

    name = "char_lm"
    metric = "1 - perplexity/100"
    score_batch_size = 128
    window = 64

    def load(self, root: Path) -> Splits:
        return _bytes_of_shakespeare(root, self.window)

    def model(self, generator: torch.Generator) -> nn.Module:
        return models.char_transformer(generator)

    def score(self, model: nn.Module, split: Split) -> float:
        """max(0, 1 - perplexity / 100) over non-overlapping windows; a last partial one is left out."""
        windows = len(split) // self.window
        inputs = split.inputs[: windows * self.window].view(windows, self.window)
        targets = split.targets[: windows * self.window].view(windows, self.window)
        total = torch.zeros((), dtype=torch.float64, device=split.device)
        with evaluating(model):
            for start in range(0, windows, self.score_batch_size):
                chosen = slice(start, start + self.score_batch_size)
                logits = model(inputs[chosen].long()).flatten(0, 1).float()
                total += F.cross_entropy(logits, targets[chosen].long().flatten(), reduction="sum")
        perplexity = (total / (windows * self.window)).exp().item()
        return max(0.0, 1 - perplexity / 100)  # a perplexity of NaN or infinity scores 0


def _bytes_of_shakespeare(root: Path, window: int) -> Splits:
    text = load_text(root, least=40 * window)  # so that each twentieth holds a window and its targets
    train, validation = len(text) * 9 // 10, len(text) * 19 // 20
    return next_symbols(
        {"train": text[:train], "validation": text[train:validation], "test": text[validation:]}
    )


def next_symbols(parts: dict[str, Tensor]) -> Splits:
    """Of each part its symbols, and those that follow."""
    return {key: Split(part[:-1].clone(), part[1:].clone()) for key, part in parts.items()}


class LanguageTask(_Text):
    """A text with a recurrent network or a Transformer, scored by its perplexity.

    The published recurrent model goes through the text with a few rows that lie in one piece each, and keeps
    its state from one batch to the next. Here batches are independent, as of every task, so that they can be
    drawn, stacked and repeated: each window begins with a state of zeros. So perplexities are somewhat
    above published ones.

    Args:
        network: "lstm", `recurrent.RecurrentLanguageModel`, or "transformer", `models.CharTransformer` with
            a feed-forward part of four times its width. Default: "lstm".
        width: Units of a layer. Default: 650 of an LSTM, 256 of a Transformer.
        layers: How many. Default: 2.
        window: Symbols that the network sees at a time. Default: 35 of an LSTM, 64 of a Transformer.
        heads: Of a Transformer, which divide the width. Default: 4.
        dropout: Its probability. Default: 0.5 of an LSTM, 0.1 of a Transformer.

    Raises:
        UserError: An option has no such value. `load` raises it where data are missing or damaged.
    """

    metric = "-perplexity"
    bonus = False
    symbols: int

    def __init__(
        self,
        *,
        network: str = "lstm",
        width: int | None = None,
        layers: int = 2,
        window: int | None = None,
        heads: int | None = None,
        dropout: float | None = None,
    ) -> None:
        check_option(self.name, "network", network, ("lstm", "transformer"))
        recurs = network == "lstm"
        if heads is not None and recurs:
            raise UserError(f"task {self.name}: heads is for network = 'transformer', not 'lstm'")
        self.network = network
        self.width = check_count(self.name, "width", (650 if recurs else 256) if width is None else width)
        self.layers = check_count(self.name, "layers", layers)
        self.window = check_count(self.name, "window", (35 if recurs else 64) if window is None else window)
        self.heads = check_count(self.name, "heads", 4 if heads is None else heads)
        if not recurs and self.width % self.heads:
            raise UserError(f"task {self.name}: {self.heads} heads don't divide the width {self.width}")
        self.dropout = (0.5 if recurs else 0.1) if dropout is None else dropout
        if not 0 <= self.dropout < 1:
            raise UserError(f"task {self.name}: dropout must be in [0, 1), not {dropout!r}")

    def model(self, generator: torch.Generator) -> nn.Module:
        if self.network == "lstm":
            return recurrent.recurrent_language_model(
                generator, symbols=self.symbols, units=self.width, layers=self.layers, dropout=self.dropout
            )
        return build(
            lambda: models.CharTransformer(
                symbols=self.symbols,
                window=self.window,
                width=self.width,
                heads=self.heads,
                layers=self.layers,
                hidden=4 * self.width,
                dropout=self.dropout,
            ),
            generator,
        )

    def score(self, model: nn.Module, split: Split) -> float:
        """Minus the perplexity over all symbols, each counted once.

        Windows overlap by half: what is counted of them has at least half a window before it, but for the
        first one.
        """
        length, window = len(split), min(self.window, len(split))
        starts = [*range(0, length - window, window - window // 2), length - window]
        new = torch.tensor([window, *(b - a for a, b in itertools.pairwise(starts))])
        counted = torch.arange(window) >= window - new[:, None]  # as the ends of what is new
        counted, places = counted.to(split.device), torch.tensor(starts, device=split.device)
        steps = torch.arange(window, device=split.device)
        total = torch.zeros((), dtype=torch.float64, device=split.device)
        with evaluating(model):
            for first in range(0, len(starts), self.score_batch_size):
                rows = slice(first, first + self.score_batch_size)
                chosen = places[rows, None] + steps
                logits = model(split.inputs[chosen].long()).flatten(0, 1).float()
                losses = F.cross_entropy(logits, split.targets[chosen].long().flatten(), reduction="none")
                total += (losses * counted[rows].flatten()).sum()
        return -(total / length).exp().item()


class Shakespeare(LanguageTask):
    """Bytes of Tiny Shakespeare: those of `CharLM`, with other networks and the perplexity of a byte."""

    name = "shakespeare"
    symbols = 256
    score_batch_size = 128

    def load(self, root: Path) -> Splits:
        return _bytes_of_shakespeare(root, self.window)


class PennTreebank(LanguageTask):
    """Words of the Penn Treebank as Mikolov prepared it, in the official parts: the perplexity of a word."""

    name = "ptb"
    symbols = WORDS
    score_batch_size = 20  # of 10,000 logits a word

    def load(self, root: Path) -> Splits:
        return next_symbols(load_treebank(root, least=self.window + 1))
