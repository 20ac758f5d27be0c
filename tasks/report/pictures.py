"""What the galleries show of chosen rows: small pictures made with the run's own decoder, captions, fates.

A row group is read once, in slices, whatever number of rows is wanted of it. Bytes that cannot be shown as a picture
are told by their size and their first ones.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from storage import shards
from storage.broken import BrokenFile
from storage.shards import Shard
from storage.view import IMAGE, TEXT, View
from tasks.emit.rows import used_slices

CAPTION_BYTES = 2_000
"""Of a caption so many bytes are looked at; a page shows fewer characters."""
HEAD_BYTES = 16
QUALITY = 80

CONTENTS = pa.schema(
    [
        ("row", pa.int64()),
        ("caption", pa.string()),
        ("picture", pa.binary()),
        ("told", pa.string()),
        ("bytes", pa.int64()),
        ("head", pa.binary()),
    ]
)
"""`picture` is WebP; where it is null, `told` says why; `bytes` and `head` are size and beginning of what there is."""


class Limits(NamedTuple):
    """How pictures are made."""

    pixels: int
    """Longer side of the small picture."""
    max_pixels: int
    """Pictures that claim more are not decoded."""


def contents(shard: Shard, view: View, rows: list[int], limits: Limits) -> pa.Table:
    """Captions and small pictures of rows of one shard: `CONTENTS`, by row.

    Args:
        shard: The shard.
        view: Names the image and the text column, if there are any.
        rows: Rows, ascending, each once.
        limits: How pictures are made.
    """
    names = {role: view.inputs[role] for role in (IMAGE, TEXT) if role in view.inputs}
    found: list[dict[str, Any]] = []
    try:
        for at, table in _slices(shard, rows, sorted(set(names.values()))):
            found += _described(at, table, names, limits)
    except (OSError, pa.ArrowException, BrokenFile) as error:  # the mix stands; the page says what cannot be shown
        have = {line["row"] for line in found}
        told = f"the input cannot be read ({type(error).__name__})"
        found += [{"row": row, "told": told} for row in rows if row not in have]
    return pa.Table.from_pylist(found, schema=CONTENTS)


def _slices(shard: Shard, rows: list[int], columns: list[str]) -> Iterator[tuple[list[int], pa.Table]]:
    """The wanted rows with `columns`, slice by slice; columns that do not pass through to the mix are read as well."""
    whole = replace(shard, naming=replace(shard.naming, excluded=()))
    for first, table, plan in used_slices(whole, pa.table({"row": np.array(rows, np.int64)}), columns):
        at = plan["row"].to_numpy()
        yield at.tolist(), table.take(pa.array(at - first))


def _described(at: list[int], table: pa.Table, names: dict[str, str], limits: Limits) -> Iterator[dict[str, Any]]:
    captions: list[Any] = [None] * len(at)
    if names.get(TEXT) in table.column_names:
        captions = _captions(shards.as_text(table.column(names[TEXT])))
    images = shards.as_binary(table.column(names[IMAGE])) if names.get(IMAGE) in table.column_names else None
    for i, row in enumerate(at):
        line = {"row": row, "caption": captions[i]}
        yield line if images is None else line | shown(images[i].as_py(), limits)


def _captions(texts: pa.ChunkedArray) -> list[str | None]:
    """Texts by their bytes: what is not UTF-8 must not stop the report."""
    kind = pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary()
    raw = texts.cast(kind).to_pylist()
    return [None if one is None else one[:CAPTION_BYTES].decode("utf-8", "replace") for one in raw]


def shown(data: bytes | None, limits: Limits) -> dict[str, Any]:
    """`picture`, or `told` with `bytes` and `head`, of the bytes of an image."""
    if not data:
        return {"told": "no picture" if data is None else "0 bytes", "bytes": None if data is None else 0}
    from tasks.embed.decode import decode

    try:
        picture = decode(data, limits.max_pixels)
    except ValueError as error:  # whatever is wrong with the bytes
        return {"told": str(error)[:300], "bytes": len(data), "head": data[:HEAD_BYTES]}
    sink = io.BytesIO()
    picture.thumbnail((limits.pixels, limits.pixels), reducing_gap=2.0)
    picture.save(sink, "WEBP", quality=QUALITY, method=4)
    return {"picture": sink.getvalue(), "bytes": len(data)}
