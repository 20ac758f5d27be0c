"""Parquet shards, used in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa

from storage import shards
from storage.broken import parquet_errors
from storage.shards import InputFile
from tasks.ingest import Slice, Types


class ParquetReader:
    """Finds Parquet files; nothing is converted."""

    in_place: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        self._path: str = config.path

    def units(self) -> list[InputFile]:
        """See `Reader`."""
        return shards.find(self._path)

    def peek(self, unit: InputFile) -> pa.Schema:
        """The footer's schema; see `Reader`."""
        with parquet_errors(unit.size):
            return shards.footer(unit.url)[1]

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """Nothing: Parquet files are read where they are."""
        raise NotImplementedError("Parquet files are not converted")
