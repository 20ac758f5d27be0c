"""What an export may be asked for."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from configs.section import Section
from configs.storage import Storage

Format = Literal["webdataset", "litdata"]


class Export(Section):
    """How an emitted mix is written for a reader of another kind."""

    operational: ClassVar[frozenset[str]] = frozenset({"workers", "storage"})

    kind: Format = Field("webdataset", description="The format.")
    shards: int | None = Field(
        None,
        ge=1,
        description="Files, of equal numbers of rows: a multiple of the readers (world size x workers); null: as many "
        "as `shard_bytes` asks for.",
    )
    shard_bytes: int | None = Field(
        None,
        ge=1_000,
        le=1_000_000_000,
        description="About the most bytes of one file, where `shards` is null; null: 250 MB of webdataset, 64 MB of "
        "LitData, whose writer holds them in memory.",
    )
    workers: int = Field(2, ge=1, le=512, description="Files written at the same time.")
    storage: Storage = Field(Storage(), description="How object stores are reached; changes no byte of the output.")
