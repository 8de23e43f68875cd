"""What is kept of decoded images: served where it is of these very files, and nowhere else."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from optevo.tasks import folders
from optevo.tasks.data import load_images
from optevo.tasks.image_files import ImageFiles

pytestmark = pytest.mark.usefixtures("cache")


def test_images_are_decoded_once(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images("cifar10", images.parent, "train")
    assert len(list((cache / "decoded").iterdir())) == 1
    monkeypatch.setattr(folders, "_decode", None)  # a second decoding would fail
    second = load_images("cifar10", images.parent, "train")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_changed_image_is_decoded_again(images: Path) -> None:
    first, _ = load_images("cifar10", images.parent, "train")
    Image.fromarray(np.full((32, 32, 3), 9, dtype=np.uint8)).save(images / "train" / "kind0" / "1.png")
    second, _ = load_images("cifar10", images.parent, "train")
    assert (second[1] == 9).all()
    assert torch.equal(first[2:], second[2:])


def _flip_a_pixel(path: Path) -> None:
    kept = torch.load(path, weights_only=True)
    kept["inputs"][0, 0, 0, 0] ^= 1
    torch.save(kept, path)


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_pixel,
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(pickle.dumps({"inputs": 1}, protocol=2)),
        lambda path: torch.save({"inputs": torch.zeros(1)}, path),
        lambda path: torch.save([1, 2], path),
    ],
)
def test_a_damaged_cache_is_decoded_again(
    images: Path, cache: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = load_images("cifar10", images.parent, "train")
    (kept,) = (cache / "decoded").iterdir()
    damage(kept)
    second, _ = load_images("cifar10", images.parent, "train")
    assert torch.equal(first, second)
    assert "damaged" in caplog.text
    caplog.clear()
    assert torch.equal(first, load_images("cifar10", images.parent, "train")[0])
    assert not caplog.text  # mended


def test_workers_that_decode_at_once_agree_and_leave_one_whole_file(images: Path, cache: Path) -> None:
    results: list[torch.Tensor] = []
    workers = [
        threading.Thread(target=lambda: results.append(load_images("cifar10", images.parent, "train")[0]))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 6
    assert all(torch.equal(results[0], result) for result in results)
    assert [path.suffix for path in (cache / "decoded").iterdir()] == [".pt"]


def test_a_cache_that_cannot_be_written_only_warns(
    images: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "decoded").write_text("a file where a folder should be")
    assert len(load_images("cifar10", images.parent, "train")[0]) == 20
    assert "can't keep" in caplog.text


def _same_size_and_time(path: Path, value: int) -> None:
    with path.open("wb") as stream:
        Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)).save(stream, "PNG", compress_level=0)
    os.utime(path, (315532800, 315532800))


def _beside(path: Path, value: int) -> None:
    _same_size_and_time(path.with_name("new"), value)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("write", [_same_size_and_time, _beside])
def test_an_image_replaced_by_one_of_the_same_size_and_time_is_seen(
    images: Path, write: Callable[[Path, int], None]
) -> None:
    path = images / "train" / "kind0" / "1.png"
    _same_size_and_time(path, 3)
    assert (load_images("cifar10", images.parent, "train")[0][1] == 3).all()
    size = path.stat().st_size
    write(path, 200)
    assert (path.stat().st_size, path.stat().st_mtime) == (size, 315532800)
    assert (load_images("cifar10", images.parent, "train")[0][1] == 200).all()


def test_two_images_that_change_names_are_seen(images: Path) -> None:
    paths = [images / "train" / "kind0" / "1.png", images / "train" / "kind1" / "1.png"]
    for value, path in enumerate(paths):
        _same_size_and_time(path, value)
    before = load_images("cifar10", images.parent, "train")[0]
    paths[0].rename(images / "x")
    paths[1].rename(paths[0])
    (images / "x").rename(paths[1])
    after = load_images("cifar10", images.parent, "train")[0]
    assert torch.equal(before[[1, 3]], after[[3, 1]])


def test_what_another_root_has_decoded_is_never_served(
    images: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    shutil.copytree(images, other / "cifar10")  # times are copied too
    _same_size_and_time(images / "train" / "kind0" / "1.png", 1)
    _same_size_and_time(other / "cifar10" / "train" / "kind0" / "1.png", 2)
    for root, value in ((images.parent, 1), (other, 2), (images.parent, 1)):
        assert (load_images("cifar10", root, "train")[0][1] == value).all()
    kept = sorted((cache / "decoded").iterdir())
    assert len(kept) == 2
    contents = [path.read_bytes() for path in kept]
    for path, content in zip(kept, reversed(contents), strict=True):
        path.write_bytes(content)
    assert (load_images("cifar10", images.parent, "train")[0][1] == 1).all()
    assert "checksum is wrong" in caplog.text


def test_a_root_that_is_a_link_is_the_place_it_leads_to(images: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images.parent)
    load_images("cifar10", images.parent, "train")
    load_images("cifar10", tmp_path / "link", "train")
    assert len(list((cache / "decoded").iterdir())) == 1


def test_images_that_change_while_they_are_decoded_are_not_kept(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = folders._decode

    def slowly(*arguments: Any) -> torch.Tensor:
        decoded = decode(*arguments)
        _same_size_and_time(images / "train" / "kind0" / "1.png", 5)
        return decoded

    monkeypatch.setattr(folders, "_decode", slowly)
    load_images("cifar10", images.parent, "train")
    assert not (cache / "decoded").exists()
    monkeypatch.setattr(folders, "_decode", decode)
    assert (load_images("cifar10", images.parent, "train")[0][1] == 5).all()


@pytest.mark.parametrize(
    "error",
    [
        OSError(30, "Read-only file system"),
        OSError(28, "No space left on device"),
        RuntimeError("unexpected pos 64 vs 0"),
    ],
)
def test_a_cache_that_takes_nothing_is_said_once(
    images: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch, "save", refuse)
    for part in ("train", "test", "train"):
        assert len(load_images("cifar10", images.parent, part)[0]) == 20
    (record,) = caplog.records
    assert "can't keep decoded images" in record.getMessage()
    assert "OPTEVO_CACHE" in record.getMessage()


def test_what_is_kept_is_known_by_the_place_and_by_all_that_tells_files_apart() -> None:
    def key(folder: str = "/a/train", path: str = "0/a.png", **other: int) -> str:
        told = {"st_ino": 1, "st_size": 1, "st_mtime_ns": 1, "st_ctime_ns": 1, **other}
        status = cast("os.stat_result", SimpleNamespace(**told))
        return folders._key(ImageFiles(Path(folder), ["0"], [(path, 0, status)]), (3, 32, 32))

    changes: list[dict[str, Any]] = [{"folder": "/b/train"}, {"path": "0/b.png"}, {"path": "0/\udcff.png"}]
    changes += [{name: 2} for name in ("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")]
    assert key() == key()
    assert len({key(), *(key(**change) for change in changes)}) == 1 + len(changes)
