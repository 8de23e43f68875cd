"""Pixels of one image file: exactly what it shows, or a refusal that names it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optevo.errors import UserError
from optevo.tasks.image_pixels import read_pixels

NOISE = np.random.default_rng(0)
RGB = NOISE.integers(0, 256, (32, 32, 3), dtype=np.uint8)
GREY = NOISE.integers(0, 256, (32, 32), dtype=np.uint8)
DEEP = NOISE.integers(0, 2**16, (32, 32, 4), dtype=np.uint16)
FEW = Image.fromarray(RGB).quantize(200)


def _png(channels: int) -> bytes:
    """A PNG of 16 bits a channel; Pillow keeps eight without a word where it has colours or alpha."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 32, 32, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in DEEP[..., :channels].astype(">u2"))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _tiff(bits: int, pixels: np.ndarray[Any, Any], *, planar: bool) -> bytes:
    """An uncompressed RGB TIFF, of pixels or of planes."""
    content = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()
    strips = 3 if planar else 1
    size = len(content) // strips
    depths = 8 + len(content)
    offsets, counts = depths + 6, depths + 6 + 4 * strips
    tags = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 3, depths), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, strips, offsets if planar else 8), (277, 3, 1, 3), (278, 3, 1, 32)]
    tags += [(279, 4, strips, counts if planar else size), (284, 3, 1, 2 if planar else 1)]
    lists = struct.pack("<3H", *[bits] * 3)
    lists += struct.pack(f"<{strips}I", *(8 + i * size for i in range(strips)))
    lists += struct.pack(f"<{strips}I", *[size] * strips)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(content) + len(lists)) + content + lists + directory


def _ppm(most: int) -> bytes:
    return b"P6 32 32 %d\n" % most + np.minimum(DEEP[..., :3], most).astype(">u2").tobytes()


def _alpha(image: Image.Image, alpha: int) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def _saved(image: Image.Image, **options: Any) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


GREY_IMAGE, RGB_IMAGE = Image.fromarray(GREY), Image.fromarray(RGB)
AS_RGB = np.stack([GREY] * 3, -1)


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("a.png", _saved(RGB_IMAGE), RGB),
        ("a.bmp", _saved(RGB_IMAGE), RGB),
        ("a.tif", _saved(RGB_IMAGE), RGB),
        ("a.ppm", _saved(RGB_IMAGE), RGB),
        ("a.webp", _saved(RGB_IMAGE, lossless=True), RGB),
        ("a.pgm", _saved(GREY_IMAGE), GREY),
        ("a.gif", _saved(GREY_IMAGE), GREY),
        ("one bit.png", _saved(Image.fromarray(GREY > 127)), np.where(GREY > 127, 255, 0)),
        ("grey among colours.png", _saved(GREY_IMAGE), AS_RGB),
        ("colours that are grey.png", _saved(Image.fromarray(AS_RGB)), GREY),
        ("palette.png", _saved(FEW), np.asarray(FEW.convert("RGB"))),
        ("palette.gif", _saved(FEW), np.asarray(FEW.convert("RGB"))),
        ("opaque.png", _saved(_alpha(RGB_IMAGE, 255)), RGB),
        ("opaque.webp", _saved(_alpha(RGB_IMAGE, 255), lossless=True), RGB),
        ("opaque grey.png", _saved(_alpha(GREY_IMAGE, 255)), GREY),
        ("planes.tif", lambda path: path.write_bytes(_tiff(8, RGB, planar=True)), RGB),
        *(
            (f"{n}.png", _saved(RGB_IMAGE, exif=_turned(n)), np.rot90(RGB, k))
            for n, k in ((3, 2), (6, -1), (8, 1))
        ),
        ("6.tif", _saved(RGB_IMAGE, exif=_turned(6)), np.rot90(RGB, -1)),
        ("6.webp", _saved(RGB_IMAGE, exif=_turned(6), lossless=True), np.rot90(RGB, -1)),
        ("not square.png", _saved(Image.fromarray(RGB[:20]), exif=_turned(6)), np.rot90(RGB[:20], -1)),
        ("broken exif.png", _saved(RGB_IMAGE, exif=b"Exif\0\0nonsense"), RGB),
        ("no jpeg.jpg", _saved(RGB_IMAGE, format="PNG"), RGB),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pixels_are_exactly_those_that_the_file_shows(
    name: str, save: Callable[[Path], None], expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    save(tmp_path / name)
    if expected.ndim == 2:
        expected = expected[..., None]
    height, width, channels = expected.shape
    pixels = read_pixels(tmp_path / name, (channels, height, width), "do this")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)


def test_a_turned_jpeg_is_read_upright(tmp_path: Path) -> None:
    top_dark = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 32).reshape(32, 32)
    Image.fromarray(top_dark).save(tmp_path / "a.jpg", exif=_turned(6), quality=100)
    pixels = read_pixels(tmp_path / "a.jpg", (1, 32, 32), "do this")[..., 0].astype(int)
    assert abs(pixels - np.rot90(top_dark, -1)).max() < 4


def test_the_first_picture_of_a_phones_jpeg_is_read(tmp_path: Path) -> None:
    RGB_IMAGE.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[GREY_IMAGE.convert("RGB")])
    RGB_IMAGE.save(tmp_path / "b.jpg")
    first, plain = (read_pixels(tmp_path / name, (3, 32, 32), "do this") for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(first, plain)


def _frames(**options: Any) -> Callable[[Path], None]:
    return _saved(RGB_IMAGE, save_all=True, append_images=[FEW.convert("RGB")], **options)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _cut(save: Callable[[Path], None]) -> Callable[[Path], None]:
    def half(path: Path) -> None:
        save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return half


@pytest.mark.parametrize(
    ("name", "save", "channels", "words"),
    [
        *((f"{n}.png", _bytes(_png(n)), 1 if n < 3 else 3, "has 16 bits a channel") for n in (1, 2, 3, 4)),
        *((f"{p}.tif", _bytes(_tiff(16, DEEP[..., :3], planar=p)), 3, "16 bits") for p in (False, True)),
        *((f"{most}.ppm", _bytes(_ppm(most)), 3, f"{bits} bits") for most, bits in ((65535, 16), (1000, 10))),
        ("plain.ppm", _bytes(b"P3 32 32 4095 " + b"4095 " * 3072), 3, "has 12 bits a channel"),
        ("16.tif", _saved(Image.fromarray(DEEP[..., 0])), 1, "has 16 bits a channel"),
        ("16.pgm", _saved(Image.fromarray(DEEP[..., 0])), 1, "in mode I, not 32 x 32 in mode L"),
        ("32.tif", _saved(Image.fromarray(GREY.astype(np.float32))), 1, "has 32 bits a channel"),
        ("cmyk.jpg", _saved(RGB_IMAGE.convert("CMYK")), 3, "in mode CMYK, not 32 x 32 in mode RGB"),
        ("ycbcr.tif", _saved(RGB_IMAGE.convert("YCbCr")), 3, "in mode YCbCr"),
        ("clear.png", _saved(_alpha(RGB_IMAGE, 254)), 3, "is transparent in places"),
        ("clear.webp", _saved(_alpha(RGB_IMAGE, 9), lossless=True), 3, "is transparent in places"),
        ("palette.png", _saved(FEW, transparency=3), 3, "is transparent in places"),
        ("palette.gif", _saved(FEW, transparency=3), 3, "is transparent in places"),
        ("key.png", _saved(GREY_IMAGE, transparency=int(GREY[0, 0])), 1, "is transparent in places"),
        ("colours.png", _saved(RGB_IMAGE), 1, "in mode RGB, not 32 x 32 in mode L"),
        ("turned.png", _saved(Image.fromarray(RGB[:20]), exif=_turned(6)), 3, "20 x 32 pixels"),
        *((f"frames.{kind}", _frames(), 3, "several frames") for kind in ("gif", "png", "webp", "tif")),
        *((f"half.{kind}", _cut(_saved(RGB_IMAGE)), 3, "can't be decoded") for kind in ("png", "jpg", "gif")),
        *(
            (f"half.{kind}", _cut(_saved(RGB_IMAGE)), 3, "can't be decoded")
            for kind in ("bmp", "tif", "webp")
        ),
        ("half.ppm", _cut(_saved(RGB_IMAGE)), 3, "can't be decoded"),
        (
            "a program.png",
            _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n"),
            3,
            "can't be decoded",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_not_be_read_exactly_is_refused_by_name(
    name: str, save: Callable[[Path], object], channels: int, words: str, tmp_path: Path
) -> None:
    save(tmp_path / name)
    shape = (channels, 20, 32) if name == "turned.png" else (channels, 32, 32)
    with pytest.raises(UserError, match=words) as fault:
        read_pixels(tmp_path / name, shape, "do this")
    assert str(fault.value).startswith(str(tmp_path / name))
    assert str(fault.value).endswith("do this")
    if "decoded" not in words:
        assert f"save it as an 8-bit {'grey' if channels == 1 else 'RGB'} image" in str(fault.value)
