"""Folders of images: which files are images, their order, and what is refused."""

from __future__ import annotations

import builtins
import itertools
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from optevo.errors import UserError
from optevo.tasks import get_task
from optevo.tasks.data import check, load_images

pytestmark = pytest.mark.usefixtures("cache")


def test_a_folder_of_images_is_read_in_order_of_class_and_name(images: Path) -> None:
    inputs, targets = load_images("cifar10", images.parent, "train")
    assert inputs.shape == (20, 3, 32, 32)
    assert targets.tolist() == [kind for kind in range(10) for _ in range(2)]
    with Image.open(images / "train" / "kind3" / "1.png") as image:
        assert np.array_equal(inputs[7].permute(1, 2, 0).numpy(), np.asarray(image))
    assert [(row.found, row.count) for row in check("cifar10", images.parent)] == [(True, 20), (True, 20)]


def test_grey_sets_may_be_folders_of_images_too(tmp_path: Path) -> None:
    for part, kind in itertools.product(("train", "test"), range(10)):
        place = tmp_path / "fashion_mnist" / part / str(kind)
        place.mkdir(parents=True)
        Image.fromarray(np.full((28, 28), kind, dtype=np.uint8)).save(place / "a.png")
    inputs, targets = load_images("fashion_mnist", tmp_path, "test")
    assert inputs.shape == (10, 1, 28, 28)
    assert torch.equal(inputs[:, 0, 5, 5].long(), targets)


def _write(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda p: _write(p / "kind2/1.png", np.zeros((28, 28, 3))),
            r"kind2/1\.png is 28 x 28 .* not 32 x 32",
        ),
        (lambda p: (p / "kind2/0.jpg").write_bytes(b"no image"), r"0\.jpg can't be decoded"),
        (
            lambda p: (p / "kind2/0.jpg").write_bytes((p / "kind2/0.jpg").read_bytes()[:-400]),
            r"0\.jpg can't be decoded",
        ),
        (
            lambda p: (p / "kind2/1.png").write_bytes((p / "kind2/1.png").read_bytes()[:-400]),
            r"1\.png can't be decoded",
        ),
        (lambda p: [path.unlink() for path in (p / "kind2").iterdir()], r"kind2 has no \.jpg"),
        (lambda p: (p / "kind2").rename(p.parent / "away"), "has 9 class folders"),
        (lambda p: (p / "kind2").rename(p / "kindred"), "classes of train .* and test .* differ"),
        (lambda p: p.rename(p.parent / "other"), "is missing"),
    ],
)
def test_a_damaged_folder_of_images_is_explained(
    images: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(images / "train")
    with pytest.raises(UserError, match=words) as fault:
        get_task("cifar10", train_examples=10, validation_examples=5).load(images.parent)
    assert str(images) in str(fault.value)
    assert "optevo data get cifar10" in str(fault.value)


def _rename(images: Path, *names: tuple[str, str, str]) -> None:
    for part, old, new in names:
        (images / part / old).rename(images / part / new)


# --- which files are images -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a.webp", "a.bmp", "a.tif", "a.TIFF", "a.PNG", "a.gif", "a.ppm", "a.jfif", "more/a.png", "b/c/a.png"],
)
def test_every_format_and_every_folder_below_a_class_is_read_and_counted(images: Path, name: str) -> None:
    path = images / "train" / "kind0" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, np.full((32, 32, 3), 7))
    inputs, targets = load_images("cifar10", images.parent, "train")
    assert len(inputs) == check("cifar10", images.parent)[0].count == 21
    assert targets.tolist().count(0) == 3
    assert any((image == 7).all() for image in inputs[:3])


HIDDEN = [
    "._0.png",
    ".ipynb_checkpoints/0-checkpoint.png",
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX/kind0/0.png",
]


@pytest.mark.parametrize("place", ["train", "train/kind0"])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_in_folders_is_no_image_and_no_class(
    images: Path, place: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = images / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path.with_suffix(".png"), np.zeros((32, 32, 3)))
    path.with_suffix(".png").rename(path)
    assert len(load_images("cifar10", images.parent, "train")[0]) == 20
    row = check("cifar10", images.parent)[0]
    assert (row.count, row.notes) == (20, ())
    assert not caplog.text


def test_what_is_left_out_is_said_in_one_line_with_its_reason(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = images / "train"
    for name in ("kind3/b.avif", "kind3/a.avif", "labels.csv", "kind1/more/notes", "loose.png"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).write_bytes(b"anything")
    for _ in range(2):  # decoded, and kept
        caplog.clear()
        assert len(load_images("cifar10", images.parent, "train")[0]) == 20
        (record,) = caplog.records
        for words in (
            *(f"{train}: left out 5 files", "2 .avif, such as kind3/a.avif", "1 .csv, such as labels.csv"),
            *("1 without a suffix, such as kind1/more/notes", "1 in no class's folder, such as loose.png"),
        ):
            assert words in record.getMessage()
        assert check("cifar10", images.parent)[0].notes == (record.getMessage(),)


def test_a_process_of_a_pool_does_not_say_it_again(
    images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (images / "train" / "labels.csv").touch()
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    load_images("cifar10", images.parent, "train")
    assert not caplog.records


def test_the_order_is_that_of_the_bytes_of_names(images: Path) -> None:
    names = [
        "B.png",
        "a.png",
        "sub/a.png",
        "sub-a.png",
        "é.png",
        "\U0001f600.png",
        "\uffff.png",
        "\udcff.png",
    ]
    shutil.rmtree(images / "train" / "kind0")
    for value, name in enumerate(names):
        path = images / "train" / "kind0" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with path.open("wb") as stream:
            Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)).save(stream, format="PNG")
    inputs, _ = load_images("cifar10", images.parent, "train")
    ordered = sorted(names, key=os.fsencode)
    assert [names[int(image[0, 0, 0])] for image in inputs[: len(names)]] == ordered


@pytest.mark.parametrize(("old", "new"), [("kind0/0.jpg", "kind0/caf\udce9.jpg"), ("kind0", "caf\udce9")])
def test_names_that_are_no_utf8_are_read_and_escaped_in_messages(images: Path, old: str, new: str) -> None:
    _rename(images, ("train", old, new), ("test", old, new))
    assert [len(load_images("cifar10", images.parent, part)[0]) for part in ("train", "test")] == [20, 20]
    path = images / "train" / new
    next(path.iterdir() if path.is_dir() else iter([path])).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"caf\\udce9.*can't be decoded") as fault:
        load_images("cifar10", images.parent, "train")
    assert str(fault.value).encode()


# --- classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            [("train", "kind3", "caf\u00e9"), ("test", "kind3", "cafe\u0301")],
            r"'caf\\xe9' and 'cafe\\u0301' differ in Unicode's normal form alone",
        ),
        ([("train", "kind3", "Cat"), ("test", "kind3", "cat")], "'Cat' and 'cat' differ in case alone"),
        ([("train", "kind3", "kind3 ")], "only there: 'kind3 '.*only there: 'kind3'"),
    ],
)
def test_classes_of_train_and_test_that_differ_are_named(
    images: Path, names: list[tuple[str, str, str]], words: str
) -> None:
    _rename(images, *names)
    with pytest.raises(UserError, match=words):
        load_images("cifar10", images.parent, "test")
    assert any("differ" in note for row in check("cifar10", images.parent) for note in row.notes)


def test_classes_that_look_alike_are_told_apart_in_a_warning(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "test"):
        _rename(
            images,
            (part, "kind1", "a"),
            (part, "kind2", "A"),
            (part, "kind3", "\u00e9"),
            (part, "kind4", "e\u0301"),
        )
    assert len(load_images("cifar10", images.parent, "train")[0]) == 20
    assert "'A' and 'a' differ in case alone" in caplog.text
    assert r"'e\u0301' and '\xe9' differ in Unicode's normal form alone" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda p: [shutil.rmtree(p / f"kind{n}") for n in range(1, 10)],
            r"has 1 class folders \(kind0\), not 10",
        ),
        (lambda p: (p / "kind2/0.jpg").write_bytes(b""), r"kind2/0\.jpg is empty \(0 bytes\)"),
        (lambda p: (p / "kind2/a.png").mkdir(), r"kind2/a\.png is no regular file"),
        (lambda p: os.mkfifo(p / "kind2/a.png"), r"kind2/a\.png is no regular file"),
        (
            lambda p: [f.rename(f.with_suffix(".avif")) for f in list((p / "kind2").iterdir())],
            "kind2 has no .jpg.*2 .avif",
        ),
        (
            lambda p: p.rename(p.parent / "Train"),
            r"the folder .*train is missing; .* has Train \(a folder\), test \(a folder\)",
        ),
    ],
)
def test_what_cannot_be_an_image_set_is_named_and_data_check_says_so_too(
    images: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(images / "train")
    with pytest.raises(UserError, match=words):
        load_images("cifar10", images.parent, "train")
    assert any(re.search(words, note) for note in check("cifar10", images.parent)[0].notes)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (lambda p: (p / "kind2/loop").symlink_to(p), r"kind2/loop is a link that leads back"),
        (lambda p: (p / "loop").symlink_to(p), r"loop is a link that leads back"),
        (lambda p: (p / "kind2/a.png").symlink_to("a.png"), r"kind2/a\.png"),
        (lambda p: (p / "kind2/a.png").symlink_to("nowhere"), r"kind2/a\.png"),
    ],
)
def test_links_that_lead_nowhere_are_named(images: Path, link: Callable[[Path], object], words: str) -> None:
    link(images / "train")
    with pytest.raises(UserError, match=rf"can't be read .*{words}"):
        load_images("cifar10", images.parent, "train")
    with pytest.raises(UserError, match=rf"can't read the data of cifar10.*{words}"):
        check("cifar10", images.parent)


def test_a_file_that_may_not_be_read_is_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = builtins.open

    def refuse(file: Any, *args: Any, **options: Any) -> Any:  # a superuser may read anything
        if str(file).endswith("kind2/1.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(UserError, match=r"kind2/1\.png can't be decoded.*Permission denied"):
        load_images("cifar10", images.parent, "train")


def test_folders_of_images_may_be_links(images: Path, tmp_path: Path) -> None:
    shutil.move(images / "train" / "kind0", tmp_path / "elsewhere")
    (images / "train" / "kind0").symlink_to(tmp_path / "elsewhere")
    (images / "train" / "kind1" / "more").symlink_to(tmp_path / "elsewhere")
    assert len(load_images("cifar10", images.parent, "train")[0]) == 22
