"""A cheap look at how a TIFF file is built, before decoders that cannot be stopped run."""

from __future__ import annotations

from tasks.embed.images import directory as tiff
from tasks.embed.images.limits import FREE_PIXELS, check_count, check_size
from tasks.embed.reasons import BadImage

PIECES = 65_536
"""Strips or tiles: each costs several microseconds of Python."""
SAMPLES = 6
"""Samples a pixel that Pillow takes; it logs an error for more."""
COMPRESSIONS = {1, 4, 5, 7, 8, 32773, 32946, 34925, 50000}
"""None, fax group 4, LZW, JPEG, deflate (two numbers), PackBits, LZMA, Zstandard.

The older fax schemes are left out: at a damaged one, libtiff prints a line for each row of pixels; so is old JPEG,
which was never specified well enough to be safe.
"""


def check_tiff(data: bytes, max_pixels: int) -> None:
    """Raise BadImage for too many entries or pieces, for tiles far larger than the picture, for rare compressions.

    ValueError where there is no size.
    """
    directory = tiff.Directory(data)
    check_count(directory.claimed, tiff.MOST_ENTRIES, "tags")
    check_count(directory.count(tiff.STRIP_OFFSETS, tiff.TILE_OFFSETS), PIECES, "strips or tiles")
    width, height = directory.largest(tiff.WIDTH), directory.largest(tiff.HEIGHT)
    if not width or not height:
        raise ValueError("no width and height")
    check_size(width, height, max_pixels)
    tile = directory.largest(tiff.TILE_WIDTH) * directory.largest(tiff.TILE_HEIGHT)
    if tile > max(FREE_PIXELS, 4 * width * height):
        raise BadImage("image_bomb", f"tiles of {tile} pixels in a picture of {width} x {height}")
    compression = directory.largest(tiff.COMPRESSION) or 1
    if compression not in COMPRESSIONS:
        raise BadImage("unsupported_image", f"TIFF compression {compression} is not read here")
    if directory.largest(tiff.SAMPLES) > SAMPLES:
        raise BadImage("unsupported_image", f"{directory.largest(tiff.SAMPLES)} samples a pixel; {SAMPLES} are read")
