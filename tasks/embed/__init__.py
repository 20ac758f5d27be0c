"""Embed: a vector for each image and each text, per shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

from tasks import Result

METHODS = {
    "open_clip": "tasks.embed.open_clip:OpenClipEmbedder",
    "columns": "tasks.embed.columns:ColumnEmbedder",
}


class Embedder(Protocol):
    """What an embedding method offers: `Embedder(config, columns=("image", "text"))`.

    `columns` says which of the two the input has; the sidecar has an embedding of each, and `alignment` for both.
    A method may also have `libraries` (distributions that make the numbers), `depends_on() -> dict` (what else they
    depend on; both go into the fingerprint, so no heavy import) and `check()` (ValueError where it cannot run).
    """

    needs: tuple[str, ...]
    """Columns it reads. With `image` among them, `run` gets an iterator over consecutive slices of the shard."""
    provides: tuple[str, ...]
    """Columns of its sidecar."""

    def __init__(self, config: Any, columns: tuple[str, ...] = ("image", "text")) -> None: ...

    def run(self, rows: pa.Table | Iterator[pa.Table]) -> Result:
        """Embed one shard: one row per input row, in order, all columns null where a row failed.

        A row that is null in every needed column failed in an earlier stage: it stays null and is no new failure.
        """
        ...
