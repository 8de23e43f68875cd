"""The contract of every registered task, and the networks. No real data needed but scikit-learn's digits."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import TASKS, Dropout, Split, Task, build, get_task, initialise, models, vision
from optevo.tasks.text import WINDOW
from optevo.tasks.vision import crop_and_flip, fixed_order, stratified_order

#: Options for the small made-up sets below; a task that is registered without a line here fails a test.
OPTIONS: dict[str, dict[str, int]] = {
    "digits": {},
    "mnist": {"train_examples": 40, "validation_examples": 20},
    "fashion_mnist": {"train_examples": 40, "validation_examples": 20},
    "cifar10": {"train_examples": 40, "validation_examples": 20},
    "char_lm": {},
}
BATCH = 16
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root of random images and bytes, small enough to decode at once."""
    folder = tmp_path_factory.mktemp("root")
    noise = np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("fashion_mnist", (28, 28)), ("cifar10", (32, 32, 3))):
        for part, count in (("train", 6), ("test", 2)):
            for kind in range(10):
                place = folder / name / part / f"class{kind}"
                place.mkdir(parents=True)
                for number in range(count):
                    pixels = noise.integers(0, 256, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare" / "input.txt").write_bytes(
        noise.integers(32, 127, 8_000, dtype=np.uint8).tobytes()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTEVO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return get_task(request.param, **OPTIONS[request.param])


def train(task: Task, root: Path, *, steps: int, device: str = "cpu") -> tuple[list[float], nn.Module]:
    split = task.load(root)["train"].to(device)
    model = task.model(seeded(1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for batch in islice(task.batches(split, BATCH, seeded(2, device)), steps):
        loss = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist(), model


def test_every_registered_task_has_options_here() -> None:
    assert set(OPTIONS) == set(TASKS)


def test_a_task_is_named_as_it_is_registered(task: Task) -> None:
    assert TASKS[task.name] == f"{type(task).__module__}:{type(task).__name__}"


def test_loading_twice_gives_equal_splits_on_the_cpu(task: Task, root: Path) -> None:
    first = task.load(root)
    torch.manual_seed(99)  # the split may not depend on global state
    second = task.load(root)
    assert list(first) == ["train", "validation", "test"]
    for key, split in first.items():
        assert split.device.type == "cpu"
        assert split.inputs.dtype == torch.uint8
        assert torch.equal(split.inputs, second[key].inputs)
        assert torch.equal(split.targets, second[key].targets)


def test_splits_share_no_example(task: Task, root: Path) -> None:
    if task.name == "char_lm":
        text = (root / "tinyshakespeare" / "input.txt").read_bytes()
        parts = [bytes(split.inputs.tolist()) for split in task.load(root).values()]
        assert [len(part) + 1 for part in parts] == [7_200, 400, 400]
        assert (text[:7_199], text[7_200:7_599], text[7_600:7_999]) == tuple(parts)
        return
    seen = [{bytes(image.flatten().tolist()) for image in split.inputs} for split in task.load(root).values()]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_equal_seeds_give_equal_models_and_other_seeds_others(task: Task) -> None:
    first, second, third = (task.model(seeded(seed)).state_dict() for seed in (3, 3, 4))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_seeds_give_equal_batches_and_other_seeds_others(task: Task, root: Path, device: str) -> None:
    split = task.load(root)["train"].to(device)
    first, second, third = (
        list(islice(task.batches(split, BATCH, seeded(seed, device)), 6)) for seed in (3, 3, 4)
    )
    for (inputs, targets), (same_inputs, same_targets) in zip(first, second, strict=True):
        assert inputs.device.type == device
        assert len(inputs) == len(targets) == BATCH
        assert torch.equal(inputs, same_inputs)
        assert torch.equal(targets, same_targets)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(first, third, strict=True))


def test_training_twice_gives_the_same_losses_to_the_last_bit(task: Task, root: Path) -> None:
    assert train(task, root, steps=3)[0] == train(task, root, steps=3)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_leaves_every_global_generator_alone(task: Task, root: Path, device: str) -> None:
    split = task.load(root)["validation"].to(device)
    before = torch.random.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    on_device = torch.cuda.get_rng_state() if device == "cuda" else None
    _, model = train(task, root, steps=2, device=device)
    task.score(model, split)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == str(np.random.get_state())  # noqa: NPY002
    if on_device is not None:
        assert torch.equal(on_device, torch.cuda.get_rng_state())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_and_loss_never_wait_for_the_device(task: Task, root: Path) -> None:
    split = task.load(root)["train"].to("cuda")
    model = task.model(seeded()).to("cuda")
    batches = task.batches(split, BATCH, seeded(0, "cuda"))
    task.loss(model, next(batches)).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in islice(batches, 5):
            task.loss(model, batch).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_scoring_is_repeatable_and_restores_every_modules_mode(task: Task, root: Path) -> None:
    split = task.load(root)["validation"]
    model = task.model(seeded())
    frozen = next(module for module in model.modules() if module is not model)
    frozen.eval()
    first = task.score(model, split)
    assert 0 <= first <= 1
    assert task.score(model, split) == first
    assert model.training
    assert not frozen.training
    assert torch.is_grad_enabled()


def test_a_batch_larger_than_the_split_is_refused(task: Task, root: Path) -> None:
    split = task.load(root)["train"]
    with pytest.raises(UserError, match="batch_size"):
        next(task.batches(split, len(split) + 1, seeded()))


def test_an_epoch_visits_no_example_twice() -> None:
    task = get_task("digits")
    numbers = torch.arange(100, dtype=torch.float32)
    drawn = [int(x) for x, _ in islice(task.batches(Split(numbers, numbers), 30, seeded()), 3) for x in x]
    assert len(set(drawn)) == len(drawn) == 90


def test_accuracy_counts_every_example_once() -> None:
    task = get_task("digits")
    split = task.load(Path())["train"]
    task.score_batch_size = 100  # leaves a partial last batch of 77
    model = task.model(seeded())
    with torch.no_grad():
        images = (split.inputs.float() / 255 - task.normalise.mean[0]) / task.normalise.std[0]
        expected = (model(images).argmax(1) == split.targets).double().mean().item()
    assert task.score(model, split) == pytest.approx(expected, abs=1e-12)


def test_normalised_images_are_float_and_channels_last() -> None:
    task = get_task("cifar10")
    raw = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=seeded())
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    )
    prepared = task.prepare(raw)
    torch.testing.assert_close(prepared, (raw.float() / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
def test_augmentation_equals_cropping_and_flipping_image_by_image(device: str) -> None:
    images = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=seeded()).to(device)
    result = crop_and_flip(images, seeded(5, device))
    generator = seeded(5, device)  # the same draws, in the same order
    tops, lefts = torch.randint(0, 9, (2, 64), generator=generator, device=device).tolist()
    flips = torch.randint(0, 2, (64,), generator=generator, device=device).tolist()
    for image, top, left, flip, got in zip(images, tops, lefts, flips, result, strict=True):
        padded = torch.zeros(3, 40, 40, dtype=torch.uint8, device=device)
        padded[:, 4:36, 4:36] = image
        expected = padded[:, top : top + 32, left : left + 32]
        assert torch.equal(got, expected.flip(2) if flip else expected)
    assert len(set(zip(tops, lefts, strict=True))) > 30
    assert 15 < sum(flips) < 49
    assert {min(tops), max(tops), min(lefts), max(lefts)} == {0, 8}


def test_only_cifar10_batches_are_augmented(task: Task, root: Path) -> None:
    split = task.load(root)["train"]
    if split.inputs.dim() == 4:
        assert torch.equal(task.augment(split.inputs, seeded()), split.inputs) == (task.name != "cifar10")


def test_the_fixed_subsets_never_change() -> None:
    """Results of years may be compared on them: these hashes are not to be updated."""

    def digest(numbers: list[int]) -> str:
        return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]

    digits = stratified_order(_digit_labels(), "digits")
    assert digest(digits[:1077]) == "bad4e2253f13754f"
    assert digest(fixed_order(60_000, "mnist")[:15_000]) == "905516a98b2de3f5"
    assert digest(fixed_order(60_000, "fashion_mnist")[:15_000]) == "18de3b52c71c40f4"
    assert digest(fixed_order(50_000, "cifar10")[:15_000]) == "05a01cbb31a99a1b"


def _digit_labels() -> list[int]:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    return [int(label) for label in load_digits().target]


def test_digits_are_1077_360_and_360_with_each_class_in_proportion() -> None:
    splits = get_task("digits").load(Path())
    assert [len(split) for split in splits.values()] == [1077, 360, 360]
    whole = torch.tensor(_digit_labels()).bincount(minlength=10) / 1797
    for split in splits.values():
        assert (split.targets.bincount(minlength=10) - whole * len(split)).abs().max() <= 1.01


def test_subsets_hold_each_class_about_equally() -> None:
    labels = torch.arange(50_000) // 5_000  # CIFAR-10's folders: 5,000 a class, in order
    counts = labels[torch.tensor(fixed_order(50_000, "cifar10")[:15_000])].bincount(minlength=10)
    assert (counts - 1_500).abs().max() < 150  # four standard deviations of a random subset


def test_validation_stays_the_same_when_less_is_trained_on(root: Path) -> None:
    few = get_task("mnist", train_examples=10, validation_examples=20).load(root)
    many = get_task("mnist", train_examples=40, validation_examples=20).load(root)
    assert torch.equal(few["validation"].inputs, many["validation"].inputs)
    assert torch.equal(few["train"].inputs, many["train"].inputs[:10])


def test_adam_learns_the_digits_in_150_steps() -> None:
    task = get_task("digits")
    splits = task.load(Path())
    model = task.model(seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for batch in islice(task.batches(splits["train"], 128, seeded(1)), 150):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    assert task.score(model, splits["validation"]) > 0.9


# --- networks ---------------------------------------------------------------------------------------------


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
    for start in range(0, len(split) - WINDOW + 1, WINDOW):
        chosen = slice(start, start + WINDOW)
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


# --- names ------------------------------------------------------------------------------------------------

OWN = """
from torch import nn
import torch
from optevo.tasks import Split, Task, build

class Rings(Task):
    name = "rings"
    def __init__(self, count=300):
        self.count = count
    def load(self, root):
        points = torch.randn(self.count, 2, generator=torch.Generator().manual_seed(0))
        split = Split(points, (points.norm(dim=1) > 1.2).long())
        return {"train": split, "validation": split, "test": split}
    def model(self, generator):
        return build(lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), generator)

def make(count=300):
    return Rings(count)

def wrong():
    return 3

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_rings.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    yield "own_rings"
    sys.modules.pop("own_rings", None)


@pytest.mark.parametrize("attribute", ["make", "Rings"])
def test_a_users_own_task_trains(own: str, attribute: str) -> None:
    task = get_task(f"{own}:{attribute}", count=200)
    losses, model = train(task, Path(), steps=60)
    assert losses[-1] < losses[0]
    assert task.score(model, task.load(Path())["test"]) > 0.5


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("minst", "unknown task 'minst'.*mnist"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("own_rings:nothing", "has no 'nothing'"),
        ("own_rings:number", "is a int, not a function"),
        ("own_rings:wrong", "returned a int"),
        ("own_rings:", "module:function"),
    ],
)
def test_a_wrong_name_is_explained(own: str, reference: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        get_task(reference)


def test_a_fault_inside_a_users_module_keeps_its_traceback(own: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        get_task("own_broken:f")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match="examples_to_train"):
        get_task("mnist", examples_to_train=3)


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_an_impossible_size_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="train_examples"):
        get_task("mnist", train_examples=value)


def test_too_few_images_for_the_split_are_reported(root: Path) -> None:
    with pytest.raises(UserError, match=r"is 61, but the train part .* has 60 images"):
        get_task("mnist", train_examples=41, validation_examples=20).load(root)


def test_a_split_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(UserError, match="3 inputs but 2 targets"):
        Split(torch.zeros(3), torch.zeros(2))


def test_names_need_no_torch_and_tasks_need_no_optuna() -> None:
    code = (
        "import sys, optevo.tasks; assert 'torch' not in sys.modules; "
        "[optevo.tasks.get_task(n) for n in optevo.tasks.TASKS]; assert 'torch' in sys.modules; "
        "import optevo.tasks.data; assert not {'optuna', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_digits_are_scikit_learns_own():
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    pixels, labels = vision._read_digits()
    assert torch.equal(pixels, torch.from_numpy(bunch.data))
    assert torch.equal(labels, torch.from_numpy(bunch.target))
