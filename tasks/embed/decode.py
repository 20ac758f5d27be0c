"""Encoded bytes to RGB pixels, for bytes from anywhere: a picture as a person would see it, or why there is none."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tasks.embed.images.avif import check_avif
from tasks.embed.images.endings import ends_early
from tasks.embed.images.formats import image_format
from tasks.embed.images.jpeg2000 import check_jpeg2000
from tasks.embed.images.limits import ROOM, Hollow, check_ratio, check_size
from tasks.embed.images.tiff import check_tiff
from tasks.embed.images.web import check_bmp, check_gif, check_jpeg, check_png, check_ppm, check_webp
from tasks.embed.reasons import BadImage

CHECKS = {
    "PNG": check_png,
    "JPEG": check_jpeg,
    "GIF": check_gif,
    "WEBP": check_webp,
    "BMP": check_bmp,
    "PPM": check_ppm,
    "TIFF": check_tiff,
    "AVIF": check_avif,
    "JPEG2000": check_jpeg2000,
}
"""Pillow's name of a format -> what looks for bombs; libheif has limits of its own."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what undoes it."""

ROWS_AT_ONCE = 256
"""Rows of 16-bit or float pixels that are scaled in one go: the steps between take eight bytes a pixel."""
DETAIL_CHARACTERS = 300


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture as a person would see it: RGB, upright, transparency over white, first frame of an animation.

    Numbers of 16 bits are scaled to 8; floats must lie in [0, 1], [0, 255] or [0, 65535].

    Raises:
        BadImage: There is no such picture, or more than `max_pixels`; its `reason` is one of `REASONS`.
    """
    with decoded(data, max_pixels) as picture:
        return picture


@contextmanager
def decoded(data: bytes, max_pixels: int, enough: int | None = None) -> Iterator[Image.Image]:
    """`decode`, for as long as the picture is needed: what all threads hold at once is limited (`PIXELS_AT_ONCE`).

    Args:
        enough: Sides of this many pixels will do, and grey: a larger JPEG is decoded at a half, quarter or eighth of
            its size, in a fraction of the time. What size it has is in `info["full_size"]`, width first.

    Raises:
        BadImage: As `decode`; errors of the caller's own block are left alone.
    """
    kind = image_format(data)
    with _explained(kind, data):
        if kind in CHECKS:
            CHECKS[kind](data, max_pixels)
        image = _open(kind, data)
        check_size(*image.size, max_pixels)
        check_ratio(image.width * image.height, data)
        full_size = image.size
        if enough is not None:
            image.draft("L", (enough, enough))
    with ROOM.take(image.width * image.height):
        with _explained(kind, data), image:
            image.load()
            orientation = _orientation(image)
            upright = UPRIGHT.get(orientation)
            picture = to_rgb(image)
            picture = picture if upright is None else picture.transpose(upright)
            picture.info["full_size"] = full_size[::-1] if upright and orientation >= 5 else full_size
        del image  # the caller needs the memory
        yield picture


def _open(kind: str, data: bytes) -> Image.Image:
    """The picture, none of its pixels decoded."""
    if kind == "HEIF":
        try:
            from pillow_heif import HeifImageFile  # not registered with Pillow: that would be for the whole process
        except ImportError as error:
            detail = "a HEIC picture; the package `pillow-heif` reads them: pip install 'mixwright[heic]'"
            raise BadImage("unsupported_image", detail) from error
        return HeifImageFile(io.BytesIO(data))
    image = Image.open(io.BytesIO(data), formats=(kind,))
    if kind == "PNG" and "transparency" in image.info:  # Pillow scales the pixels to 8 bits, but not this colour
        colour, depth = image.info["transparency"], data[24]
        if image.mode == "L":
            image.info["transparency"] = colour * 255 // (2**depth - 1)
        elif image.mode == "RGB" and depth == 16:
            image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken EXIF block says nothing about the pixels, which decoded: leave them as they are
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, transparency over white.

    Raises:
        BadImage: The range of its numbers is not known, or Pillow knows no way from its mode (`unsupported_image`).
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_numbers(image)
    if image.mode == "La":  # premultiplied: Pillow converts it to nothing but LA
        image = image.convert("LA")
    if image.mode == "LAB":
        raise BadImage("unsupported_image", "pixels in the LAB colour space")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layered.size, (255, 255, 255))
    white.paste(layered, mask=layered)
    return white


def _from_numbers(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float grey, some rows at a time."""
    numbers = np.asarray(image)
    low, high = numbers.min(), numbers.max()
    tops = (1, 255, 65535) if image.mode == "F" else (65535,)
    top = next((top for top in tops if 0 <= low and high <= top), None)  # none either if there is a NaN
    if top is None:
        raise BadImage("unsupported_image", f"pixels from {low} to {high}; from 0 to {tops[-1]} is what is read")
    grey = np.empty(numbers.shape, np.uint8)
    for first in range(0, len(numbers), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        grey[rows] = np.rint(numbers[rows] * (255 / top))
        if (clear := image.info.get("transparency")) is not None:
            grey[rows][numbers[rows] == clear] = 255
    return Image.fromarray(grey).convert("RGB")


@contextmanager
def _explained(kind: str, data: bytes) -> Iterator[None]:
    """Turns whatever a decoder raises into a BadImage; warnings are not heard."""
    try:
        with _quiet():
            yield
    except Hollow as error:
        raise BadImage("truncated_image" if ends_early(kind, data) else error.reason, str(error)) from error
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:  # its own message holds an address, different in every run
        if ends_early(kind, data):
            raise BadImage("truncated_image", f"begins like {kind}, but ends within its header") from error
        if kind == "TIFF":
            raise BadImage("unsupported_image", "a TIFF with pixels in a layout that Pillow does not know") from error
        raise BadImage("undecodable_image", f"begins like {kind}, but its header is damaged") from error
    except Exception as error:  # hostile bytes make Pillow raise nearly every class there is; none may pass as another
        detail = re.sub(r" at 0x[0-9a-f]+", "", f"{kind}: {type(error).__name__}: {error}")[:DETAIL_CHARACTERS]
        raise BadImage(_reason(kind, data, error), detail.strip()) from error


def _reason(kind: str, data: bytes, error: Exception) -> str:
    said = str(error).lower()
    if any(words in said for words in ("unsupported", "not supported", "not yet supported")):
        return "unsupported_image"
    if isinstance(error, MemoryError) or "text_chunk" in said or "text_memory" in said or "security limit" in said:
        return "image_bomb"
    early = "truncated" in said or "not enough" in said or "end of file" in said or ends_early(kind, data)
    return "truncated_image" if early else "undecodable_image"


class _Deaf(threading.local):
    """As the module's pattern in a warnings filter, it matches every module while its thread decodes a picture.

    `warnings.catch_warnings` would change what all threads hear, and lose what they change meanwhile.
    """

    decoding = False

    def match(self, module: str) -> bool:
        return self.decoding


_deaf = _Deaf()
_ignore_meanwhile: Any = ("ignore", None, Warning, _deaf, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    filters: Any = warnings.filters
    if not filters or filters[0] is not _ignore_meanwhile:  # catch_warnings, pytest's for one, takes it away again
        filters.insert(0, _ignore_meanwhile)
    _deaf.decoding = True
    try:
        yield
    finally:
        _deaf.decoding = False
