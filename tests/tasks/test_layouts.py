"""Sets that lie in several forms, or in part, or under names that unpackers give."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_tasks import idx_bytes

from optevo.errors import UserError
from optevo.tasks.data import check, load_images
from optevo.tasks.sources import BATCHES, CIFAR10_BYTES, layout_of

pytestmark = pytest.mark.usefixtures("cache")
IMAGES_FILE = "train-images-idx3-ubyte"


def _mnist_folders(root: Path) -> Path:
    """MNIST as image folders, every image of the one grey level 99."""
    for part in ("train", "test"):
        for kind in range(10):
            place = root / "mnist" / part / str(kind)
            place.mkdir(parents=True)
            Image.fromarray(np.full((28, 28), 99, dtype=np.uint8)).save(place / "a.png")
    return root / "mnist"


def _batches(root: Path) -> Path:
    """Files of the names and sizes of CIFAR-10's own, which hold nothing and take no room."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in BATCHES:
        (folder / name).touch()
        os.truncate(folder / name, 158 if name.endswith("meta") else CIFAR10_BYTES + 1)
    return folder


def test_a_damaged_cifar10_archive_is_never_unpickled(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-batches-py"
    archive.mkdir()
    bomb = b"cos\nsystem\n(S'touch pwned'\ntR."
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (archive / name).write_bytes(bomb)
    with pytest.raises(UserError, match="cifar-10-batches-py is incomplete or damaged"):
        load_images("cifar10", tmp_path, "train")


# --- several forms ----------------------------------------------------------------------------------------


def test_empty_folders_of_failed_downloads_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(UserError, match="there is neither"):
        load_images("mnist", tmp_path, "train")
    (tmp_path / "mnist" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="0 class folders"):
        load_images("mnist", tmp_path, "train")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_data_are_told_with_what_lies_there(name: str, tmp_path: Path) -> None:
    place = tmp_path / {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}.get(
        name, "cifar-10-batches-py"
    )
    place.mkdir(parents=True)
    (place / "train.zip").touch()
    (tmp_path / name / "Training").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has train\.zip and .* has Training \(a folder\)"):
        load_images(name, tmp_path, "train")
    assert not any(row.found for row in check(name, tmp_path))


def test_an_empty_archive_hides_no_image_folders(images: Path) -> None:
    (images.parent / "cifar-10-batches-py").mkdir()
    assert len(load_images("cifar10", images.parent, "train")[0]) == 20
    assert [row.count for row in check("cifar10", images.parent)] == [20, 20]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "data_batch_3").unlink(),
        lambda folder: os.truncate(folder / "data_batch_3", CIFAR10_BYTES // 2),
        lambda folder: os.truncate(folder / "batches.meta", 0),
        lambda folder: (folder / "test_batch").rename(folder / "test_batch.part"),
    ],
)
def test_a_half_downloaded_archive_hides_no_whole_image_folders(
    images: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    archive = _batches(images.parent)
    assert layout_of("cifar10", images.parent).kind == "pickled"
    spoil(archive)
    assert len(load_images("cifar10", images.parent, "test")[0]) == 20
    (record,) = caplog.records
    assert (
        f"read from the images in {images}, as {archive} is not whole (6 of 7 files)" in record.getMessage()
    )
    assert check("cifar10", images.parent)[0].notes == (record.getMessage(),)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: (raw / "t10k-labels-idx1-ubyte").unlink(),
        lambda raw: os.truncate(raw / IMAGES_FILE, 5000),
        lambda raw: os.truncate(raw / IMAGES_FILE, 0),
        lambda raw: (raw / IMAGES_FILE).rename(raw / f"{IMAGES_FILE}.part"),
        lambda raw: _pack(raw / IMAGES_FILE, keep=-40),
    ],
)
def test_half_downloaded_idx_files_hide_no_whole_image_folders(
    mnist: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    root = mnist.parents[1]
    _mnist_folders(root)
    assert not (load_images("mnist", root, "train")[0] == 99).all()
    spoil(mnist)
    for part in ("train", "test"):
        assert (load_images("mnist", root, part)[0] == 99).all()
    assert f"as {mnist} is not whole (3 of 4 files)" in caplog.text


def _pack(path: Path, keep: int | None = None) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:keep])
    path.unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: shutil.rmtree(folder / "test"),
        lambda folder: [path.unlink() for path in folder.rglob("*.png")],
        lambda folder: shutil.rmtree(folder / "train" / "7"),
        lambda folder: None,
    ],
)
def test_whole_idx_files_are_read_whatever_lies_beside_them(
    mnist: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    root = mnist.parents[1]
    spoil(_mnist_folders(root))
    assert len(load_images("mnist", root, "train")[0]) == 30
    assert not caplog.records
    (note,) = check("mnist", root)[0].notes
    assert note == f"mnist is read from {mnist}, not from the images in {root / 'mnist'}"


def test_where_no_form_is_whole_both_faults_are_told(mnist: Path) -> None:
    root = mnist.parents[1]
    shutil.rmtree(_mnist_folders(root) / "train" / "7")
    (mnist / IMAGES_FILE).unlink()
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is missing.*train has 9 class folders"):
        load_images("mnist", root, "train")
    assert "neither are the images" in check("mnist", root)[0].notes[0]


def test_a_part_of_another_name_is_said_not_to_be_read(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(images / "test", images / "val")
    load_images("cifar10", images.parent, "train")
    assert "only its folders train and test are read, not val" in caplog.text
    assert "not val" in check("cifar10", images.parent)[0].notes[0]


# --- names of idx files -----------------------------------------------------------------------------------


def _into_a_folder(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(content)


@pytest.mark.parametrize(
    "rename",
    [
        lambda path: path.rename(path.with_name(path.name.replace("-idx", ".idx"))),
        lambda path: path.rename(path.with_name(path.name.upper())),
        lambda path: _pack(path.rename(path.with_name(path.name.replace("-idx", ".idx")))),
        lambda path: path.write_bytes(gzip.compress(path.read_bytes())),  # packed under the plain name
        _into_a_folder,
    ],
)
def test_idx_files_go_by_several_names(mnist: Path, rename: Callable[[Path], object]) -> None:
    root = mnist.parents[1]
    before = [load_images("mnist", root, part) for part in ("train", "test")]
    for path in list(mnist.iterdir()):
        rename(path)
    after = [load_images("mnist", root, part) for part in ("train", "test")]
    assert all(
        torch.equal(x, y)
        for old, new in zip(before, after, strict=True)
        for x, y in zip(old, new, strict=True)
    )
    assert all(row.found and row.path.is_file() for row in check("mnist", root))


def test_a_whole_file_is_read_before_a_cut_off_one_of_the_same_name(mnist: Path) -> None:
    plain = mnist / IMAGES_FILE
    content = plain.read_bytes()
    _pack(plain)
    plain.write_bytes(content[:5000])  # unpacking it was interrupted
    assert load_images("mnist", mnist.parents[1], "train")[0].numpy().tobytes() == content[16:]
    assert check("mnist", mnist.parents[1])[0].path == plain.with_name(f"{IMAGES_FILE}.gz")


def test_the_usual_name_comes_first(mnist: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (30, 28, 28))
    (mnist / "train-images.idx3-ubyte").write_bytes(idx_bytes(noise))
    assert check("mnist", mnist.parents[1])[0].path == mnist / IMAGES_FILE


def test_a_missing_idx_file_is_told_with_what_lies_there(mnist: Path) -> None:
    (mnist / IMAGES_FILE).rename(mnist / "images.bin")
    words = r"train-images-idx3-ubyte is missing .* has images\.bin, t10k-images-idx3-ubyte, "
    with pytest.raises(UserError, match=words):
        load_images("mnist", mnist.parents[1], "train")
