"""One image file as 8-bit pixels: exactly those that it shows, or fitted to a size; or why not."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optevo.errors import UserError
from optevo.tasks.image_files import FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 3: "RGB"}
_EXACT = {
    "1",
    "L",
    "P",
    "RGB",
    "RGBX",
    "LA",
    "PA",
    "RGBA",
}  # Pillow's modes that 8-bit RGB holds without loss
_FITTED = _EXACT | {"CMYK", "YCbCr"}


def read_pixels(path: Path, shape: tuple[int, int, int], remedy: str) -> np.ndarray[Any, Any]:
    """Decode one image file.

    Grey, palettes, an alpha channel that hides nothing and EXIF's orientation are resolved without loss.
    What would lose something is refused: 16 bits a channel, CMYK, transparency, several frames, colours in
    a set of grey images.

    Args:
        path: The file, in one of `FORMATS`, whatever it is called (but a TIFF must be called one).
        shape: (channels, height, width) that it must have; 1 channel means grey, 3 mean RGB.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8 (height, width, channels).

    Raises:
        UserError: The file can't be read or decoded, or holds something else.
    """
    channels, height, width = shape
    kind = "grey" if channels == 1 else "RGB"
    saved = f"save it as an 8-bit {kind} image of {width} x {height} pixels"
    with _told(path, saved, remedy):
        return _opened(path, path, lambda image: _exactly(image, shape))


def fit_pixels(content: bytes, path: Path, shape: tuple[int, int, int], remedy: str) -> np.ndarray[Any, Any]:
    """Decode one image of any size: the largest middle part of the right proportions, resized.

    Grey becomes RGB and colours become grey as `shape` asks; EXIF's orientation is resolved; what is
    transparent lies on white. 16 bits a channel and several frames are refused.

    Args:
        content: Of the file.
        path: What the file is called.
        shape: (channels, height, width) that comes out; 1 channel means grey, 3 mean RGB.
        remedy: What the user can do, the end of every error message.

    Returns:
        uint8 (channels, height, width).

    Raises:
        UserError: The file can't be decoded, or is refused.
    """
    with _told(path, "save it as an 8-bit RGB or grey image", remedy):
        return _opened(path, io.BytesIO(content), lambda image: fitted(image, shape))


def _opened(
    path: Path, source: Path | io.BytesIO, read: Callable[[Image], np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    from PIL import Image  # noqa: PLC0415 - only who has image files needs it

    # TIFF's reader is the widest door, and is opened only to files that say so.
    formats = [name for name in FORMATS if name != "TIFF" or path.suffix.lower() in FORMATS[name]]
    with Image.open(source, formats=formats) as image:
        return read(image)


@contextlib.contextmanager
def _told(path: Path, saved: str, remedy: str) -> Iterator[None]:
    """What is wrong with a file is told in a message."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - as above

    try:
        yield
    except _Unfit as fault:
        raise UserError(f"{path} {fault}: {saved}, or {remedy}") from None
    except UnidentifiedImageError as error:
        said = f"it begins as none of {', '.join(FORMATS)}"
        raise UserError(f"{path} can't be decoded as an image ({said}): {remedy}") from error
    except (
        *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError),
        *(zlib.error, struct.error, Image.DecompressionBombError),
    ) as error:  # all of these come out of PIL's readers
        raise UserError(f"{path} can't be decoded as an image ({error}): {remedy}") from error


class _Unfit(Exception):
    """What is wrong with an image that can be decoded, as a sentence without its subject."""


def _exactly(image: Image, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    channels, height, width = shape
    wanted = f"{width} x {height} in mode {_MODES[channels]}"
    if {*image.size} != {width, height}:  # before anything large is decoded
        raise _Unfit(_other(image, wanted))
    _check_depth(image)
    if image.mode not in _EXACT:
        raise _Unfit(_other(image, wanted))
    _turn_upright(image)
    if image.size != (width, height):
        raise _Unfit(_other(image, wanted))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise _Unfit("is transparent in places, and what is behind them is not said")
    if image.mode == _MODES[channels]:
        return np.asarray(image).reshape(height, width, channels)
    rgb = np.asarray(image.convert("RGB"))
    if channels == 1 and (rgb != rgb[..., :1]).any():
        raise _Unfit(_other(image, wanted))
    return rgb[..., :channels]


def fitted(image: Image, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """What `fit_pixels` makes of an image that is open."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - as above

    channels, height, width = shape
    _check_depth(image)
    if image.mode not in _FITTED:
        raise _Unfit(f"is in mode {image.mode}, whose colours are not clear")
    # A JPEG is decoded at the smallest of its own scales that holds the size: 4,000 x 3,000 pixels in 26 ms
    # instead of 129.
    image.draft(None, (width, height))
    _turn_upright(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = ImageOps.fit(image.convert(_MODES[channels]), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _check_depth(image: Image) -> None:
    """Refuse several frames, and more than eight bits a channel."""
    # A phone's JPEG of several pictures (MPO) shows its first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise _Unfit("holds several frames")
    if (bits := _bits(image)) > 8:
        raise _Unfit(f"has {bits} bits a channel, of which only 8 would be kept")


def _turn_upright(image: Image) -> None:
    from PIL import ImageOps  # noqa: PLC0415 - as above

    image.load()
    # Damaged notes beside a sound picture are no reason to refuse it.
    with contextlib.suppress(SyntaxError, struct.error, ValueError, LookupError, TypeError, OSError):
        ImageOps.exif_transpose(image, in_place=True)


def _other(image: Image, wanted: str) -> str:
    return f"is {image.width} x {image.height} pixels in mode {image.mode}, not {wanted}"


def _bits(image: Image) -> int:
    """How many bits the file has a channel: Pillow drops all but eight without a word."""
    if image.mode.startswith("I;16"):
        return 16
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (1,))))  # BitsPerSample
    tiles = getattr(image, "tile", None)  # none of what was no file
    layout = tiles[0].args if tiles else ""
    if image.format == "PNG":
        return 16 if "16" in str(layout) else 8
    if image.format == "PPM" and isinstance(layout, tuple) and isinstance(layout[-1], int):
        return layout[-1].bit_length()  # of the largest value
    return 8
