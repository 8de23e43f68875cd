"""A user's own text: its tokens, its blocks, and what is said of what is no text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import seeded

from optevo.errors import UserError
from optevo.tasks import Split, own_data

SMALL = {"window": 4, "width": 8, "layers": 1}


def load(folder: Path, text: str | bytes, **options: Any) -> tuple[Any, dict[str, Split]]:
    (folder / "my text.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    task: Any = own_data("text", "mine", "my text.txt", {**SMALL, **options})
    return task, task.load(folder)


def said(task: Any, split: Split) -> list[str]:
    tokens = [*split.inputs.tolist(), int(split.targets[-1])]
    return [task.known[token] for token in tokens]


def test_characters_are_cut_into_blocks_that_do_not_overlap(tmp_path: Path):
    text = "Größe, 探索.\n" * 50
    task, splits = load(tmp_path, text, validation=0.1, test=0.2)
    assert "".join("".join(said(task, split)) for split in splits.values()) == text
    assert [len(split) + 1 for split in splits.values()] == [385, 55, 110]
    assert all(torch.equal(split.inputs[1:], split.targets[:-1]) for split in splits.values())


def test_words_are_told_apart_as_far_as_the_training_block_has_them(tmp_path: Path):
    text = "the cat sat on the mat .\n" * 30 + "an unseen dog sat on the mat .\n" * 5
    task, splits = load(tmp_path, text, tokens="words", vocabulary=5, validation=0.1, test=0.1)
    assert len(task.known) == 6
    assert task.known[:2] == ["", "the"]
    assert not {*task.known} & {"an", "unseen", "dog"}
    known = said(task, splits["train"])[:8]
    wanted = ["the", "cat", "sat", "on", "the", "mat", ".", "\n"]
    assert known == [word if word in task.known else "" for word in wanted]
    assert "" in said(task, splits["test"])


def test_it_trains_and_scores_by_perplexity(tmp_path: Path):
    task, splits = load(tmp_path, "abcd" * 100)
    model = task.model(seeded(0))
    batch = next(task.batches(splits["train"], 8, seeded(1)))
    assert batch[0].shape == (8, 4)
    task.loss(model, batch).backward()
    score = task.score(model, splits["validation"])
    assert (task.metric, task.has_bonus) == ("-perplexity", False)
    assert -20 < score < -1

    class Knows(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            order = [task.known.index(one) for one in "abcd"]
            follows = {order[i]: order[(i + 1) % 4] for i in range(4)}
            wanted = torch.tensor([[follows[int(t)] for t in row] for row in tokens])
            return torch.nn.functional.one_hot(wanted, len(task.known)).float() * math.log(1e4)

    assert task.score(Knows(), splits["test"]) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "has 0 characters, of which the shortest part gets 0"),
        ("abc " * 20, {}, r"window = 4: take a longer text"),
        (
            b"line one\nline tw\xff\n" * 20,
            {},
            r"my text\.txt, line 2, is no UTF-8 text.*save the file as UTF-8",
        ),
        ("abc", {"tokens": "bytes"}, "tokens = 'bytes'"),
        ("abc", {"width": 6}, "4 heads don't divide the width 6"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str | bytes, options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text, **options)


def test_a_folder_is_no_text(tmp_path: Path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=r"x can't be read"):
        own_data("text", "mine", "x", {}).load(tmp_path)
