"""Language modelling: the next byte of Shakespeare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.tasks import models
from optevo.tasks.base import Split, Splits, Task, check_batch, evaluating
from optevo.tasks.data import load_text

WINDOW = 64


class CharLM(Task):
    """Bytes of Tiny Shakespeare in windows of 64, with the published 2-layer causal Transformer.

    The first 90 % of the text train; the rest is halved into validation, then test. A split is the text
    itself, uint8 (N,), and the same text one byte on as the targets.
    """

    name = "char_lm"
    metric = "1 - perplexity/100"
    score_batch_size = 128

    def load(self, root: Path) -> Splits:
        text = load_text(root, least=40 * WINDOW)  # so that each twentieth holds a window and its targets
        train, validation = len(text) * 9 // 10, len(text) * 19 // 20
        parts = {"train": text[:train], "validation": text[train:validation], "test": text[validation:]}
        return {key: Split(part[:-1].clone(), part[1:].clone()) for key, part in parts.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return models.char_transformer(generator)

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows at uniformly random places, without end: int64 (batch, 64), and the same one byte on."""
        places = len(split) - WINDOW + 1
        check_batch(self.name, places, batch_size)
        steps = torch.arange(WINDOW, device=split.device)
        while True:
            starts = torch.randint(0, places, (batch_size, 1), generator=generator, device=split.device)
            chosen = starts + steps
            yield split.inputs[chosen].long(), split.targets[chosen].long()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def score(self, model: nn.Module, split: Split) -> float:
        """max(0, 1 - perplexity / 100) over non-overlapping windows; a last partial one is left out."""
        windows = len(split) // WINDOW
        inputs = split.inputs[: windows * WINDOW].view(windows, WINDOW)
        targets = split.targets[: windows * WINDOW].view(windows, WINDOW)
        total = torch.zeros((), dtype=torch.float64, device=split.device)
        with evaluating(model):
            for start in range(0, windows, self.score_batch_size):
                chosen = slice(start, start + self.score_batch_size)
                logits = model(inputs[chosen].long()).flatten(0, 1).float()
                total += F.cross_entropy(logits, targets[chosen].long().flatten(), reduction="sum")
        perplexity = (total / (windows * WINDOW)).exp().item()
        return max(0.0, 1 - perplexity / 100)  # a perplexity of NaN or infinity scores 0
