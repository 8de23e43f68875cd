"""The Penn Treebank, word by word, as Mikolov prepared it."""

from __future__ import annotations

import collections
from pathlib import Path

import torch
from torch import Tensor

from optevo.errors import UserError
from optevo.tasks.roots import holds, require_root

FOLDER = "ptb"
FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
WORDS = 10_000  # with the end of a sentence
_END, _UNKNOWN = "<eos>", "<unk>"


def remedy(root: Path) -> str:
    """What a user can do about missing or damaged files, as the end of a message."""
    return (
        f"put {', '.join(FILES.values())} of Mikolov's simple-examples into {root / FOLDER} (the text is the "
        "Linguistic Data Consortium's), or point OPTEVO_DATA or --data-dir at a folder that has them"
    )


def load_treebank(root: Path, least: int) -> dict[str, Tensor]:
    """The three parts as int16 numbers of words (N,), by their frequency in train, then by the word.

    Each line ends with a word of its own. A word that train lacks is "<unk>".

    Args:
        root: The data root.
        least: How many words each part must have.

    Raises:
        UserError: A file is missing, too short, no text, or has more kinds of words than there are.
    """
    require_root(root)
    words = {part: _words(root / FOLDER / name, root) for part, name in FILES.items()}
    counts = collections.Counter(words["train"])
    if len(counts) > WORDS:
        raise UserError(
            f"{root / FOLDER / FILES['train']} has {len(counts)} kinds of words, not at most {WORDS}: "
            f"{remedy(root)}"
        )
    numbers = {word: i for i, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))}
    parts = {}
    for part, of_part in words.items():
        new = next((word for word in of_part if word not in numbers), None)
        if new is not None and _UNKNOWN not in numbers:
            raise UserError(
                f"{root / FOLDER / FILES[part]} has {new!r}, a word that train lacks: {remedy(root)}"
            )
        if len(of_part) < least:
            said = f"has {len(of_part)} words, not at least {least}"
            raise UserError(f"{root / FOLDER / FILES[part]} {said}: {remedy(root)}")
        known = [numbers.get(word, numbers.get(_UNKNOWN, 0)) for word in of_part]
        parts[part] = torch.tensor(known, dtype=torch.int16)
    return parts


def _words(path: Path, root: Path) -> list[str]:
    try:
        if not path.is_file():
            raise UserError(
                f"no data for the task ptb: {path} is missing; {holds(path.parent)}: {remedy(root)}"
            )
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}): {remedy(root)}") from error
    return [word for line in text.splitlines() for word in (*line.split(), _END)]
