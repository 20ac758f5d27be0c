"""Steps of the pipeline in the store, and their commit points.

A per-shard step holds `<shard>.parquet`, perhaps `<shard>.failures.parquet`, and, written last, `<shard>.json`.
A global step holds its own files and, written last, `_done.json`. What has a commit point is finished and is never
written again; what has none does not exist for readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.fingerprints import digest

DONE = "_done.json"
FAILURES = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])


def parquet_bytes(table: pa.Table, row_group_rows: int | None = None) -> pa.Buffer:
    """`table` as a Parquet file in memory: for tables bounded by a shard."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows)
    return sink.getvalue()


@dataclass(frozen=True)
class Step:
    """One stage with one method and one configuration, over whatever shards there are."""

    store: str
    stage: str
    kind: str
    fingerprint: str

    @property
    def place(self) -> str:
        """The step's folder within the store."""
        return f"{self.stage}/{self.kind}/{self.fingerprint}"

    @property
    def url(self) -> str:
        """The step's folder."""
        return files.join(self.store, self.place)

    def file(self, name: str) -> str:
        """A file of the step."""
        return files.join(self.url, name)

    # ---- per shard
    def committed(self) -> set[str]:
        """Digests of the shards whose commit point exists: one listing of the folder."""
        return {name[:-5] for name in files.names(self.url) if name.endswith(".json") and not name.startswith("_")}

    def publish(self, shard: str, table: pa.Table, failures: list[tuple[int, str, str]], seconds: float) -> None:
        """Write one shard's sidecar, its failures and, last, its commit point."""
        data = parquet_bytes(table)
        files.write_bytes(self.file(f"{shard}.parquet"), data)
        url = self.file(f"{shard}.failures.parquet")
        if failures:
            rows, reasons, details = zip(*sorted(failures), strict=True)
            failed = pa.table([rows, reasons, details], schema=FAILURES)
            files.write_bytes(url, parquet_bytes(failed))
        elif files.exists(url):  # of an attempt that crashed before its commit point
            files.remove(url)
        self.commit(
            shard, rows=table.num_rows, failures=len(failures), seconds=seconds, digest=digest(memoryview(data))
        )

    def commit(self, shard: str, **facts: Any) -> None:
        """Write one shard's commit point."""
        files.write_json(self.file(f"{shard}.json"), facts)

    def facts(self, shard: str) -> dict[str, Any]:
        """What the commit point of a shard says."""
        return dict(files.read_json(self.file(f"{shard}.json")))

    def read(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One shard's sidecar."""
        return files.read_table(self.file(f"{shard}.parquet"), columns)

    def failures(self, shard: str) -> pa.Table:
        """Rows of a shard that this step could not process: `row, reason, detail`."""
        if not self.facts(shard).get("failures"):  # by the commit point: a file that was lost is not "no failures"
            return FAILURES.empty_table()
        return files.read_table(self.file(f"{shard}.failures.parquet"))

    # ---- global
    def is_done(self) -> bool:
        """Whether the global step is finished."""
        return files.exists(self.file(DONE))

    def finish(self, **facts: Any) -> None:
        """Write the global step's commit point, then drop its spills."""
        files.write_json(self.file(DONE), facts)
        files.remove(self.file("spill"))

    def done(self) -> dict[str, Any]:
        """What the global commit point says."""
        return dict(files.read_json(self.file(DONE)))
