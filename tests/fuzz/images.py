"""Mutated pictures: from every format that is read, with checksums mended so that damage gets past them."""

from __future__ import annotations

import os
import struct
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from fuzz.mutations import mutated
from pictures import encode, heic, hostile, odd_pictures, sample
from PIL import Image

from tasks.embed.decode import decode
from tasks.embed.reasons import REASONS, BadImage

MAX_PIXELS = 4_000_000
STAMPS = Path(os.environ.get("TUXPAINT_STAMPS", "/usr/share/tuxpaint/stamps"))
"""Real PNGs, many with alpha or palettes: Debian's package tuxpaint-stamps-default."""
MOST_STAMPS = 60


def write_seeds(folder: Path, *, real: bool) -> int:
    """Pictures to mutate, one a file; with `real`, emoji and stamps too. Returns how many."""
    rgb = Image.fromarray(sample())
    deep = Image.fromarray(sample()[..., 0].astype(np.uint16) * 257)
    seeds = [odd.data for odd in odd_pictures().values()]
    seeds += [data for data, reason in hostile().values() if reason == "image_bomb" and len(data) < 10_000]
    seeds += [encode(rgb, "JPEG", progressive=True, quality=50), encode(rgb.convert("L"), "JPEG", quality=5)]
    seeds += [encode(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "packbits", "zstd", "lzma", "jpeg")]
    seeds += [encode(rgb, "WEBP", quality=50), encode(rgb, "AVIF", quality=30), encode(deep, "JPEG2000")]
    seeds += [encode(rgb, "JPEG2000", quality_mode="rates", quality_layers=[40, 20], tile_size=(16, 16))]
    seeds += [b"P3 4 3 255\n" + b"7 200 31\n" * 12, b"P1 9 4\n" + b"010110 # c\n" * 6, encode(rgb.quantize(16), "BMP")]
    if find_spec("pillow_heif"):
        seeds += [heic(rgb, quality=50), heic(rgb.convert("RGBA"), quality=80), heic(rgb.convert("L"), quality=10)]
    if real:
        seeds += _emoji(folder) + [path.read_bytes() for path in sorted(STAMPS.rglob("*.png"))[::13][:MOST_STAMPS]]
    for number, data in enumerate(seeds):
        (folder / f"{number:04d}.seed").write_bytes(data)
    return len(seeds)


def _emoji(folder: Path) -> list[bytes]:
    import pyarrow.parquet as pq

    from flows.openmoji import write_openmoji

    paths = write_openmoji(folder / "emoji", shards=1, limit=20)
    return [image["bytes"] for path in paths for image in pq.read_table(path)["image"].to_pylist()]


@cache
def _seeds(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder).glob("*.seed"))]


def case(folder: str, seed: int) -> bytes:
    """The bytes of a case: the same for the same seeds and number."""
    seeds = _seeds(folder)
    rng = np.random.default_rng([seed, 20])
    data = mutated(seeds[rng.integers(len(seeds))], rng, seeds)
    return mended(data) if rng.random() < 0.7 else data


def decoded(folder: str, seed: int) -> str:
    """What `decode` makes of a case: `embedded`, or the reason why not."""
    try:
        picture = decode(case(folder, seed), MAX_PIXELS)
    except BadImage as error:
        assert error.reason in REASONS and 0 < len(str(error)) < 500, error
        return error.reason
    assert picture.mode == "RGB" and 0 < picture.width * picture.height <= MAX_PIXELS
    picture.resize((8, 8))
    return "embedded"


def mended(data: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have, a WebP with the length that it has; others as they are."""
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", max(len(data) - 8, 0)) + data[8:]
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        if at + 12 + length > len(out):
            break
        struct.pack_into(">I", out, at + 8 + length, zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)
