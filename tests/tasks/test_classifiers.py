"""Classifiers by name: torchvision's, EfficientNet-Lite0, and trained weights."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import seeded
from torch import nn

from optevo.errors import UserError
from optevo.tasks import Dropout, get_task
from optevo.tasks.layers import StochasticDepth
from optevo.tasks.networks import OWN, classifier, head

SMALL = "squeezenet1_1"  # 0.7 million parameters, and a dropout


def images(count: int = 2, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=seeded(9))


@pytest.mark.parametrize("name", [*OWN, SMALL, "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_is_had_for_any_classes_channels_and_seed(name: str, channels: int) -> None:
    before = torch.random.get_rng_state()
    options: dict[str, Any] = {"classes": 7, "channels": channels, "resolution": 32}
    first, second, third = (classifier(name, **options, generator=seeded(seed)) for seed in (3, 3, 4))
    scores = [model(images(channels=channels)) for model in (first, second, third)]  # dropouts' draws too
    assert first.training
    assert scores[0].shape == (2, 7)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["googlenet", "inception_v3", "vit_b_16", "swin_t", "maxvit_t", "densenet121"]
)
def test_torchvisions_oddities_are_taken_as_well(name: str) -> None:
    size = {"inception_v3": 96, "maxvit_t": 224}.get(name, 64)
    before = torch.random.get_rng_state()
    model = classifier(name, classes=5, resolution=size, generator=seeded())
    assert model(images(size=size)).shape == (2, 5)
    assert isinstance(model.get_submodule(head(model)), nn.Linear)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_own_networks_are_what_they_were() -> None:
    from optevo.tasks import models  # noqa: PLC0415

    for name, channels, size in (
        ("mlp", 1, 8),
        ("small_cnn", 1, 28),
        ("cifar_cnn", 3, 32),
        ("convnet", 3, 32),
    ):
        plain = getattr(models, name)(seeded()).state_dict()
        ours = classifier(name, classes=10, channels=channels, resolution=size, generator=seeded())
        assert all(torch.equal(plain[key], value) for key, value in ours.state_dict().items())


def test_dropout_is_set_or_put_before_the_last_layer() -> None:
    options: dict[str, Any] = {"classes": 3, "resolution": 32, "dropout": 0.3}
    for name in (SMALL, "shufflenet_v2_x0_5", "mlp"):  # the last two have none of their own
        model = classifier(name, **options, generator=seeded())
        assert [module.p for module in model.modules() if type(module) is Dropout] == [0.3]
        assert not torch.equal(model(images()), model(images()))  # two draws
        assert torch.equal(model.eval()(images()), model(images()))


def test_stochastic_depth_leaves_out_whole_examples() -> None:
    layer = StochasticDepth(0.25, seed=1)
    out = layer(torch.ones(400, 2, 3, 3))
    kept = out.flatten(1)
    assert ((kept == 0).all(1) | torch.isclose(kept, torch.tensor(4 / 3)).all(1)).all()
    assert 60 <= int((kept == 0).all(1).sum()) <= 140
    assert layer(torch.ones(5, 4)).shape == (5, 4)
    assert torch.equal(layer.eval()(out), out)


def test_efficientnet_lite0_is_the_reference_in_shape() -> None:
    model = classifier("efficientnet_lite0", classes=1000, resolution=32, generator=seeded())
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    drops = [module.p for module in model.modules() if isinstance(module, StochasticDepth)]
    assert drops == pytest.approx([0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)])
    with torch.no_grad():  # of odd sizes, TensorFlow pads both sides
        assert model.eval()(images(size=33)).shape == (2, 1000)


# --- weights ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of weights with ten classes, from another seed."""
    model = classifier(SMALL, classes=10, resolution=32, generator=seeded(5))
    path = tmp_path / "small.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    return path


def test_weights_of_a_file_are_taken_but_for_the_last_layer(saved: Path) -> None:
    options: dict[str, Any] = {"resolution": 32, "generator": seeded(5)}
    source = classifier(SMALL, classes=10, **options).state_dict()
    for classes in (3, 10):
        model = classifier(SMALL, classes=classes, resolution=32, weights=str(saved), generator=seeded(6))
        last = f"{head(model)}."
        for key, value in model.state_dict().items():
            if not key.endswith("_extra_state") and not key.startswith(last):
                assert torch.equal(value, source[key]), key
        drawn = model.state_dict()
        bound = drawn[f"{last}weight"].shape[1] ** -0.5  # as of torch's dense layers, whatever the classes
        for key in ("weight", "bias"):
            assert drawn[last + key].abs().max() <= bound
        assert drawn[f"{last}weight"].abs().max() > 0.9 * bound
        if classes == 10:
            assert not torch.equal(drawn[f"{last}weight"], source[f"{last}weight"])


def test_grey_images_see_of_trained_weights_what_grey_rgb_sees(saved: Path) -> None:
    grey, rgb = (
        classifier(
            SMALL, classes=3, channels=channels, resolution=32, weights=str(saved), generator=seeded(6)
        ).eval()
        for channels in (1, 3)
    )
    one = images(channels=1)
    torch.testing.assert_close(grey(one), rgb(one.expand(-1, 3, -1, -1)))


def test_a_changed_file_is_read_again(saved: Path) -> None:
    def first() -> torch.Tensor:
        model = classifier(SMALL, classes=3, resolution=32, weights=str(saved), generator=seeded())
        return next(model.parameters()).detach()

    before = first()
    torch.save(classifier(SMALL, classes=4, resolution=32, generator=seeded(8)).state_dict(), saved)
    assert not torch.equal(before, first())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet81", {}, "unknown network 'resnet81': did you mean 'resnet18'"),
        ("squeezenet1_1", {"width": 8}, "width is for network = 'convnet'"),
        ("squeezenet1_1", {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ("alexnet", {}, "network 'alexnet' can't be had for images of 32 x 32 pixels: "),
        ("cifar_cnn", {"resolution": 3}, "network 'cifar_cnn' can't be had for images of 3 x 3 pixels"),
        (
            "squeezenet1_1",
            {"weights": "IMAGENET"},
            "unknown weights 'IMAGENET' of squeezenet1_1: did you mean",
        ),
        ("squeezenet1_1", {"weights": "no.pth"}, "there is no file .*no.pth"),
        ("convnet", {"weights": "DEFAULT"}, "network 'convnet' has no trained weights by name"),
        ("efficientnet_lite0", {"weights": "IMAGENET1K_V1"}, "weights = 'DEFAULT' or a file"),
    ],
)
def test_what_cannot_be_had_is_told(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        classifier(name, **{"classes": 3, "resolution": 32} | options, generator=seeded())


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"features.0.weight": torch.zeros(2)}, "don't fit the network 'squeezenet1_1': the file lacks "),
        ([1, 2], "holds a list, not the state dict"),
        (b"not a file of weights", "can't be read as weights"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, kept: Any, said: str) -> None:
    path = tmp_path / "other.pt"
    if isinstance(kept, bytes):
        path.write_bytes(kept)
    else:
        torch.save(kept, path)
    with pytest.raises(UserError, match=said):
        classifier(SMALL, classes=3, resolution=32, weights=str(path), generator=seeded())


def test_weights_by_name_come_from_torch_hubs_folder_or_are_asked_for(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    options: dict[str, Any] = {"classes": 3, "resolution": 32, "weights": "IMAGENET1K_V1"}
    place = tmp_path / "home" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    with pytest.raises(UserError, match=f"are not at {place} and can't be downloaded .*no network.*: put"):
        classifier(SMALL, **options, generator=seeded())
    saved.rename(place)
    model = classifier(SMALL, **options, generator=seeded())
    expected = classifier(SMALL, classes=10, resolution=32, generator=seeded(5))
    assert torch.equal(next(model.parameters()), next(expected.parameters()))


def test_an_image_task_takes_a_network_a_resolution_and_weights(saved: Path) -> None:
    options: dict[str, Any] = {"network": SMALL, "weights": str(saved), "dropout": 0.1}
    task = get_task("cifar10", resolution=24, augmentation="none", scale="symmetric", **options)
    raw = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    prepared = task.prepare(raw)
    assert prepared.shape == (2, 3, 24, 24)
    torch.testing.assert_close(prepared, torch.full_like(prepared, 127.5 / 128))
    assert task.model(seeded())(prepared).shape == (2, 10)
    with pytest.raises(UserError, match="task cifar10: augmentation takes the place of augment"):
        get_task("cifar10", augment="none", augmentation="none")
