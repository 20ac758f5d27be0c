"""Makers of real inputs that are no Parquet: tars of samples, JSONL files, folders of pictures, saved data sets."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard

from tasks import Failure
from tasks.ingest import TypesChanged, records

Members = Iterable[tuple[str, bytes]]


def packed(data: bytes, name: str) -> bytes:
    """`data` packed as the end of `name` says: .gz, .tgz, .zst, or not at all."""
    if name.endswith((".gz", ".tgz")):
        return gzip.compress(data, 1, mtime=0)
    return zstandard.compress(data, 1) if name.endswith(".zst") else data


def tar_bytes(members: Members, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of regular files, in order."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def write_tar(path: Path, members: Members, kind: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file, packed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(tar_bytes(members, kind), path.name))
    return path


def samples(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, bytes]]:
    """Members of webdataset samples: `key` and, by extension, bytes, text or what becomes JSON."""
    members = []
    for row in rows:
        for extension, value in row.items():
            if extension != "key":
                data = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else None
                members.append((f"{row['key']}.{extension}", json.dumps(value).encode() if data is None else data))
    return members


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """A JSONL file, packed if its name says so; rows that are bytes stand as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(packed(b"".join(line + b"\n" for line in lines), path.name))
    return path


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files in a folder and its sub-folders."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def save_dataset(folder: Path, splits: Mapping[str, Mapping[str, list[Any]]], features: Any = None) -> Path:
    """A folder of `save_to_disk`: of a `DatasetDict`, or of a `Dataset` for one split without a name (`""`)."""
    import datasets

    made = {name: datasets.Dataset.from_dict(dict(rows), features) for name, rows in splits.items()}
    (made[""] if "" in made else datasets.DatasetDict(made)).save_to_disk(folder)
    return folder


def read_unit(reader: Any, unit: Any) -> tuple[pa.Table, dict[int, Failure]]:
    """All rows of a unit and its failures by row; checks what every reader promises of slices."""
    types: dict[str, pa.DataType] = {}
    for _ in range(2):  # one more reading is always enough
        try:
            found = list(reader.read(unit, types))
            break
        except TypesChanged as changed:
            types = changed.types
    else:
        raise AssertionError("the types changed twice")
    at, failures = 0, {}
    for table, failed in found:
        table.validate(full=True)
        assert table.schema == found[0].table.schema and table.num_rows <= records.SLICE_ROWS
        assert all(at <= one.row < at + table.num_rows for one in failed)
        failures |= {one.row: one for one in failed}
        at += table.num_rows
    assert len(failures) == sum(len(failed) for _, failed in found)
    return pa.concat_tables(table for table, _ in found), failures


def read_all(reader: Any) -> tuple[pa.Table, dict[int, Failure]]:
    """`read_unit` of the only unit there is."""
    (unit,) = reader.units()
    return read_unit(reader, unit)
