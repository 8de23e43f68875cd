"""Finding, reading, checking and fetching data: sound files, damaged ones, and the real sets."""

from __future__ import annotations

import gzip
import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tasks import SETS, idx_bytes

from optevo.errors import UserError
from optevo.tasks import data, get_task, roots
from optevo.tasks.data import check, get, load_images, load_text

pytestmark = pytest.mark.usefixtures("cache")


# --- where things are -------------------------------------------------------------------------------------


def test_the_data_root_is_the_argument_then_the_variable_then_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTEVO_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert roots.data_root(tmp_path / "argument") == tmp_path / "argument"
    assert roots.data_root() == tmp_path / "variable"
    monkeypatch.delenv("OPTEVO_DATA")
    assert roots.data_root() == tmp_path / "cache" / "optevo" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert roots.data_root() == tmp_path / ".cache" / "optevo" / "data"
    monkeypatch.delenv("OPTEVO_CACHE")
    assert roots.decoded_root() == tmp_path / ".cache" / "optevo" / "decoded"


@pytest.mark.usefixtures("homeless")
def test_without_a_home_only_what_needs_one_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTEVO_CACHE")
    for needs in (
        roots.data_root,
        roots.decoded_root,
        lambda: roots.data_root("~/data"),
        lambda: roots.data_root("~nobody/data", needed=False),
        lambda: load_images("cifar10", roots.data_root(needed=False), "train"),
        lambda: load_text(roots.data_root(needed=False), 1),
        lambda: check("mnist", roots.data_root(needed=False)),
        lambda: get("char_lm", roots.data_root(needed=False)),
    ):
        with pytest.raises(UserError, match=r"no home folder.* set OPTEVO_DATA .*OPTEVO_CACHE"):
            needs()
    assert get_task("digits").load(roots.data_root(needed=False)).keys() == {"train", "validation", "test"}
    assert check("digits", roots.data_root(needed=False))[0].found
    monkeypatch.setenv("OPTEVO_DATA", str(tmp_path))
    assert roots.data_root() == tmp_path
    monkeypatch.setenv("OPTEVO_DATA", "~/data")
    assert roots.data_root(needed=False) == roots.NOWHERE


@pytest.mark.parametrize("name", sorted(SETS))
def test_missing_data_say_where_they_were_looked_for_and_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as fault:
        get_task(name).load(tmp_path)
    for words in (name, str(tmp_path / SETS[name]), f"optevo data get {name}", "OPTEVO_DATA", "--data-dir"):
        assert words in str(fault.value)
    assert not any(row.found for row in check(name, tmp_path))


# --- idx files --------------------------------------------------------------------------------------------


def test_idx_files_are_read_plain_and_gzipped(mnist: Path) -> None:
    plain = load_images("mnist", mnist.parents[1], "train")
    assert plain[0].shape == (30, 1, 28, 28)
    assert plain[0].dtype == torch.uint8
    assert plain[1].tolist() == [number % 10 for number in range(30)]
    for path in list(mnist.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = load_images("mnist", mnist.parents[1], "train")
    assert all(torch.equal(a, b) for a, b in zip(plain, zipped, strict=True))
    assert all(row.found and row.path.suffix == ".gz" for row in check("mnist", mnist.parents[1]))


IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        (IMAGES_FILE, lambda old: old[:-100], "truncated"),
        (IMAGES_FILE, lambda old: old[:10], "truncated.*header"),
        (IMAGES_FILE, lambda old: b"", "truncated"),
        (IMAGES_FILE, lambda old: old + b"more", "too long"),
        (IMAGES_FILE, lambda old: b"\x00\x00\x08\x01" + old[4:], "magic number: 0x00000801, not 0x00000803"),
        (IMAGES_FILE, lambda old: b"\x89PNG" + old[4:], "magic number"),
        (IMAGES_FILE, lambda old: idx_bytes(np.zeros((30, 32, 32))), "32 x 32 pixels, not 28 x 28"),
        (IMAGES_FILE, lambda old: idx_bytes(np.zeros((29, 28, 28))), "29 images but .* 30 labels"),
        (LABELS_FILE, lambda old: old[:-1] + b"\x0a", "label 10 at position 29; labels must be 0 to 9"),
        (LABELS_FILE, lambda old: old[:-1], "truncated"),
    ],
)
def test_a_damaged_idx_file_is_named_with_its_fault(
    mnist: Path, file: str, damage: Callable[[bytes], bytes], words: str
) -> None:
    (mnist / file).write_bytes(damage((mnist / file).read_bytes()))
    with pytest.raises(UserError, match=words) as fault:
        get_task("mnist", train_examples=10, validation_examples=5).load(mnist.parents[1])
    assert str(mnist / file) in str(fault.value)
    assert "optevo data get mnist" in str(fault.value)


@pytest.mark.parametrize("keep", [-20, 12])
def test_a_damaged_gzip_file_is_named(mnist: Path, keep: int) -> None:
    path = mnist / IMAGES_FILE
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes())[:keep] if keep < 0 else b"no gzip at all")
    path.unlink()
    with pytest.raises(UserError, match="can't be read") as fault:
        load_images("mnist", mnist.parents[1], "train")
    assert str(zipped) in str(fault.value)


def test_one_missing_idx_file_is_named(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is missing"):
        load_images("mnist", mnist.parents[1], "test")
    assert [row.found for row in check("mnist", mnist.parents[1])] == [True, True, True, False]


def test_check_tells_size_checksum_and_whether_bytes_are_the_published_ones(mnist: Path) -> None:
    row = check("mnist", mnist.parents[1])[0]
    content = (mnist / IMAGES_FILE).read_bytes()
    assert (row.path, row.found, row.size) == (mnist / IMAGES_FILE, True, len(content))
    assert row.sha256 == hashlib.sha256(content).hexdigest()
    assert row.published is False


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"To be", "too short: 5 bytes of at least")]
)
def test_a_useless_text_is_explained(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        get_task("char_lm").load(tmp_path)


def test_the_shortest_text_that_is_accepted_gives_a_window_everywhere(tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(b"x" * 2_560)
    task = get_task("char_lm")
    splits = task.load(tmp_path)
    assert all(len(split) >= 64 for split in splits.values())


# --- fetching ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SETS))
def test_without_a_network_get_says_where_to_put_the_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match=f"can't download {name}.*Without a network, put the files at"):
        get(name, tmp_path / "new")
    assert not any(row.found for row in check(name, tmp_path / "new"))


def test_get_fetches_the_text_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source.txt").write_bytes(b"To be, or not to be" * 200)
    monkeypatch.setattr(data, "TEXT_URL", (tmp_path / "source.txt").as_uri())
    with pytest.raises(UserError, match="cut off or has changed"):
        get("char_lm", tmp_path / "new")
    assert not (tmp_path / "new" / "tinyshakespeare" / "input.txt").exists()
    digest = hashlib.sha256((tmp_path / "source.txt").read_bytes()).hexdigest()
    monkeypatch.setitem(data.PUBLISHED, "tinyshakespeare/input.txt", digest)
    (row,) = get("char_lm", tmp_path / "new")
    assert row.found
    assert row.published
    assert row.path.read_bytes() == (tmp_path / "source.txt").read_bytes()
    assert [path.name for path in row.path.parent.iterdir()] == ["input.txt"]


def test_get_leaves_alone_what_is_there_and_sound(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_download", None)  # calling it would fail
    assert all(row.found for row in get("mnist", mnist.parents[1]))
    assert all(row.found for row in get("digits", mnist))


def test_get_reports_damage_in_what_is_there(mnist: Path) -> None:
    (mnist / IMAGES_FILE).write_bytes(b"short")
    with pytest.raises(UserError, match="truncated"):
        get("mnist", mnist.parents[1])


@pytest.mark.parametrize("command", [check, get])
def test_an_unknown_data_set_is_refused_with_the_known_ones(
    command: Callable[[str, Path], object], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no data set 'voc'.*digits, mnist"):
        command("voc", tmp_path)
