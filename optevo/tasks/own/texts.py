"""A user's own text as a task: the next character or word."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks.base import Split, Splits, Task, check_batch, evaluating
from optevo.tasks.layers import build
from optevo.tasks.models import CharTransformer
from optevo.tasks.own.options import Shares, chosen, refuse, whole
from optevo.tasks.roots import find
from optevo.tasks.scoring import METRICS

_HEADS = 4  # of a Transformer, which divide its width


class Text(Task):
    """A user's own text, of which a causal Transformer says the next character or word.

    Train, validation and test are blocks of the text, one after another. The metric is minus the perplexity
    a character or word, and so is the fitness.

    Args:
        name: Of the task.
        path: Of a text file in UTF-8. See `optevo.tasks.roots.find`.
        tokens: "characters" or "words", which are what stands between blanks, and the ends of lines. Default:
            "characters".
        vocabulary: Most characters or words that are told apart, the most frequent ones of the training
            part; all others are one. Default: 10,000.
        window: Tokens that a prediction looks back at most. Default: 64.
        width: Of the Transformer, a multiple of 4. Default: 128.
        layers: Of the Transformer. Default: 2.
        validation: Share of the text. Default: 0.05.
        test: The same. Default: 0.05.

    Raises:
        UserError: An option has no such value.
    """

    metric = "-perplexity"
    bonus = False
    score_batch_size = 64

    def __init__(
        self,
        name: str,
        path: str,
        *,
        tokens: str = "characters",
        vocabulary: int = 10_000,
        window: int = 64,
        width: int = 128,
        layers: int = 2,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> None:
        self.name, self.path = name, path
        self.tokens = chosen(name, "tokens", tokens, ("characters", "words"))
        self.vocabulary = whole(name, "vocabulary", vocabulary, 2, 1_000_000)
        self.window = whole(name, "window", window, 2)
        self.width, self.layers = whole(name, "width", width), whole(name, "layers", layers, most=1000)
        if width % _HEADS:
            raise refuse(name, "width", width, f"a multiple of {_HEADS}")
        self.shares = Shares(name, validation, test, 0)
        self.symbols: list[str] = []

    def load(self, root: Path) -> Splits:
        place = find(self.path, root, f"task {self.name!r}")
        text = self._read(place)
        tokens: Sequence[str] = text
        if self.tokens == "words":
            tokens = [token for token in text.replace("\n", " \n ").split(" ") if token]
        parts = self.shares.cut(len(tokens))
        shortest = min(len(tokens[part]) for part in parts.values())
        if shortest <= self.window:
            raise UserError(
                f"task {self.name!r}: {place} has {len(tokens)} {self.tokens}, of which the shortest part "
                f"gets {shortest}, which must be more than window = {self.window}: take a longer text or a "
                "smaller window"
            )
        counts = Counter(tokens[parts["train"]])
        common = sorted(counts, key=lambda token: (-counts[token], token))[: self.vocabulary]
        self.symbols = ["", *common]  # the first stands for all others
        number = {token: i for i, token in enumerate(self.symbols)}
        numbers = (number.get(token, 0) for token in tokens)
        coded = torch.from_numpy(np.fromiter(numbers, np.int32, len(tokens)))
        return {
            name: Split(coded[part][:-1].clone(), coded[part][1:].clone()) for name, part in parts.items()
        }

    def _read(self, place: Path) -> str:
        try:
            content = place.read_bytes()
        except OSError as error:
            raise UserError(f"task {self.name!r}: {place} can't be read ({error.strerror})") from error
        self.identity = hashlib.sha256(content).hexdigest()[:16]
        try:
            return content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise UserError(
                f"task {self.name!r}: {place}, line {line}, is no UTF-8 text ({error.reason}): save the "
                "file as UTF-8"
            ) from error

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(
            lambda: CharTransformer(
                symbols=len(self.symbols),
                window=self.window,
                width=self.width,
                heads=_HEADS,
                layers=self.layers,
                hidden=4 * self.width,
                dropout=0.1,
            ),
            generator,
        )

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows at random places, without end: int64 (batch, window), and the same one token on."""
        places = len(split) - self.window + 1
        check_batch(self.name, places, batch_size)
        steps = torch.arange(self.window, device=split.device)
        while True:
            starts = torch.randint(0, places, (batch_size, 1), generator=generator, device=split.device)
            yield split.inputs[starts + steps].long(), split.targets[starts + steps].long()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def score(self, model: nn.Module, split: Split) -> float:
        """Over windows that don't overlap; a last partial one is left out."""
        windows = len(split) // self.window
        inputs, targets = (
            each[: windows * self.window].view(windows, self.window).long()
            for each in (split.inputs, split.targets)
        )
        with evaluating(model):
            parts = (
                (model(one).flatten(0, 1), next_ones.flatten())
                for one, next_ones in zip(
                    inputs.split(self.score_batch_size), targets.split(self.score_batch_size), strict=True
                )
            )
            return METRICS["-perplexity"](parts, targets.flatten()).item()
