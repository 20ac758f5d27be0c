"""export: an emitted mix, written for readers of other kinds, row for row in its order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from tasks.export.rows import Sample


class Exporter(Protocol):
    """One format; built as `Class(config)`."""

    package: str
    """The distribution that reads it, and the extra that installs that."""
    row_bytes: int
    """About what a row takes beside its picture and caption."""

    shard_bytes: int
    """About the most bytes of a shard, where nothing else is asked for."""

    def name(self, number: int) -> str:
        """Returns the name of a shard's file within the export."""
        ...

    def write(self, url: str, samples: Iterator[Sample]) -> dict[str, Any]:
        """Publish one shard at `url`.

        Returns:
            `bytes` and `digest` of the file, and what `index` needs to know of it.
        """
        ...

    def index(self, shards: list[dict[str, Any]]) -> dict[str, bytes]:
        """Returns name -> content of the files that go with all shards, given the `rows` and facts of each."""
        ...

    def read(self, url: str, number: int, begin: int, end: int) -> Iterator[Sample]:
        """Yields the samples of one shard, rows `begin` to `end` of the export, by the format's own library."""
        ...


METHODS: dict[str, str] = {
    "webdataset": "tasks.export.webdataset:WebdatasetExporter",
    "litdata": "tasks.export.litdata:LitdataExporter",
}
