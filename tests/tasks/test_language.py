"""Language models on bytes and words, and their perplexity."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import seeded
from torch import nn

from optevo.errors import UserError
from optevo.tasks import Split, build, get_task
from optevo.tasks.data import check
from optevo.tasks.recurrent import LSTM, recurrent_language_model
from optevo.tasks.treebank import load_treebank


def test_the_recurrent_layer_computes_what_torchs_does() -> None:
    ours, theirs = build(lambda: LSTM(5, 7), seeded()).double(), nn.LSTM(5, 7).double()
    with torch.no_grad():  # torch's order is input, forget, candidate, output
        for target, source in (
            (theirs.weight_ih_l0, ours.given.weight),
            (theirs.weight_hh_l0, ours.recurrent.weight),
            (theirs.bias_ih_l0, ours.given.bias),
        ):
            into, kept, out, candidate = source.chunk(4)
            target.copy_(torch.cat([into, kept, candidate, out]))
        theirs.bias_hh_l0.zero_()
    inputs = torch.randn(6, 3, 5, dtype=torch.float64, generator=seeded(1))
    torch.testing.assert_close(ours(inputs), theirs(inputs)[0])


def test_the_medium_model_is_the_published_one() -> None:
    model = get_task("ptb").model(seeded())
    assert sum(p.numel() for p in model.parameters()) == 19_775_200
    assert all(0.049 < p.abs().max() <= 0.05 for p in model.parameters())
    assert [module.p for module in model.modules() if type(module).__name__ == "Dropout"] == [0.5] * 3


@pytest.mark.parametrize("network", ["lstm", "transformer"])
def test_a_language_model_sees_nothing_of_the_future(network: str) -> None:
    task = get_task("shakespeare", network=network, width=8, window=12, dropout=0.0)
    model = task.model(seeded()).eval()
    text = torch.randint(0, 256, (2, 12), generator=seeded())
    other = text.clone()
    other[:, 7:] = 3
    before, after = model(text), model(other)
    assert before.shape == (2, 12, 256)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_dropout_of_the_recurrent_model_is_its_own() -> None:
    options: dict[str, Any] = {"symbols": 9, "units": 6, "layers": 2, "dropout": 0.5}
    text = torch.randint(0, 9, (2, 5), generator=seeded())
    before = torch.random.get_rng_state()
    first, second = (recurrent_language_model(seeded(3), **options) for _ in range(2))
    outs = [first(text), first(text), second(text)]
    assert torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0], outs[1])
    assert torch.equal(before, torch.random.get_rng_state())


class _Counting(nn.Module):
    """Says of each place how surely it knows the next symbol, by the length of what it has seen."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        seen = torch.arange(1.0, inputs.shape[1] + 1).expand(inputs.shape)
        return torch.stack([seen, torch.zeros_like(seen)], dim=-1)


@pytest.mark.parametrize("length", [4, 6, 7, 16, 17, 31])
@pytest.mark.parametrize("window", [1, 4, 5])
def test_perplexity_counts_every_symbol_once_with_half_a_window_before_it(length: int, window: int) -> None:
    task = get_task("shakespeare", window=window, width=4)
    task.score_batch_size = 2
    zeros = torch.zeros(length, dtype=torch.uint8)
    perplexity = -task.score(_Counting(), Split(zeros, zeros))
    window = min(window, length)
    seen = [*range(1, window + 1)]  # by the first window
    while len(seen) < length:
        new = min(window - window // 2, length - len(seen))
        seen += range(window - new + 1, window + 1)
    expected = math.exp(sum(math.log1p(math.exp(-n)) for n in seen) / length)
    assert perplexity == pytest.approx(expected, rel=1e-5)
    assert min(seen[window:], default=window) > window // 2 - 1


def test_an_untrained_network_has_the_perplexity_of_its_symbols() -> None:
    task = get_task("shakespeare", width=8, layers=1, window=8)
    split = Split(*torch.randint(0, 256, (2, 500), dtype=torch.uint8, generator=seeded()))
    assert -task.score(task.model(seeded()), split) == pytest.approx(256, rel=0.02)
    assert not task.has_bonus


def test_an_lstm_learns_a_text_that_repeats() -> None:
    task = get_task("shakespeare", width=32, layers=1, window=8, dropout=0.0)
    text = torch.tensor([*b"abcdefgh"] * 40, dtype=torch.uint8)
    split = Split(text[:-1], text[1:])
    model, batches = task.model(seeded()), task.batches(split, 16, seeded(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        task.loss(model, next(batches)).backward()
        optimizer.step()
    assert -task.score(model, split) < 1.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "gru"}, "network must be 'lstm' or 'transformer', not 'gru'"),
        ({"heads": 2}, "heads is for network = 'transformer'"),
        ({"network": "transformer", "width": 10}, "4 heads don't divide the width 10"),
        ({"width": 0}, "width must be a whole number of at least 1, not 0"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_an_option_of_another_value_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_task("ptb", **options)


# --- the files --------------------------------------------------------------------------------------------


def write(root: Path, **texts: str) -> None:
    (root / "ptb").mkdir(exist_ok=True)
    for part, text in {"train": " a b <unk> \n a \n", "valid": " b b \n", "test": " a \n"}.items():
        (root / "ptb" / f"ptb.{part}.txt").write_text(texts.get(part, text), encoding="utf-8")


def test_words_are_numbered_by_their_frequency(tmp_path: Path) -> None:
    write(tmp_path, test=" c b \n")
    parts = load_treebank(tmp_path, 1)
    # <eos> and a twice, then <unk> and b.
    assert {part: numbers.tolist() for part, numbers in parts.items()} == {
        "train": [1, 3, 2, 0, 1, 0],
        "validation": [3, 3, 0],
        "test": [2, 3, 0],
    }
    assert [row.published for row in check("ptb", tmp_path)] == [False] * 3


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"train": " a b \n", "test": " c \n"}, "ptb.test.txt has 'c', a word that train lacks"),
        ({"valid": ""}, "ptb.valid.txt has 0 words, not at least 2"),
        ({"train": " ".join(map(str, range(10_000)))}, "has 10001 kinds of words, not at most 10000"),
    ],
)
def test_another_text_is_refused(tmp_path: Path, texts: dict[str, str], said: str) -> None:
    write(tmp_path, **texts)
    with pytest.raises(UserError, match=said):
        load_treebank(tmp_path, 2)


def test_missing_files_are_told_with_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ptb.train.txt is missing; .*: put ptb.train.txt, .* into .*ptb"):
        get_task("ptb").load(tmp_path)
    write(tmp_path)
    (tmp_path / "ptb" / "ptb.test.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"ptb.test.txt can't be read"):
        load_treebank(tmp_path, 1)
