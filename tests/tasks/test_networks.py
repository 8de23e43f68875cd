"""Networks: as published, reproducible, and drawn alike in a stack."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import pytest
import torch
from small_tasks import DEVICES, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import Dropout, Split, build, get_task, initialise, models
from optevo.tasks.text import CharLM


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("small_cnn", 824_458), ("cifar_cnn", 2_168_554), ("mlp", 6_570), ("char_transformer", 470_528)],
)
def test_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    model = getattr(models, name)(seeded())
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())
    assert model.training


def published(name: str) -> nn.Sequential:
    """The networks as the publication writes them, without dropout, of torch's modules alone."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        ]

    def head(features: int, hidden: int) -> list[nn.Module]:
        return [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 10)]

    if name == "cifar_cnn":
        return nn.Sequential(*block(3, 32), *block(32, 64), *head(4096, 512))
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *head(3136, 256),
    )


@pytest.mark.parametrize("flat", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize(("name", "shape"), [("small_cnn", (8, 1, 28, 28)), ("cifar_cnn", (8, 3, 32, 32))])
def test_the_networks_compute_what_the_published_ones_do(
    name: str, shape: tuple[int, ...], flat: bool
) -> None:
    theirs, ours = published(name).double(), getattr(models, name)(seeded()).double()
    size = shape[2] // 4

    def reorder(weight: Tensor) -> Tensor:
        """Ours count features with the channels innermost."""
        return (
            weight.view(-1, size, size, 64).permute(0, 3, 1, 2).flatten(1)
            if weight.shape[1:] == (64 * size * size,)
            else weight
        )

    values = [reorder(value) for value in ours.state_dict().values() if value.dtype == torch.float64]
    keys = [key for key, value in theirs.state_dict().items() if value.dtype == torch.float64]
    theirs.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)
    for module in ours.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    inputs = torch.randn(shape, dtype=torch.float64, generator=seeded())
    if flat:  # wide areas of one value, where all of a pooling window is equal
        inputs = (inputs > 1.5).double()
    targets = torch.arange(8)
    for model, layout in ((theirs, torch.contiguous_format), (ours, torch.channels_last)):
        out = model(inputs.contiguous(memory_format=layout))
        F.cross_entropy(out, targets).backward()
    torch.testing.assert_close(out, theirs(inputs))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(reorder(p.grad), q.grad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(300, 200),
        lambda: nn.Conv2d(16, 64, 3),
        lambda: nn.Conv2d(32, 64, 3, groups=2),
        lambda: nn.Embedding(200, 100),
        lambda: nn.BatchNorm2d(8),
        lambda: nn.LayerNorm(8),
    ],
)
def test_weights_are_distributed_as_torchs_defaults(make: type[nn.Module]) -> None:
    torch.manual_seed(0)  # for theirs
    theirs, ours = dict(make().named_parameters()), dict(build(make, seeded()).named_parameters())
    assert theirs.keys() == ours.keys()
    for key, expected in theirs.items():
        _same_distribution(ours[key], expected)


def _same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Two samples' largest gap between distribution functions stays below its 99.99 % bound."""
    a, b = ours.detach().flatten().sort()[0], theirs.detach().flatten().sort()[0]
    assert a.shape == b.shape
    points = torch.cat([a, b])
    below = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (a, b)]
    assert (below[0] - below[1]).abs().max() <= 2.23 * math.sqrt(2 / len(a))


def test_attention_starts_as_torchs_does() -> None:
    torch.manual_seed(0)  # for theirs
    theirs = nn.MultiheadAttention(128, 4, batch_first=True)
    ours = build(lambda: models.CausalAttention(128, 4, 0.1), seeded())
    _same_distribution(ours.in_proj.weight, theirs.in_proj_weight)
    _same_distribution(ours.out_proj.weight, theirs.out_proj.weight)
    assert not ours.in_proj.bias.any()
    assert not ours.out_proj.bias.any()


def test_the_transformer_layer_computes_what_torchs_encoder_layer_does() -> None:
    ours = build(lambda: models.TransformerLayer(128, 4, 512, 0.1), seeded()).eval()
    theirs = nn.TransformerEncoderLayer(128, 4, 512, 0.1, batch_first=True).eval()
    pairs = [
        (theirs.self_attn.out_proj, ours.attention.out_proj),
        (theirs.linear1, ours.feed_forward[0]),
        (theirs.linear2, ours.feed_forward[3]),
        (theirs.norm1, ours.attention_norm),
        (theirs.norm2, ours.feed_forward_norm),
    ]
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    theirs.self_attn.in_proj_weight.data.copy_(ours.attention.in_proj.weight)
    theirs.self_attn.in_proj_bias.data.copy_(ours.attention.in_proj.bias)
    inputs = torch.randn(3, 64, 128, generator=seeded())
    mask = nn.Transformer.generate_square_subsequent_mask(64)
    torch.testing.assert_close(ours(inputs), theirs(inputs, src_mask=mask), rtol=1e-4, atol=1e-5)


def test_the_language_model_sees_nothing_of_the_future() -> None:
    model = models.char_transformer(seeded()).eval()
    text = torch.randint(0, 256, (1, 64), generator=seeded())
    other = text.clone()
    other[0, 40:] = 7
    torch.testing.assert_close(model(text)[:, :40], model(other)[:, :40])
    assert not torch.equal(model(text)[:, 40:], model(other)[:, 40:])


def test_the_language_score_is_that_of_one_window_after_another(root: Path) -> None:
    task = get_task("char_lm")
    split = task.load(root)["validation"]
    model = task.model(seeded())
    assert isinstance(model, models.CharTransformer)
    with torch.no_grad():  # all but sure that the next byte can be printed: a perplexity of about 95
        model.head.weight.mul_(0.1)
        model.head.bias[32:127] = 20
    model.eval()
    losses = []
    for start in range(0, len(split) - CharLM.window + 1, CharLM.window):
        chosen = slice(start, start + CharLM.window)
        losses.append(
            F.cross_entropy(model(split.inputs[None, chosen].long())[0], split.targets[chosen].long())
        )
    expected = max(0.0, 1 - torch.stack(losses).mean().exp().item() / 100)
    assert 0 < expected < 0.2
    assert task.score(model, split) == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    assert task.score(model, split) == 0


def test_the_language_score_of_a_uniform_guess_among_50_symbols_is_a_half() -> None:
    task = get_task("char_lm")
    text = torch.randint(0, 50, (641,), generator=seeded()).to(torch.uint8)
    model = task.model(seeded())
    assert isinstance(model, models.CharTransformer)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(-100)
        model.head.bias[:50] = 0
    assert task.score(model, Split(text[:-1], text[1:])) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_zeroes_a_share_p_and_keeps_the_mean(device: str) -> None:
    dropout = Dropout(0.3, seed=1)
    ones = torch.ones(200_000, device=device)
    out = dropout(ones)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.006)
    assert torch.all((out == 0) | torch.isclose(out, torch.tensor(1 / 0.7, device=device)))
    assert not torch.equal(out, dropout(ones))
    assert dropout.eval()(ones) is ones
    assert Dropout(0.0)(ones) is ones


def test_a_copied_and_a_restored_dropout_go_on_as_the_original() -> None:
    original, ones = Dropout(0.5, seed=1), torch.ones(100)
    original(ones)
    copied, restored = copy.deepcopy(original), Dropout(0.5)
    buffer = io.BytesIO()
    torch.save(original.state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    again = copy.deepcopy(restored)  # before its generator exists
    following = original(ones)
    assert all(torch.equal(following, other(ones)) for other in (copied, restored, again))
    assert not torch.equal(following, copied(ones))


def test_a_fresh_dropout_copies_its_seed() -> None:
    ones = torch.ones(100)
    assert torch.equal(copy.deepcopy(Dropout(0.5, seed=7))(ones), Dropout(0.5, seed=7)(ones))
    assert not torch.equal(Dropout(0.5, seed=7)(ones), Dropout(0.5, seed=8)(ones))


def test_dropouts_of_one_model_draw_apart() -> None:
    model = models.cifar_cnn(seeded())
    seeds = [module.seed for module in model.modules() if isinstance(module, Dropout)]
    assert len(set(seeds)) == len(seeds) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.5, 0.999, 1 / 65536])
def test_dropout_zeroes_as_often_as_p_says(p: float, dtype: torch.dtype) -> None:
    count = 1_000_001
    zeros = int((Dropout(p, seed=4)(torch.ones(count, dtype=dtype)) == 0).sum())
    assert abs(zeros - p * count) < 4 * math.sqrt(p * (1 - p) * count) + count / 131072


@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.5, 0.999])
def test_dropout_scales_by_the_share_that_it_keeps(p: float) -> None:
    kept = 1 - round(p * 65536) / 65536
    out = Dropout(p)(torch.ones(10_000, dtype=torch.float64))
    assert out[out > 0].unique().tolist() == [1 / kept]


@pytest.mark.parametrize("p", [0.25, 0.3])
def test_dropouts_decisions_are_independent(p: float) -> None:
    """No covariance between neighbours, those out of one 64-bit number included, nor between calls."""
    dropout, count = Dropout(p, seed=2), 800_000
    first, second = (dropout(torch.ones(count)) == 0).double(), (dropout(torch.ones(count)) == 0).double()
    bound = 4.5 * p * (1 - p) / math.sqrt(count)
    for lag in range(1, 17):
        assert abs(((first[lag:] - p) * (first[:-lag] - p)).mean()) < bound
    assert abs(((first - p) * (second - p)).mean()) < bound


def test_dropout_draws_for_ever_what_it_draws_today() -> None:
    """Runs of years may be repeated with it: these digits are not to be updated."""
    for p, expected in ((0.5, "11001000000100101110"), (0.3, "10000110101111011011")):
        out = Dropout(p, seed=11)(torch.ones(20))
        assert "".join("01"[int(x > 0)] for x in out) == expected


@pytest.mark.parametrize("shape", [(), (0,), (1,), (13,), (3, 5, 7), (2, 3, 5, 7), (2, 0, 3, 4)])
def test_dropout_takes_any_shape_and_layout_and_draws_the_same(shape: tuple[int, ...]) -> None:
    ones = torch.ones(shape)
    out = Dropout(0.3, seed=1)(ones)
    assert out.shape == ones.shape
    if out.numel() and out.dim() == 4:
        last = ones.contiguous(memory_format=torch.channels_last)
        assert Dropout(0.3, seed=1)(last).stride() == last.stride()
        assert torch.equal(Dropout(0.3, seed=1)(last), out)


@pytest.mark.parametrize("shape", [(20, 30), (4, 3, 6, 6)])
def test_stacked_dropouts_share_the_mask_of_one(shape: tuple[int, ...]) -> None:
    stacked = torch.vmap(Dropout(0.3, seed=1), randomness="same")(torch.ones(5, *shape))
    assert torch.equal(stacked, Dropout(0.3, seed=1)(torch.ones(shape)).expand(5, *shape))


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_refuses_an_impossible_probability(p: float) -> None:
    with pytest.raises(ValueError, match="p must be"):
        Dropout(p)


@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.1), lambda: nn.LSTM(3, 3)])
def test_modules_that_would_break_reproducibility_are_refused(make: type[nn.Module]) -> None:
    with pytest.raises(UserError, match=r"optevo\.tasks\.Dropout|initialise\(generator\)"):
        initialise(make(), seeded())
