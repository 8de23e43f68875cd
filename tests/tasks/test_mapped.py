"""What is decoded once: whole or not there, of these very files, made by one process, never in memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from optevo.errors import UserError
from optevo.tasks.mapped import Block, _seal, mapped

SHAPE = (5, 3, 4, 4)
PIXELS = np.arange(5 * 48, dtype=np.uint8).reshape(SHAPE)


class Decoder:
    """Blocks of two images; counts how often it was asked for; may stop with a fault after one."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.calls, self.fault = 0, fault

    def __call__(self) -> Iterator[Block]:
        self.calls += 1
        for start in range(0, 5, 2):
            if start and self.fault is not None:
                raise self.fault
            yield PIXELS[start : start + 2], bytes([start])


def test_pixels_are_decoded_once_and_mapped(tmp_path: Path) -> None:
    decoder, path = Decoder(), tmp_path / "cache" / "x.pixels"
    first, digest = mapped(path, "key", SHAPE, decoder)
    second, again = mapped(path, "key", SHAPE, decoder)
    assert decoder.calls == 1
    assert digest == again
    for pixels in (first, second):
        assert torch.equal(pixels, torch.from_numpy(PIXELS))
    assert any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-70] + b"\0" * 70,
        lambda content: b"",
    ],
)
def test_a_damaged_file_is_made_again(tmp_path: Path, damage) -> None:
    decoder, path = Decoder(), tmp_path / "x.pixels"
    mapped(path, "key", SHAPE, decoder)
    content = path.read_bytes()
    path.unlink()  # the mapped one may not be cut
    path.write_bytes(damage(content))
    pixels, _ = mapped(path, "key", SHAPE, decoder)
    assert decoder.calls == 2
    assert torch.equal(pixels, torch.from_numpy(PIXELS))


def test_a_file_of_other_images_is_made_again(tmp_path: Path) -> None:
    decoder, path = Decoder(), tmp_path / "x.pixels"
    mapped(path, "key", SHAPE, decoder)
    mapped(path, "another key", SHAPE, decoder)
    mapped(path, "another key", (5, 1, 12, 4), decoder)
    assert decoder.calls == 3


@pytest.mark.parametrize("fault", [UserError("a corrupt file"), KeyboardInterrupt()])
def test_what_stops_the_decoding_leaves_nothing_behind(tmp_path: Path, fault: BaseException) -> None:
    path = tmp_path / "x.pixels"
    with pytest.raises(type(fault)):
        mapped(path, "key", SHAPE, Decoder(fault))
    assert [one.name for one in tmp_path.iterdir()] == ["x.lock"]
    assert torch.equal(mapped(path, "key", SHAPE, Decoder())[0], torch.from_numpy(PIXELS))


def _killed(path: Path) -> None:
    def blocks() -> Iterator[Block]:
        yield PIXELS[:2], b""
        os.kill(os.getpid(), 9)

    mapped(path, "key", SHAPE, blocks)


def test_a_killed_process_leaves_no_lock_and_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pixels"
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert not path.exists()
    assert torch.equal(mapped(path, "key", SHAPE, Decoder())[0], torch.from_numpy(PIXELS))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.lock", "x.pixels"]


def test_of_two_who_start_at_once_one_decodes_and_the_other_waits(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    path, found, decoders = tmp_path / "x.pixels", list[torch.Tensor](), (Decoder(), Decoder())

    def blocks() -> Iterator[Block]:
        begun.set()
        go_on.wait()
        yield from decoders[0]()

    first = threading.Thread(target=lambda: found.append(mapped(path, "key", SHAPE, blocks)[0]))
    second = threading.Thread(target=lambda: found.append(mapped(path, "key", SHAPE, decoders[1])[0]))
    first.start()
    begun.wait()
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert [decoder.calls for decoder in decoders] == [1, 0]
    assert torch.equal(*found)


def test_a_cache_that_cannot_be_written_is_told_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't keep .* MB of decoded images in .*file.*OPTEVO_CACHE"):
        mapped(tmp_path / "file" / "x.pixels", "key", SHAPE, Decoder())


def test_a_full_disk_is_told_before_anything_is_decoded_and_where_it_fills_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, path = Decoder(), tmp_path / "x.pixels"
    told = "can't keep 0 MB of decoded images in .*No space left on device.*: point OPTEVO_CACHE"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
        with pytest.raises(UserError, match=told):
            mapped(path, "key", SHAPE, decoder)
    assert decoder.calls == 0

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode: open("/dev/full", mode))  # noqa: SIM115
        with pytest.raises(UserError, match=told):
            mapped(path, "key", SHAPE, decoder)
    assert decoder.calls == 1
    assert not path.exists()
    assert torch.equal(mapped(path, "key", SHAPE, decoder)[0], torch.from_numpy(PIXELS))


def test_a_set_larger_than_memory_can_be_mapped(tmp_path: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = (2 * total // 2**20, 1, 2**10, 2**10)
    path, key = tmp_path / "x.pixels", "key"
    mapped(path, key, (1, 1, 2**10, 2**10), lambda: iter([(np.ones((1, 1, 2**10, 2**10), np.uint8), b"")]))
    size, digest = shape[0] * 2**20, b"\1" * 32
    with path.open("r+b") as file:  # sparse: no disk holds it
        file.truncate(size)
        file.seek(size)
        file.write(digest + _seal(key, shape, digest))
    pixels, _ = mapped(path, key, shape, Decoder())
    assert pixels.shape == shape
    assert int(pixels[0, 0, 0, 0]) == 1
    assert int(pixels[-1].sum()) == 0
