"""Pictures and their captions, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.train.bases import base

MAX_PIXELS = 64_000_000


class Pairs(NamedTuple):
    """n pictures with names."""

    pixels: np.ndarray
    """uint8 `(n, side, side, 3)`, as the model's own evaluation transform makes them."""
    names: list[list[str]]
    """Of each picture its caption, then other names for it."""
    keys: list[str]
    bases: list[str]
    groups: list[str]
    """Names of the emoji groups: "food drink"."""
    turnable: np.ndarray
    """Whether a picture means the same in a mirror, bool `(n,)`."""

    def take(self, rows: Sequence[int] | np.ndarray) -> Pairs:
        """The pairs of some rows, in their order."""
        at = np.asarray(rows, np.int64)
        names = [self.names[row] for row in at]
        keys, bases, groups = ([column[row] for row in at] for column in (self.keys, self.bases, self.groups))
        return Pairs(self.pixels[at], names, keys, bases, groups, self.turnable[at])


def read_pairs(corpus: pa.Table, transform: Sequence[Any], other_names: Mapping[str, Sequence[str]]) -> Pairs:
    """The pictures and names of a table.

    Args:
        corpus: Columns `image: struct<bytes, path>`, `text`, `key` (OpenMoji's), `source` (the emoji group).
        transform: Steps that make a Pillow picture one of the model's size, in order.
        other_names: Key -> further names.

    Raises:
        ValueError: A picture cannot be decoded; names its key.
    """
    from tasks.embed.decode import decode

    pixels, names, keys, groups, turnable = [], [], [], [], []
    for row in corpus.select(["image", "text", "key", "source"]).to_pylist():
        try:
            picture: Any = decode(row["image"]["bytes"], MAX_PIXELS)
        except ValueError as error:
            raise ValueError(f"the picture {row['key']} cannot be decoded: {error}") from error
        for step in transform:
            picture = step(picture)
        pixels.append(np.asarray(picture))
        names.append([row["text"], *other_names.get(row["key"], ())])
        keys.append(row["key"])
        groups.append(row["source"].replace("-", " "))
        turnable.append(is_turnable(row["text"], row["source"]))
    return Pairs(np.stack(pixels), names, keys, [base(key) for key in keys], groups, np.array(turnable))


def is_turnable(caption: str, source: str) -> bool:
    """Whether the mirror image of an emoji may bear its name: no letters, flags, clocks, nothing that has a side."""
    words = caption.lower().replace("-", " ").replace(":", " ").split()
    sided = {"left", "right", "leftwards", "rightwards", "clock", "oclock", "o’clock", "thirty", "east", "west", "up"}
    return source not in SIDED_GROUPS and sided.isdisjoint(words)


SIDED_GROUPS = {"flags", "symbols", "extras-unicode", "component"}
