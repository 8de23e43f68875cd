"""A user's own text as a task: the next character or word."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from optevo.errors import UserError
from optevo.tasks.base import Splits
from optevo.tasks.own.options import Shares, chosen, whole
from optevo.tasks.roots import find
from optevo.tasks.text import LanguageTask, next_symbols


class Text(LanguageTask):
    """A user's own text, of which a network says the next character or word.

    Train, validation and test are blocks of the text, one after another. The metric is minus the perplexity
    of a character or word, and so is the fitness.

    Args:
        name: Of the task.
        path: Of a text file in UTF-8. See `optevo.tasks.roots.find`.
        tokens: "characters" or "words", which are what stands between blanks, and the ends of lines. Default:
            "characters".
        vocabulary: Most characters or words that are told apart, the most frequent ones of the training
            part; all others are one. Default: 10,000.
        validation: Share of the text. Default: 0.05.
        test: The same. Default: 0.05.
        network: "transformer" or "lstm", see `LanguageTask`. Default: "transformer".
        width: Of its layers. Default: 128.
        layers, window, heads, dropout: See `LanguageTask`.

    Raises:
        UserError: An option has no such value.
    """

    score_batch_size = 20  # of up to 10,001 logits a token

    def __init__(
        self,
        name: str,
        path: str,
        *,
        tokens: str = "characters",
        vocabulary: int = 10_000,
        validation: float = 0.05,
        test: float = 0.05,
        network: str = "transformer",
        width: int = 128,
        layers: int = 2,
        window: int | None = None,
        heads: int | None = None,
        dropout: float | None = None,
    ) -> None:
        self.name, self.path = name, path
        self.tokens = chosen(name, "tokens", tokens, ("characters", "words"))
        self.vocabulary = whole(name, "vocabulary", vocabulary, 2, 1_000_000)
        self.shares = Shares(name, validation, test, 0)
        super().__init__(
            network=network, width=width, layers=layers, window=window, heads=heads, dropout=dropout
        )

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
        self.known = ["", *common]  # the first stands for all others
        self.symbols = len(self.known)
        number = {token: i for i, token in enumerate(self.known)}
        numbers = (number.get(token, 0) for token in tokens)
        coded = torch.from_numpy(np.fromiter(numbers, np.int32, len(tokens)))
        return next_symbols({name: coded[part] for name, part in parts.items()})

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
