"""ConvNet(B), and CIFAR-10 in the order, the scale and the augmentation of arXiv 2404.06679."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import seeded
from torch import nn
from torch.nn import functional as F

from optevo.errors import UserError
from optevo.tasks import Dropout, Split, get_task, models, vision
from optevo.tasks.orders import fixed_order
from optevo.tasks.vision import CIFAR10, crop_and_flip, cut_out

IMAGES = {"digits": (1, 8), "mnist": (1, 28), "fashion_mnist": (1, 28), "cifar10": (3, 32)}


@pytest.mark.parametrize(("width", "count"), [(32, 94_986), (48, 211_594)])
def test_the_network_has_the_published_number_of_parameters(width: int, count: int) -> None:
    model = models.convnet(seeded(), width=width)
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_its_layers_are_those_of_the_reference() -> None:
    model = models.convnet(seeded(), channels=1, width=4)
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.SiLU] * 3 + [nn.Module, Dropout, nn.Linear]
    layers = list(model.children())
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [(4, 1), (8, 2), (16, 2)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert [layer.p for layer in layers if isinstance(layer, Dropout)] == [0.2]
    for layer in (*convolutions, layers[-1]):
        weight, bias = layer.weight, layer.bias
        area = 9 if isinstance(layer, nn.Conv2d) else 1
        bound = (6 / (area * sum(weight.shape[:2]))) ** 0.5  # Glorot's
        assert 0.85 * bound < weight.abs().max() <= bound
        assert not bias.any()


@pytest.mark.parametrize(("size", "first"), [(6, 1), (5, 0), (28, 1), (14, 1), (7, 0)])
def test_strided_convolutions_look_where_the_reference_does(size: int, first: int) -> None:
    """An even size is padded at the bottom and the right alone, an odd one at every side."""
    layer = models._SameConv2d(1, 1, 2)
    image = torch.arange(float(size * size)).view(1, 1, size, size)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.zero_()[0, 0, 1, 1] = 1  # what lies in the middle of each window
        assert torch.equal(layer(image), image[:, :, first::2, first::2])


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_task_has_it_as_an_option(name: str) -> None:
    channels, size = IMAGES[name]
    task = get_task(name, network="convnet", width=8)
    model = task.model(seeded())
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)
    assert sum(w.numel() for w in model.parameters()) < 7_000
    own = get_task(name)
    assert own.network != "convnet"
    first, second = (one.model(seeded()).state_dict() for one in (own, get_task(name, network=own.network)))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mnist", {"network": "mpl"}, "task mnist: unknown network 'mpl': did you mean 'mlp'"),
        ("digits", {"width": 8}, "width is for network = 'convnet', not 'mlp'"),
        ("digits", {"network": "convnet", "width": 0}, "width must be a whole number of at least 1, not 0"),
        ("cifar10", {"order": "random"}, "order must be 'shuffled' or 'published'"),
        ("cifar10", {"augment": "flip"}, "augment must be 'crop_flip' or 'reflect_cutout' or 'none'"),
        ("cifar10", {"scale": 255}, "scale must be 'standard' or .*, not 255"),
    ],
)
def test_an_option_of_another_value_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_task(name, **options)


# CIFAR-10's files


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 tiny images that tell their place in the files, of mixed classes."""

    def load(name: str, root: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.arange(50_000 if part == "train" else 10)
        pixels = torch.stack([places // 256, places % 256, places * 0], dim=1)
        return pixels.to(torch.uint8)[:, :, None, None], places % 10

    monkeypatch.setattr(vision, "load_images", load)


def places(images: torch.Tensor) -> list[int]:
    pixels = images[:, :, 0, 0]
    if images.is_floating_point():
        pixels = (pixels * 255).round()
    pixels = pixels.long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


@pytest.mark.usefixtures("numbered")
def test_the_published_order_is_that_of_the_files() -> None:
    splits = CIFAR10(order="published").load(Path())
    assert places(splits["train"].inputs) == list(range(45_000))
    assert places(splits["validation"].inputs) == list(range(45_000, 50_000))


@pytest.mark.usefixtures("numbered")
def test_published_batches_are_never_shuffled_and_keep_the_last_one() -> None:
    task = CIFAR10(order="published", augment="none", scale="unit")
    batches = list(islice(task.batches(task.load(Path())["train"], 128, seeded()), 353))
    assert [len(targets) for _, targets in batches] == [128] * 351 + [72, 128]
    assert [place for inputs, _ in batches[:352] for place in places(inputs)] == list(range(45_000))
    assert places(batches[352][0]) == list(range(128))
    assert torch.equal(batches[3][1], torch.arange(3 * 128, 4 * 128) % 10)


@pytest.mark.usefixtures("numbered")
def test_the_usual_order_is_the_fixed_shuffle_and_sizes_are_options() -> None:
    splits = CIFAR10().load(Path())
    order = fixed_order(50_000, "cifar10")
    assert places(splits["train"].inputs) == order[:15_000]
    assert places(splits["validation"].inputs) == order[-5_000:]
    few = CIFAR10(order="published", train_examples=300, validation_examples=20).load(Path())
    assert places(few["train"].inputs) == list(range(300))
    assert places(few["validation"].inputs) == list(range(49_980, 50_000))


def test_image_folders_which_are_sorted_by_class_are_shuffled_once(root: Path) -> None:
    options = {"train_examples": 40, "validation_examples": 20}
    ordered, usual = (CIFAR10(order=order, **options) for order in ("published", "shuffled"))
    first, second = ordered.load(root), usual.load(root)
    assert all(torch.equal(first[part].inputs, second[part].inputs) for part in first)
    assert first["train"].targets.unique().numel() > 5


def test_a_batch_larger_than_the_split_is_refused_in_any_order() -> None:
    split = Split(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="batch_size is 5"):
        next(CIFAR10(order="published").batches(split, 5, seeded()))


def test_pixels_lie_between_0_and_1_or_are_standardised() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    unit = CIFAR10(scale="unit").prepare(images)
    assert unit.unique().tolist() == [0.0, pytest.approx(1.0)]
    usual = CIFAR10().prepare(images)
    assert usual[0, :, 0, 0].tolist() == pytest.approx([-0.4914 / 0.2470, -0.4822 / 0.2435, -0.4465 / 0.2616])


# Augmentation


def test_a_cut_out_is_a_square_of_zeros_that_a_border_may_cut() -> None:
    images = torch.ones(4_000, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    cut = cut_out(images, seeded())
    assert images.all()
    assert cut.is_contiguous(memory_format=torch.channels_last)
    zeros = cut == 0
    assert torch.equal(zeros[:, 0], zeros[:, 1])
    rows, columns = zeros[:, 0].any(dim=2).sum(dim=1), zeros[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(zeros[:, 0].sum(dim=(1, 2)), rows * columns)  # a rectangle
    for sides in (rows, columns):
        assert (sides.min(), sides.max()) == (4, 8)  # around a centre at the very edge, and far from any
        whole = (sides == 8).double().mean().item()
        assert whole == pytest.approx(25 / 32, abs=4 * (25 * 7 / 32**2 / 4_000) ** 0.5)


def test_a_cropped_image_with_reflected_edges_is_a_window_of_the_padded_one() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=seeded(), dtype=torch.uint8)
    cropped = crop_and_flip(images, seeded(1), padding=4, reflect=True)
    assert cropped.dtype == torch.uint8
    padded = F.pad(images.float(), (4,) * 4, mode="reflect")
    for image, whole in zip(cropped, padded, strict=True):
        windows = whole.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 8, 8)
        both = torch.cat([windows, windows.flip(3)])
        assert (both == image).flatten(1).all(dim=1).any()


def test_the_cut_out_comes_after_the_scale_so_that_it_is_the_mean() -> None:
    split = Split(torch.full((64, 3, 32, 32), 255, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    task = CIFAR10(augment="reflect_cutout", order="published")
    inputs, _ = next(task.batches(split, 64, seeded()))
    zeros = (inputs == 0).all(dim=1).sum(dim=(1, 2))
    assert 16 <= zeros.min() < zeros.max() == 64
    again, _ = next(task.batches(split, 64, seeded()))
    other, _ = next(task.batches(split, 64, seeded(1)))
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)
    plain, _ = next(CIFAR10(augment="none").batches(split, 64, seeded()))
    assert (plain != 0).all()


def test_what_is_scored_is_scaled_alone() -> None:
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=seeded(), dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    model = CIFAR10(network="convnet", width=8).model(seeded())
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    CIFAR10(augment="reflect_cutout").score(model, Split(images, torch.zeros(8, dtype=torch.int64)))
    assert torch.equal(seen[0], CIFAR10.normalise(images))
