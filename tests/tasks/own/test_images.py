"""A user's own images: every layout, every kind of file, and what is said of what can't be read."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_tasks import seeded

from optevo.errors import UserError
from optevo.tasks import Split, own_data
from optevo.tasks import decoded as module

NOISE = np.random.default_rng(0)


def picture(path: Path, *size: int, colour: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*(size or (12, 12)), 3)
    pixels = (
        NOISE.integers(0, 256, shape, dtype=np.uint8) if colour is None else np.full(shape, colour, np.uint8)
    )
    Image.fromarray(pixels).save(path)


def load(root: Path, path: str = "data", **options: Any) -> tuple[Any, dict[str, Split]]:
    task: Any = own_data("images", "mine", path, {"resolution": 8, "width": 2, **options})
    return task, task.load(root)


def sizes(splits: dict[str, Split]) -> dict[str, list[int]]:
    return {name: torch.bincount(split.targets, minlength=2).tolist() for name, split in splits.items()}


def distinct(splits: dict[str, Split]) -> int:
    return len({bytes(one.flatten().tolist()) for split in splits.values() for one in split.inputs})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("Grüne Äpfel", "rote Birnen"):
        for number in range(20):
            picture(tmp_path / "data" / kind / f"{number}.png")
    return tmp_path / "data"


def test_a_folder_with_a_folder_a_class_is_split_by_a_seed_in_proportion_and_without_overlap(folder: Path):
    task, splits = load(folder.parent)
    assert (task.classes, task.size) == (2, 8)
    assert sizes(splits) == {"train": [14, 14], "validation": [3, 3], "test": [3, 3]}
    assert distinct(splits) == 40
    assert splits["train"].inputs.shape == (28, 3, 8, 8)
    _, again = load(folder.parent)
    _, others = load(folder.parent, seed=1)
    assert torch.equal(again["test"].inputs, splits["test"].inputs)
    assert not torch.equal(others["test"].inputs, splits["test"].inputs)
    assert sizes(load(folder.parent, validation=0.25, test=0.05)[1])["validation"] == [5, 5]


def test_it_trains(folder: Path):
    task, splits = load(folder.parent, augmentation="crop_flip")
    model = task.model(seeded(0))
    batch = next(task.batches(splits["train"], 8, seeded(1)))
    loss = task.loss(model, batch)
    loss.backward()
    assert 0.3 < loss.item() < 2
    assert 0 <= task.score(model, splits["validation"]) <= 1
    normalised = torch.cat([task.prepare(part) for part in splits["train"].inputs.split(7)])
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-4
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 1e-2


def test_folders_of_parts_are_taken_as_they_are_and_what_is_missing_is_drawn_from_train(folder: Path):
    split = folder.parent / "split"
    shutil.copytree(folder, split / "train")
    for number in range(3):
        for kind in ("Grüne Äpfel", "rote Birnen"):
            picture(split / "val" / kind / f"{number}.png")
    _, splits = load(folder.parent, "split")
    assert sizes(splits) == {"train": [17, 17], "validation": [3, 3], "test": [3, 3]}
    assert distinct(splits) == 46


def test_an_unpacked_archive_may_have_folders_around_the_classes(folder: Path):
    outer = folder.parent / "EuroSAT"
    (outer / "__MACOSX").mkdir(parents=True)
    folder.rename(outer / "2750")
    assert sizes(load(folder.parent, "EuroSAT")[1])["train"] == [14, 14]


def test_a_part_with_other_classes_is_told(folder: Path):
    shutil.copytree(folder, folder.parent / "split" / "train")
    picture(folder.parent / "split" / "test" / "Pflaumen" / "1.png")
    picture(folder.parent / "split" / "test" / "rote Birnen" / "1.png")
    with pytest.raises(UserError, match=r"classes of train .*Gr.*pfel.* and test .*Pflaumen.* differ"):
        load(folder.parent, "split")


def test_every_kind_of_image_of_any_size_is_read_as_it_looks(tmp_path: Path):
    red = np.zeros((30, 20, 3), np.uint8)
    red[..., 0] = 200
    folder = tmp_path / "data" / "red"
    folder.mkdir(parents=True)
    image = Image.fromarray(red)
    image.save(folder / "rgb.bmp")
    image.quantize(4).save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    image.resize((640, 480)).save(folder / "large.JPEG", quality=100)
    Image.fromarray(red[..., 0]).save(folder / "grey.png")
    clear = image.convert("RGBA")
    clear.putalpha(0)
    clear.save(folder / "transparent.png")
    picture(tmp_path / "data" / "other" / "1.png")
    picture(tmp_path / "data" / "other" / "2.png")
    _, splits = load(tmp_path, validation=0.2, test=0.2)
    every = torch.cat([split.inputs[split.targets == 1] for split in splits.values()]).float().mean((2, 3))
    shown = [[200, 0, 0]] * 4 + [[200, 200, 200], [255, 255, 255]]
    for colour in shown:
        near = (every - torch.tensor(colour)).abs().max(dim=1).values < 6
        assert near.sum() == shown.count(colour), (colour, every)
    _, grey = load(tmp_path, channels=1, validation=0.2, test=0.2)
    assert grey["train"].inputs.shape[1:] == (1, 8, 8)


def test_the_middle_of_an_oblong_image_is_taken(tmp_path: Path):
    picture(tmp_path / "data" / "a" / "1.png")
    for number in range(3):
        pixels = np.zeros((8, 24), np.uint8)
        pixels[:, 8:16] = 100 + number
        (tmp_path / "data" / "b").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / "b" / f"{number}.png")
    _, splits = load(tmp_path, validation=0.25, test=0.25)
    every = torch.cat([split.inputs[split.targets == 1] for split in splits.values()])
    assert sorted(every.flatten(1).float().mean(1).tolist()) == [100, 101, 102]


def test_corrupt_files_are_all_named_at_once(folder: Path, cache: Path):
    (folder / "rote Birnen" / "kaputt 1.png").write_bytes(b"\x89PNG broken")
    sound = (folder / "rote Birnen" / "3.png").read_bytes()
    (folder / "rote Birnen" / "cut.png").write_bytes(sound[:-30])
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "Grüne Äpfel" / "deep.png")
    with pytest.raises(UserError) as told:
        load(folder.parent)
    for words in (
        "kaputt 1.png can't be decoded as an image (it begins as none of JPEG, PNG, BMP",
        "cut.png can't be",
        "deep.png has 16 bits",
        "remove it",
    ):
        assert words in str(told.value)
    assert not list(cache.rglob("*.pixels"))


def test_what_is_no_image_is_left_out_with_a_word(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "rote Birnen" / "notes.txt").write_text("no image")
    (folder / "rote Birnen" / "Thumbs.db").write_text("no image")
    with caplog.at_level(logging.WARNING):
        _, splits = load(folder.parent)
    assert sum(map(len, splits.values())) == 40
    assert "left out 1 file" in caplog.text
    assert "notes.txt" in caplog.text


@pytest.mark.parametrize("classes", [0, 1])
def test_an_empty_class_and_too_few_classes_are_told(folder: Path, classes: int):
    (folder / "leer").mkdir()
    with pytest.raises(UserError, match=r"leer has no .jpg.*files.*remove it"):
        load(folder.parent)
    for kind in ("Grüne Äpfel", "rote Birnen", "leer")[classes:]:
        shutil.rmtree(folder / kind)
    with pytest.raises(UserError, match=rf"has {classes} class folders .*not two or more"):
        load(folder.parent)


def test_of_identical_files_one_is_read_and_those_of_several_classes_are_not(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    apples, pears = folder / "Grüne Äpfel", folder / "rote Birnen"
    shutil.copy(apples / "1.png", apples / "copy of 1.png")
    shutil.copy(apples / "2.png", pears / "also 2.png")
    with caplog.at_level(logging.WARNING):
        _, splits = load(folder.parent)
    assert distinct(splits) == sum(map(len, splits.values())) == 39
    for words in ("copy of 1.png. They are one image: only one", "also 2.png. They are one image in several"):
        assert words in caplog.text


def test_a_class_of_copies_alone_is_told(folder: Path):
    (folder / "leer").mkdir()
    shutil.copy(folder / "rote Birnen" / "1.png", folder / "leer" / "1.png")
    with pytest.raises(UserError, match=r"leer has no image that isn't in another class .*: correct it"):
        load(folder.parent)


def test_files_of_one_size_are_compared_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(9):
        picture(folder / "rote Birnen" / f"{number}.bmp")
    shutil.copy(folder / "rote Birnen" / "1.bmp", folder / "rote Birnen" / "2.bmp")
    _, first = load(folder.parent)
    monkeypatch.setattr(hashlib, "file_digest", None)
    _, second = load(folder.parent, seed=1)
    assert [len(split) for split in first.values()] == [len(split) for split in second.values()]
    assert sum(map(len, second.values())) == 48


def test_an_image_of_test_that_is_in_train_too_is_read_in_test_alone(folder: Path):
    shutil.copytree(folder, folder.parent / "split" / "train")
    for kind in ("Grüne Äpfel", "rote Birnen"):
        (folder.parent / "split" / "test" / kind).mkdir(parents=True)
        shutil.copy(folder / kind / "1.png", folder.parent / "split" / "test" / kind / "x.png")
    _, splits = load(folder.parent, "split")
    assert sizes(splits)["test"] == [1, 1]
    assert distinct(splits) == sum(map(len, splits.values())) == 40


def test_other_data_have_another_identity_and_a_moved_folder_the_same(folder: Path):
    first = load(folder.parent)[0].identity
    picture(folder / "rote Birnen" / "3.png")
    second = load(folder.parent)[0].identity
    folder.rename(folder.parent / "moved")
    third = load(folder.parent, "moved")[0].identity
    (folder.parent / "moved" / "rote Birnen").rename(folder.parent / "moved" / "rote Bete")
    assert first != second == third != load(folder.parent, "moved")[0].identity


def archive(path: Path, **changes: Any) -> None:
    arrays: dict[str, Any] = {}
    for part, count in (("train", 20), ("val", 6), ("test", 8)):
        arrays[f"{part}_images"] = NOISE.integers(0, 256, (count, 9, 9), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 3 + 1
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


@pytest.mark.parametrize("colours", [False, True])
def test_an_archive_of_medmnist_is_read_as_it_comes(tmp_path: Path, colours: bool):
    given = NOISE.integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)
    archive(tmp_path / "x.npz", **({"train_images": given} if colours else {}))
    task, splits = load(tmp_path, "x.npz", resolution=None)
    channels = 3 if colours else 1
    assert [split.inputs.shape for split in splits.values()] == [(n, channels, 9, 9) for n in (20, 6, 8)]
    assert splits["train"].targets.tolist() == [i % 3 for i in range(20)]
    assert task.classes == 3
    if colours:
        assert torch.equal(splits["train"].inputs.permute(0, 2, 3, 1), torch.from_numpy(given))
    _, resized = load(tmp_path, "x.npz", resolution=6, channels=3)
    assert resized["test"].inputs.shape == (8, 3, 6, 6)
    assert task.model(seeded(0))(task.prepare(splits["test"].inputs)).shape == (8, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_labels": None}, "it has no val_labels, only train_images"),
        ({"val_labels": np.zeros((6, 14), int)}, "several labels an image"),
        ({"val_labels": np.full((6, 1), 9)}, "validation has the label 9, which no image of train has"),
        ({"test_labels": np.ones((7, 1), int)}, "test has 8 images and 7 labels"),
        ({"test_images": np.zeros((8, 9, 9, 9), np.uint8)}, r"not uint8 \(N, H, W\)"),
        ({"test_images": np.zeros((8, 9, 9))}, "images are float64"),
        ({"test_images": np.array([None] * 8)}, "images are object"),
    ],
)
def test_another_archive_is_told(tmp_path: Path, changes: dict[str, Any], said: str):
    archive(tmp_path / "x.npz", **changes)
    with pytest.raises(UserError, match=f"x.npz can't be read as a MedMNIST archive .*{said}"):
        load(tmp_path, "x.npz")


def test_a_damaged_archive_and_a_packed_folder_are_told(tmp_path: Path):
    archive(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:900])
    with pytest.raises(UserError, match="can't be read as a MedMNIST archive"):
        load(tmp_path, "x.npz")
    (tmp_path / "x.zip").touch()
    with pytest.raises(UserError, match="unpack it"):
        load(tmp_path, "x.zip")


def test_data_are_looked_for_below_the_data_root_then_in_the_current_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(UserError, match=r"no .*elsewhere0/data and no .*data-dir"):
        load(elsewhere)
    monkeypatch.chdir(folder.parent)
    assert load(elsewhere)[0].classes == 2
    picture(elsewhere / "data" / "a" / "1.png")
    with pytest.raises(UserError, match="elsewhere0/data has 1 class folders"):
        load(elsewhere)
    assert load(elsewhere, str(folder))[0].classes == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": "64"}, "resolution must be a whole number from 4 to 4096"),
        ({"channels": 4}, "channels must be 1 or 3"),
        ({"augmentation": "flip"}, "'flip'"),
        ({"network": "resnet81"}, "unknown network 'resnet81'"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"test": 1}, "test must be a number between 0 and 1"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"resolutoin": 8}, "did you mean 'resolution'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_read(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=f"task '?mine'?.*{said}"):
        load(tmp_path, **options)


def test_a_set_too_large_for_a_device_gives_the_same_batches_and_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    task, whole = load(folder.parent)
    monkeypatch.setattr(module, "RESIDENT", 0)
    _, streamed = load(folder.parent)
    assert streamed["train"].streamed
    assert not whole["train"].streamed
    split = streamed["train"].to("meta")
    assert (split.device.type, split.inputs.device.type) == ("meta", "cpu")
    batches = [next(task.batches(one["train"], 8, seeded(3))) for one in (whole, streamed)]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_streamed_set_trains_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RESIDENT", 0)
    task, splits = load(folder.parent)
    split, model = splits["train"].to("cuda"), task.model(seeded(0)).to("cuda")
    inputs, targets = next(task.batches(split, 8, seeded(3, "cuda")))
    assert (inputs.device.type, targets.device.type, split.inputs.device.type) == ("cuda", "cuda", "cpu")
    task.loss(model, (inputs, targets)).backward()
    assert 0 <= task.score(model, split) <= 1


def test_links_in_a_circle_and_folders_without_rights_are_told(folder: Path):
    os.symlink(folder, folder / "rote Birnen" / "again")
    with pytest.raises(UserError, match=r"can't be read.*leads back"):
        load(folder.parent)
