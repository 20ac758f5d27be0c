"""LitData's chunks and `index.json`: random access, and order and place that its StreamingDataLoader can resume.

Chosen over MosaicML's MDS: no release of mosaicml-streaming goes with our pins (numpy<2.2, xxhash<4), so nothing could
read back what we write, and LitData, which reads MDS too, fails on shards that are not compressed. Left to itself
LitData picks serializers by the first row's values, a pickle for a caption that names a file: here they are fixed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.export import Export
from storage import files, manifests
from tasks.export.rows import Sample

LARGEST = (1 << 32) - 1
"""Bytes of a chunk that its offsets, 32 bit, can tell."""
FORMATS = {"str", "bytes"}


class LitdataExporter:
    """Samples are `{"image": bytes, "json": str, "key": str, "text": str}`; what is null in the mix is empty."""

    package = "litdata"
    row_bytes = 768
    shard_bytes = 64_000_000

    def __init__(self, config: Export) -> None:
        """Every setting that changes a byte is in the rows that `write` is given."""
        self._indexes: dict[str, dict[str, Any]] = {}
        """`index.json` of what was read: all shards of a task are in the same."""

    def name(self, number: int) -> str:
        """See `Exporter`."""
        return f"chunk-0-{number}.bin"

    def write(self, url: str, samples: Iterator[Sample]) -> dict[str, Any]:
        """See `Exporter`. LitData writes local files, one chunk in memory: the chunk is moved to `url`."""
        from litdata.streaming.serializers import BytesSerializer, StringSerializer
        from litdata.streaming.writer import BinaryWriter

        class Text(StringSerializer):
            def can_serialize(self, data: Any) -> bool:
                return isinstance(data, str)  # also if there is a file of that name

        with tempfile.TemporaryDirectory() as folder:
            writer = BinaryWriter(folder, chunk_bytes=LARGEST, serializers={"str": Text(), "bytes": BytesSerializer()})
            for number, sample in enumerate(samples):
                row = {"image": sample.image or b"", "json": sample.rest, "key": sample.key, "text": sample.text or ""}
                writer[number] = row
            writer.done()
            (chunk,) = Path(folder).glob("chunk-*.bin")
            (index,) = (json.loads(file.read_text()) for file in Path(folder).glob("*.index.json"))
            if not {*index["config"]["data_format"]} <= FORMATS:
                raise RuntimeError(f"LitData stores {index['config']['data_format']}; only {sorted(FORMATS)} is meant")
            with files.publishing(url) as sink, open(chunk, "rb") as made:
                shutil.copyfileobj(made, sink, files.MiB)
            (told,) = index["chunks"]
            facts = manifests.file_facts(f"{folder}/{chunk.name}")
        return {**facts, "chunk": {**told, "filename": url.rpartition("/")[2]}, "config": index["config"]}

    def index(self, shards: list[dict[str, Any]]) -> dict[str, bytes]:
        """See `Exporter`: `index.json`, without the time of LitData's own."""
        value = {"chunks": [shard["chunk"] for shard in shards], "config": shards[0]["config"]}
        return {"index.json": json.dumps(value, sort_keys=True).encode()}

    def read(self, url: str, number: int, begin: int, end: int) -> Iterator[Sample]:
        """See `Exporter`; a remote chunk is fetched first, as LitData has clients of its own.

        The chunk is read with an index of it alone: LitData goes through the whole of an index.
        """
        from litdata import StreamingDataset

        if url not in self._indexes:
            self._indexes[url] = json.loads(files.read_bytes(files.join(url, "index.json")))
        index, chunk = self._indexes[url], files.join(url, self.name(number))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "index.json").write_text(json.dumps({**index, "chunks": [index["chunks"][number]]}))
            here = Path(folder, self.name(number))
            if files.is_local(url):
                here.symlink_to(files.absolute(chunk))
            else:
                with files.reading(chunk) as file, open(here, "wb") as to:
                    shutil.copyfileobj(file, to, files.MiB)
            found = StreamingDataset(folder)
            yield from (_sample(found[i]) for i in range(len(found)))


def _sample(found: dict[str, Any]) -> Sample:
    return Sample(found["key"], bytes(found["image"]), found["text"], found["json"])
