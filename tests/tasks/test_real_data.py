"""The real data sets, where they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_tasks import SETS

from optevo.tasks import get_task
from optevo.tasks.data import check, load_images, load_text

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def real(data_root: Path) -> Callable[[str], Path]:
    """The real data root, or a skip where it lacks the named set."""

    def find(name: str) -> Path:
        if not (data_root / SETS[name]).is_dir():
            pytest.skip(f"no real {name} in {data_root}")
        return data_root

    return find


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_grey_sets_split_as_promised(name: str, real: Callable[[str], Path]) -> None:
    task = get_task(name)
    splits = task.load(real(name))
    assert {key: tuple(split.inputs.shape) for key, split in splits.items()} == {
        "train": (15_000, 1, 28, 28),
        "validation": (5_000, 1, 28, 28),
        "test": (10_000, 1, 28, 28),
    }
    official, labels = load_images(name, real(name), "train")
    share = labels.bincount() / len(labels)
    for key in ("train", "validation"):
        assert (splits[key].targets.bincount() / len(splits[key]) - share).abs().max() < 0.015
    scaled = official.float() / 255
    assert scaled.mean().item() == pytest.approx(task.normalise.mean[0], abs=1e-4)
    assert scaled.std().item() == pytest.approx(task.normalise.std[0], abs=1e-4)
    assert all(row.published is not False for row in check(name, real(name)))


def test_real_mnist_is_what_torchvision_reads(real: Callable[[str], Path]) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415

    root = real("mnist")
    theirs = MNIST(str(root), train=False, download=False)
    inputs, targets = load_images("mnist", root, "test")
    assert torch.equal(inputs[:, 0], theirs.data)
    assert torch.equal(targets, theirs.targets)


def test_some_real_cifar10_images_load(real: Callable[[str], Path], tmp_path: Path) -> None:
    source = real("cifar10") / "cifar10"
    for part, kind in itertools.product(
        ("train", "test"), sorted(p.name for p in (source / "train").iterdir())
    ):
        if kind.startswith("."):
            continue
        (tmp_path / "cifar10" / part / kind).mkdir(parents=True)
        for path in sorted((source / part / kind).glob("*.jpg"))[:20]:
            (tmp_path / "cifar10" / part / kind / path.name).symlink_to(path)
    task = get_task("cifar10", train_examples=100, validation_examples=100)
    splits = task.load(tmp_path)
    assert [tuple(split.inputs.shape) for split in splits.values()] == [
        (n, 3, 32, 32) for n in (100, 100, 200)
    ]
    batch = next(task.batches(splits["train"], 64, torch.Generator().manual_seed(0)))
    assert task.loss(task.model(torch.Generator().manual_seed(0)), batch).isfinite()


@pytest.mark.slow
def test_all_of_real_cifar10_splits_as_promised(real: Callable[[str], Path]) -> None:
    splits = get_task("cifar10").load(real("cifar10"))
    assert [len(split) for split in splits.values()] == [15_000, 5_000, 10_000]
    assert splits["test"].targets.bincount().tolist() == [1_000] * 10
    assert (splits["train"].targets.bincount() - 1_500).abs().max() < 150
    mean = splits["train"].inputs.float().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4913, 0.4821, 0.4465]), rtol=0, atol=4e-3)


def test_real_shakespeare_splits_as_promised(real: Callable[[str], Path]) -> None:
    root = real("char_lm")
    (row,) = check("char_lm", root)
    assert row.published
    text = load_text(root, 1)
    splits = get_task("char_lm").load(root)
    assert [len(split) + 1 for split in splits.values()] == [1_003_854, 55_770, 55_770]
    assert torch.equal(splits["test"].targets, text[-55_769:])
    assert torch.equal(splits["validation"].inputs[1:], splits["validation"].targets[:-1])
