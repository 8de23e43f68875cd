"""Known sets of images in their own layouts and as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optevo.errors import UserError
from optevo.tasks import decoded, get_task
from optevo.tasks.data import check, get
from optevo.tasks.photographs import PHOTOGRAPHS, Listed, listed, load_photographs

savemat = pytest.importorskip("scipy.io").savemat
pytestmark = pytest.mark.usefixtures("cache")


def image(path: Path, value: int, size: tuple[int, int] = (10, 14)) -> None:
    """A picture of one grey level, told by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path, quality=100)


def tiny_imagenet(root: Path) -> None:
    folder = root / "tiny-imagenet-200"
    rows = []
    for number in range(200):
        image(folder / "train" / f"n{number:04}" / "images" / f"n{number:04}_0.JPEG", number)
        # The images of val are numbered in another order.
        image(folder / "val" / "images" / f"val_{199 - number}.JPEG", number)
        rows.append(f"val_{199 - number}.JPEG\tn{number:04}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(rows))


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    labels = [number // 3 + 1 for number in range(306)]
    for number, label in enumerate(labels):
        image(folder / "jpg" / f"image_{number + 1:05d}.jpg", label)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    ids = {key: range(first, 307, 3) for key, first in (("trnid", 1), ("valid", 2), ("tstid", 3))}
    savemat(folder / "setid.mat", {key: list(numbers) for key, numbers in ids.items()})


def stanford_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    kind = [("fname", object), ("class", np.int32)]
    for part, place in (
        ("train", folder / "devkit" / "cars_train_annos.mat"),
        ("test", folder / "cars_test_annos_withlabels.mat"),
    ):
        rows = np.array([(f"{number:05d}.jpg", number) for number in range(196, 0, -1)], dtype=kind)
        for name, number in rows:
            image(folder / f"cars_{part}" / name, number)
        place.parent.mkdir(exist_ok=True)
        savemat(place, {"annotations": rows})


def caltech101(root: Path) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    image(folder / "BACKGROUND_Google" / "image_0001.jpg", 0)
    content = (folder / "BACKGROUND_Google" / "image_0001.jpg").read_bytes()
    for number in range(101):
        place = folder / f"kind {number:03}"
        place.mkdir()
        for index in range(31):
            (place / f"image_{index:04}.jpg").write_bytes(content)


WRITE: dict[str, Callable[[Path], None]] = {
    "tiny_imagenet": tiny_imagenet,
    "flowers102": flowers102,
    "stanford_cars": stanford_cars,
}
#: How the grey level of a picture follows from its class.
FIRST = {"tiny_imagenet": 0, "flowers102": 1, "stanford_cars": 1}
COUNTS = {"tiny_imagenet": (200, 200), "flowers102": (204, 102), "stanford_cars": (196, 196)}


@pytest.mark.parametrize("name", WRITE)
def test_a_set_is_read_in_its_own_layout(name: str, tmp_path: Path) -> None:
    WRITE[name](tmp_path)
    parts = load_photographs(name, tmp_path, 8)
    assert tuple(map(len, parts.values())) == COUNTS[name]
    for split in parts.values():
        images, labels = split.inputs, split.targets
        assert images.shape[1:] == (3, 8, 8)
        told = images.float().mean((1, 2, 3)).round() - FIRST[name]
        assert (told - labels).abs().max() <= 1
        assert labels.unique().tolist() == list(range(PHOTOGRAPHS[name].classes))
    assert [row.count for row in check(name, tmp_path)] == [*COUNTS[name]]
    assert all(row.found for row in get(name, tmp_path))


def test_caltech101_trains_on_thirty_images_of_a_class(tmp_path: Path) -> None:
    caltech101(tmp_path)
    files = listed("caltech101", tmp_path).files
    assert [len(part) for part in files.values()] == [30 * 101, 101]
    numbers = torch.tensor([number for _, number in files["train"]]).bincount()
    assert numbers.tolist() == [30] * 101
    assert not {path for path, _ in files["train"]} & {path for path, _ in files["test"]}
    assert all(path.parent.name == f"kind {number:03}" for path, number in files["test"])
    assert files == listed("caltech101", tmp_path).files


def test_a_task_splits_the_train_part_by_class(tmp_path: Path) -> None:
    flowers102(tmp_path)
    few = get_task("flowers102", resolution=4, train_examples=102, validation_examples=102).load(tmp_path)
    assert few["train"].targets.unique(return_counts=True)[1].tolist() == [1] * 102
    assert few["validation"].targets.unique(return_counts=True)[1].tolist() == [1] * 102
    assert len(few["test"]) == 102
    rest = get_task("flowers102", resolution=4).load(tmp_path)
    assert [len(split) for split in rest.values()] == [163, 41, 102]
    assert torch.equal(rest["validation"].inputs, few["validation"].inputs[-41:])
    with pytest.raises(UserError, match=r"163 examples to train on and 42 to validate on, .* has 204 images"):
        get_task("flowers102", resolution=4, train_examples=163, validation_examples=42).load(tmp_path)


def test_a_set_is_decoded_once_and_its_splits_are_parts_of_one_mapped_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers102(tmp_path)
    tmp_path.chmod(0o500)  # nothing is written beside the data
    first = get_task("flowers102", resolution=4).load(tmp_path)
    (kept,) = cache.rglob("*.pixels")
    assert kept.name.startswith("flowers102-")
    assert kept.stat().st_size == 306 * 3 * 4 * 4 + 64
    assert len({split.inputs.untyped_storage().data_ptr() for split in first.values()}) == 1
    assert not any(split.streamed for split in first.values())
    monkeypatch.setattr(decoded, "fit_pixels", None)  # a second decoding would fail
    monkeypatch.setattr(decoded, "RESIDENT", 0)
    for name, split in get_task("flowers102", resolution=4, train_examples=99).load(tmp_path).items():
        assert torch.equal(split.inputs, first[name].inputs[:99] if name == "train" else first[name].inputs)
        assert split.streamed
    assert [*cache.rglob("*.pixels")] == [kept]


def test_another_resolution_and_a_changed_photograph_are_decoded_anew(tmp_path: Path, cache: Path) -> None:
    flowers102(tmp_path)
    first = load_photographs("flowers102", tmp_path, 4)["test"].inputs
    assert load_photographs("flowers102", tmp_path, 6)["test"].inputs.shape[2:] == (6, 6)
    image(tmp_path / "flowers-102" / "jpg" / "image_00003.jpg", 200)
    second = load_photographs("flowers102", tmp_path, 4)["test"].inputs
    assert (second[0] - 200.0).abs().max() <= 1
    assert torch.equal(first[1:], second[1:])
    assert len([*cache.rglob("*.pixels")]) == 3


# --- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_missing_data_are_told_with_what_to_put_where(name: str, tmp_path: Path) -> None:
    place = tmp_path / PHOTOGRAPHS[name].archive[0]
    said = f"no data for the task {name}: .*{place}.*: put .*{name}/train/<class>"
    with pytest.raises(UserError, match=said):
        get_task(name).load(tmp_path)
    assert [row.found for row in check(name, tmp_path)] == [False]


def problem(found: Listed) -> str:
    assert not found.files
    return found.problems[0]


def test_a_set_that_is_there_in_part_says_what_lacks(tmp_path: Path) -> None:
    flowers102(tmp_path)
    (tmp_path / "flowers-102" / "jpg" / "image_00003.jpg").unlink()
    assert "1 of 102 images of test are missing, such as " in problem(listed("flowers102", tmp_path))
    (tmp_path / "flowers-102" / "setid.mat").write_bytes(b"damaged")
    assert "setid.mat can't be read (" in problem(listed("flowers102", tmp_path))
    savemat(tmp_path / "flowers-102" / "setid.mat", {"trnid": [1], "valid": [2], "tstid": [400]})
    assert "can't be read as flowers102 (" in problem(listed("flowers102", tmp_path))
    savemat(tmp_path / "flowers-102" / "setid.mat", {"trnid": [1], "valid": [2], "tstid": [4]})
    assert "has images of 1 classes in its train part, not of 102" in problem(listed("flowers102", tmp_path))


def test_all_damaged_photographs_are_named_and_none_is_kept(tmp_path: Path, cache: Path) -> None:
    flowers102(tmp_path)
    for number in (7, 8):
        broken = tmp_path / "flowers-102" / "jpg" / f"image_{number:05d}.jpg"
        broken.write_bytes(broken.read_bytes()[:200])
    said = r"image_0000[78]\.jpg can't be decoded as an image .*\n.*image_0000[78]\.jpg can't be decoded"
    with pytest.raises(UserError, match=said):
        load_photographs("flowers102", tmp_path, 8)
    assert not [*cache.rglob("*.pixels")]


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers102(tmp_path)
    (cache / "file").touch()
    monkeypatch.setenv("OPTEVO_CACHE", str(cache / "file"))
    with pytest.raises(UserError, match=r"can't keep 0 MB of decoded images in .*: point OPTEVO_CACHE at"):
        get_task("flowers102", resolution=4).load(tmp_path)


def test_an_unknown_class_in_annotations_is_no_crash(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    annotations = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn9999\n")
    assert "can't be read as tiny_imagenet ('n9999')" in problem(listed("tiny_imagenet", tmp_path))


def test_folders_with_other_classes_are_refused(tmp_path: Path) -> None:
    for part, number in (("train", 0), ("test", 1)):
        image(tmp_path / "caltech101" / part / f"kind {number}" / "a.jpg", 1)
    assert "train has 1 class folders (kind 0), not 101" in problem(listed("caltech101", tmp_path))
