"""What a fit has to know of each shard: written shard by shard, read in order, kept until the fit is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from storage import files
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View

FOLDER = "spill/summaries"


def write_summary(step: Step, view: View, method: Any, shard: Shard) -> None:
    """Summarise a shard's alive rows; the summary is kept until the step is done."""
    summary = method.summarise(view.alive_rows(shard, method.needs))
    files.write_bytes(step.file(f"{FOLDER}/{shard.digest}.parquet"), parquet_bytes(summary))


def summarised(step: Step) -> set[str]:
    """Digests of the shards that have a summary."""
    return {name.removesuffix(".parquet") for name in files.names(step.file(FOLDER)) if name.endswith(".parquet")}


class Summaries:
    """The summaries of all shards in order, read one by one at every iteration; whole, or some columns of them."""

    def __init__(self, step: Step, shards: list[Shard], columns: list[str] | None = None) -> None:
        self._step, self._shards, self._columns = step, shards, columns

    def __iter__(self) -> Iterator[pa.Table]:
        return (self._step.read(f"{FOLDER}/{shard.digest}", self._columns) for shard in self._shards)

    def only(self, *columns: str) -> Summaries:
        """The same summaries, of which these columns alone are read."""
        return Summaries(self._step, self._shards, list(columns))
