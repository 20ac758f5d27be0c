"""Perceptual hashes of pictures: what the select `perceptual` compares rows by, made once a shard.

The picture is as our decoder shows it (upright, transparency over white, first frame), in grey, shrunk to the size
that the hash asks for; the hash is the library imagehash's own. Of a picture with next to nothing in it a hash is
chance, so how much there is goes beside it: the standard deviation of what was hashed.

Decoding takes most of the time. A JPEG can be decoded at a half, quarter or eighth of its size, which a thumbnail
hardly shows: two megapixels thirteen times as fast, with 0 to 2 of 64 bits apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from storage import packed
from tasks import Failure, Result
from tasks.embed.decode import decoded
from tasks.embed.images.formats import optional_readers
from tasks.embed.reasons import BadImage
from tasks.embed.stream import ahead, read_ahead

if TYPE_CHECKING:
    import imagehash

ROWS_PER_JOB = 16
"""Rows that a thread takes at a time."""
LOOK_AHEAD = 1
"""Slices that are read while one is decoded."""
OVERSAMPLING = {"phash": 4, "whash": 8}
"""Pixels a side of what is hashed, for each of the hash's; imagehash's own for `phash`."""

ENOUGH = 8
"""How much larger than the thumbnail a JPEG must be decoded for its hash to stay the same, give or take two bits."""


class Hashed(NamedTuple):
    """Consecutive rows; those without a picture, or whose picture is broken, hold zeros."""

    bits: np.ndarray
    """uint8 `(n, bits / 8)`"""
    mirrored: np.ndarray
    """The same of the mirrored pictures, zeros if nobody asked."""
    spread: np.ndarray
    """float32 `(n,)`, in grey levels."""
    sizes: np.ndarray
    """int32 `(n, 2)`: width and height of the upright pictures."""
    valid: np.ndarray
    """bool `(n,)`"""
    failed: list[tuple[int, str, str]]
    """Row, reason, detail."""


class ImageHasher:
    """Hashes of a shard's pictures, slice by slice; null where the image is, or where it fails."""

    needs: tuple[str, ...] = ("image",)

    def __init__(self, config: Any) -> None:
        self._config = config
        self._enough = ENOUGH * max(thumbnail(config)) if config.draft else None
        mirrored = [config.mirrored_column] if config.flips else []
        self.provides: tuple[str, ...] = (config.column, *mirrored, config.spread_column, "width", "height")
        self.sketches: tuple[str, ...] = self.provides

    @property
    def libraries(self) -> tuple[str, ...]:
        """What makes the numbers."""
        return ("imagehash", "pillow", "scipy", "pywavelets", *optional_readers())

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Args: rows: `image: binary`, whole or as slices."""
        slices = iter([rows]) if isinstance(rows, pa.Table) else rows
        tables, failures, first = [self._table([self._job(pa.chunked_array([], pa.binary()))])], [], 0
        with ThreadPoolExecutor(self._config.decode_threads or os.cpu_count()) as pool:
            started = (self._start(pool, table["image"]) for table in read_ahead(slices))
            for jobs in ahead(started, LOOK_AHEAD):
                done = [job.result() for job in jobs]
                for hashed in done:
                    failures += [Failure(first + row, reason, detail) for row, reason, detail in hashed.failed]
                    first += len(hashed.valid)
                tables.append(self._table(done))
        return Result(pa.concat_tables(tables).combine_chunks(), failures)

    def _start(self, pool: Executor, images: pa.ChunkedArray) -> list[Future[Hashed]]:
        starts = range(0, max(1, len(images)), ROWS_PER_JOB)  # a job at least, be it of no rows
        return [pool.submit(self._job, images.slice(start, ROWS_PER_JOB)) for start in starts]

    def _job(self, images: pa.ChunkedArray) -> Hashed:
        n, width = len(images), self._config.bits // 8
        bits, mirrored = np.zeros((2, n, width), np.uint8)
        hashed = Hashed(bits, mirrored, np.zeros(n, np.float32), np.zeros((n, 2), np.int32), np.zeros(n, bool), [])
        for row, data in enumerate(images):
            if not data.is_valid:
                continue
            try:
                with decoded(data.as_py(), self._config.max_pixels, self._enough) as picture:
                    grey = shrunk(picture, self._config)
                    hashed.sizes[row] = picture.info["full_size"]
            except BadImage as error:
                hashed.failed.append((row, error.reason, str(error)))
                continue
            hashed.bits[row] = hash_bits(grey, self._config)
            if self._config.flips:
                hashed.mirrored[row] = hash_bits(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), self._config)
            hashed.spread[row] = np.asarray(grey).std()
            hashed.valid[row] = True
        return hashed

    def _table(self, done: list[Hashed]) -> pa.Table:
        """Rows of one slice, at least one job's."""
        valid = np.concatenate([hashed.valid for hashed in done])
        bits = [packed.pack(np.concatenate([hashed.bits for hashed in done]), valid)]
        if self._config.flips:
            bits.append(packed.pack(np.concatenate([hashed.mirrored for hashed in done]), valid))
        spread, sizes = (np.concatenate([getattr(hashed, name) for hashed in done]) for name in ("spread", "sizes"))
        numbers = [pa.array(np.ascontiguousarray(column), mask=~valid) for column in (spread, *sizes.T)]
        return pa.table([*bits, *numbers], names=list(self.provides))


def shrunk(picture: Image.Image, config: Any) -> Image.Image:
    """The grey thumbnail that is hashed, of the size at which imagehash shrinks it no further."""
    return picture.convert("L").resize(thumbnail(config), Image.Resampling.LANCZOS)


def thumbnail(config: Any) -> tuple[int, int]:
    """Width and height of what is hashed."""
    side = config.hash_size * OVERSAMPLING.get(config.hash, 1)
    return (side + 1, side) if config.hash == "dhash" else (side, side)


def hash_bits(grey: Image.Image, config: Any) -> np.ndarray:
    """The hash of a thumbnail, uint8 `(bits / 8,)`: rows of the hash one after the other, first bit highest."""
    import imagehash

    hashes: dict[str, Callable[..., imagehash.ImageHash]] = {
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
        "ahash": imagehash.average_hash,
        "whash": imagehash.whash,
    }
    options = {"image_scale": grey.width} if config.hash == "whash" else {}
    return np.packbits(hashes[config.hash](grey, hash_size=config.hash_size, **options).hash)


def unpack(column: pa.ChunkedArray) -> np.ndarray:
    """Hashes of a column as words, uint64 `(n, ceil(bits / 64))`, the last filled with zeros; nulls are zeros."""
    width = column.type.byte_width
    words = np.zeros((len(column), -(-width // 8) * 8), np.uint8)
    words[:, :width] = packed.unpack(column, np.uint8)
    return words.view("<u8")
