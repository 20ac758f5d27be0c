"""A small mix with everything that is hard to export, made by hand."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from configs.export import Export
from flows.exporting import Exported, export_mix
from flows.runners import PlainRunner
from storage import files
from storage.manifests import file_facts
from tasks import load
from tasks.export import METHODS
from tasks.export.checking import check_shard
from tasks.export.plan import survey

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NAMES = ("jpg", "png", "webp", "gif", "bmp", "tiff")


def picture(number: int) -> bytes:
    """A picture, in turn in each of the formats."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, FORMATS[number % len(FORMATS)])
    return sink.getvalue()


def table(rows: int, images: bool = True) -> pa.Table:
    """Rows in batch order; user's keys repeat, and row 1 has no picture, row 2 no caption."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [None if i == 1 else {"bytes": picture(i), "path": "a.b/x.png" if i == 3 else None} for i in range(rows)]
    texts = [None if i == 2 else f"row {i}: naïve 文 \n\u2028" for i in range(rows)]
    columns = {
        "image": pa.array(pictures, struct),
        "caption": pa.array(texts, pa.string()),
        "id": ["a/b.c" if i % 3 else "" for i in range(rows)],
        "source": ["web"] * rows,
        "tags": [["x"] * (i % 3) for i in range(rows)],
        "seen": pa.array([datetime(2026, 1, 1)] * rows, pa.timestamp("us")),
        "raw": pa.array([bytes([i % 256, 255]) for i in range(rows)], pa.binary()),
        "quality": pa.array([float("nan") if i == 4 else i / 2 for i in range(rows)], pa.float32()),
        "mix_step": pa.array(np.arange(rows) // 8, pa.int64()),
        "mix_rank": pa.array(np.arange(rows) % 8 // 4, pa.int32()),
        "mix_slot": pa.array(np.arange(rows) % 4, pa.int32()),
        "mix_file": ["web/0.parquet"] * rows,
        "mix_row": pa.array(range(100, 100 + rows), pa.int64()),
        "mix_uid": [f"{i:032x}" for i in range(rows)],
    }
    return pa.table({name: column for name, column in columns.items() if images or name != "image"})


def write_mix(folder: Path, rows: int = 90, images: bool = True, part_rows: int = 37) -> tuple[str, pa.Table]:
    """A mix of several parts, whose row groups go with no shard, and its rows."""
    made, listed = table(rows, images), {}
    (folder / "data").mkdir(parents=True)
    for number, begin in enumerate(range(0, rows, part_rows)):
        name = f"data/part-{number:05d}.parquet"
        pq.write_table(made.slice(begin, part_rows), folder / name, row_group_size=10)
        listed[name] = file_facts(str(folder / name))
    manifest = {
        "name": "made",
        "version": "0123456789ab",
        "counts": {"emitted": rows},
        "batches": {"steps": -(-rows // 8), "world_size": 2},
        "columns": {"image": "image" if images else None, "text": "caption", "key": "id", "source": "source"},
        "files": listed,
    }
    (folder / "mix.json").write_text(json.dumps(manifest))
    return str(folder), made


def export(mix: str, out: Path | str, log: list[str] | None = None, **settings: object) -> Exported:
    """Export without Prefect."""
    config = Export.model_validate(settings)
    lines: list[str] = log if log is not None else []
    return export_mix(mix, str(out), config, PlainRunner(config.workers), lines.append)


def exports(folder: Path) -> tuple[str, pa.Table]:
    """A mix in `folder/mix` with its rows, and beside it an export of four shards in each format."""
    url, rows = write_mix(folder / "mix")
    for kind in METHODS:
        export(url, folder / kind, kind=kind, shards=4)
    return url, rows


def check(url: str, mix: str) -> int:
    """The number of rows of an export, whose files are as its manifest says and whose rows are the mix's."""
    told, source = files.read_json(f"{url}/export.json"), survey(mix).source
    for name, facts in told["files"].items():
        assert file_facts(f"{url}/{name}") == {key: facts[key] for key in ("bytes", "digest")}
    exporter, begin = load(METHODS, Export(kind=told["format"])), 0
    for number in range(told["shards"]):
        end = begin + told["files"][exporter.name(number)]["rows"]
        check_shard(exporter, url, number, source, (begin, end))
        begin = end
    assert begin == source.rows == told["rows"]
    return begin


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, hidden ones too."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
