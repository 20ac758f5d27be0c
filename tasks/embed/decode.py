"""Encoded bytes to RGB pixels, for bytes from anywhere."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# An allow-list: Pillow's other readers are rare on the web, and some start other programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

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


class TooManyPixels(ValueError):
    """Raised when an image claims more pixels than allowed, before any is decoded."""


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture as a person would see it: RGB, upright, transparency over white, first frame of an animation.

    16-bit grey is scaled to 8 bits.

    Raises:
        TooManyPixels: The header claims more than `max_pixels`.
        ValueError: Anything else is wrong with the bytes; the message is what the decoder said.
    """
    try:
        return _decode(data, max_pixels)
    except TooManyPixels:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # the latter where warnings raise
        raise TooManyPixels(str(error)) from error
    except UnidentifiedImageError as error:  # its own message holds an address, different in every run
        raise ValueError(f"UnidentifiedImageError: begins with {data[:12]!r}, no known image format") from error
    except Exception as error:  # hostile bytes make Pillow raise nearly every class there is; none may pass as another
        raise ValueError(re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")) from error


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise TooManyPixels(f"{width} x {height} pixels; at most {max_pixels} are allowed")
        image.load()
        upright = UPRIGHT.get(_orientation(image))
        picture = to_rgb(image)
    return picture.transpose(upright) if upright is not None else picture


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken EXIF block says nothing about the pixels, which decoded: leave them as they are
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, transparency over white.

    Raises:
        ValueError: If the range of its numbers is not known.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ValueError("float pixels have no known range")
    if image.mode == "La":  # premultiplied: Pillow converts it to nothing but LA
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = Image.new("RGB", layered.size, (255, 255, 255))
    white.paste(layered, mask=layered.getchannel("A"))
    return white


def _from_16_bit(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise ValueError(f"integer pixels from {low} to {high}; 16-bit ones were expected")
    return Image.fromarray(((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
