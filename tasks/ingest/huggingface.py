"""Data sets of Hugging Face `datasets`: of the hub, of a folder of data files, of a folder of `save_to_disk`.

Rows pass as Arrow tables, pictures as they are encoded. What other programs cannot read in Parquet takes a plain form:
extension types (`Array2D`, `Json`) that of their storage; beside a `ClassLabel` stands the label's name, in the column
`<label>_name`. Of the column `input.image`, rows that hold only a path get the file's bytes if it lies in the data
set's own folder or in what was downloaded for it; paths in other columns stay paths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain, groupby
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.broken import BrokenFile
from storage.shards import SLICE_BYTES, InputFile
from tasks import Failure
from tasks.ingest import Slice, Types, built_datasets, saved_datasets
from tasks.ingest.identities import readable
from tasks.ingest.pictures import LOT, Folder
from tasks.ingest.records import SLICE_ROWS, Unusable, bare

Part = tuple[pa.Table, list[Failure]]
"""Rows and those of them that failed, counted from the first."""


class HuggingFaceReader:
    """Reads a split of a data set."""

    in_place: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self._config = config

    @cached_property
    def _saved(self) -> bool:
        return saved_datasets.is_saved(self._config.path)

    def units(self) -> list[InputFile]:
        """The split, as one; see `Reader`."""
        if self._saved:
            return [saved_datasets.unit(self._config.path, self._config.split)]
        return [built_datasets.unit(self._config)]

    def peek(self, unit: InputFile) -> pa.Schema:
        """The columns; of a data set on the hub, little is downloaded for it. See `Reader`."""
        if self._saved:
            return _plain_schema(saved_datasets.schema(unit.url, self._config.split))
        tables, schema = built_datasets.tables(self._config, unit, head=True)
        return _plain_schema(schema if schema.names else next(tables, pa.table({})).schema)

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """The rows; see `Reader`. Their types are given, so `TypesChanged` is never raised."""
        if self._saved:
            schema = saved_datasets.schema(unit.url, self._config.split)
            tables, places = saved_datasets.tables(unit.url, self._config.split), [unit.url]
        else:
            tables, schema = built_datasets.tables(self._config, unit)
            places = built_datasets.places(self._config, unit)
        features = _features(schema)
        read = (_readable(_plain(table, features)) for table in tables)
        parts = chain.from_iterable(_with_pictures(part, self._config.image, places) for part in read)
        return _slices(parts, _plain_schema(schema))


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What the schema's metadata says of columns, as `Features.to_dict`."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """The table with types that any program reads, its metadata left out, and with names of labels."""
    columns = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = _storage(field.type)
        columns[field.name] = column if kind == field.type else column.cast(kind)
        names = (features.get(field.name) or {}).get("names") if _is_label(features.get(field.name)) else None
        if isinstance(names, list) and pa.types.is_integer(kind) and f"{field.name}_name" not in table.column_names:
            shown = [str(name).encode(errors="replace").decode() for name in names]
            known = pc.if_else(pc.is_in(column, pa.array(range(len(names)), kind)), column, None)
            columns[f"{field.name}_name"] = pc.take(pa.array(shown, pa.string()), known)
    return pa.table(columns, schema=pa.schema([(name, column.type) for name, column in columns.items()]))


def _is_label(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel"


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    empty = pa.schema([(field.name, _storage(field.type)) for field in schema]).empty_table()
    return _plain(empty, _features(schema)).schema


def _storage(kind: pa.DataType) -> pa.DataType:
    """A type with the storage types of extension types in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _storage(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _storage(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_storage(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_storage(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_storage(kind.value_type), kind.list_size)
    return kind


def _readable(table: pa.Table) -> Part:
    """The table with null for texts that are not UTF-8, which Arrow lets anybody write; their rows have failed."""
    failures: dict[int, Failure] = {}
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            text, broken = readable(table.column(number))
            if broken:
                table = table.set_column(number, field, text)
            for row in broken:
                failures[row] = Failure(row, "text_not_utf8", f"`{field.name}` is not valid UTF-8")
    return table, [failures[row] for row in sorted(failures)]


def _with_pictures(part: Part, image: str | None, places: list[str]) -> Iterator[Part]:
    """The table in parts, the files that its picture column only names read in; paths made bare names."""
    table, failed = part
    kind = table.schema.field(image).type if image in table.column_names else pa.null()
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        yield table, failed
        return
    column = table.column(image).combine_chunks()
    lost = pc.and_(column.is_valid(), column.field("bytes").is_null()).to_pylist()
    paths = column.field("path").to_pylist()
    asked = [path if missing else None for missing, path in zip(lost, paths, strict=True)]
    groups = _by_size(_fetched(asked, places)) if any(asked) else [[None] * len(asked)]
    start = 0
    for found in groups:
        cut, rows = column.slice(start, len(found)), table.slice(start, len(found))
        read = pa.array([one if isinstance(one, bytes) else None for one in found], kind.field("bytes").type)
        named = pa.array([path and bare(path) for path in paths[start : start + len(found)]], kind.field("path").type)
        new = {"bytes": pc.coalesce(cut.field("bytes"), read), "path": named}
        made = pa.StructArray.from_arrays([new[f.name] for f in kind], fields=list(kind), mask=cut.is_null())
        failures = {i: Failure(i, one.reason, one.detail) for i, one in enumerate(found) if isinstance(one, Unusable)}
        here = (one._replace(row=one.row - start) for one in failed if start <= one.row < start + len(found))
        failures |= {one.row: one for one in here}
        yield rows.set_column(rows.column_names.index(image), image, made), [failures[row] for row in sorted(failures)]
        start += len(found)


def _fetched(paths: list[str | None], places: list[str]) -> Iterator[bytes | Unusable | None]:
    """Contents of files that lie in one of `places`, in order."""
    folders = {place.rstrip("/") + "/": Folder(place) for place in places}
    folders |= {os.path.realpath(place) + "/": Folder(place) for place in places if files.is_local(place)}
    homes = [next((place for place in folders if path and path.startswith(place)), None) for path in paths]
    for home, group in groupby(zip(homes, paths, strict=True), key=lambda pair: pair[0]):
        if home is not None:
            yield from folders[home].fetch([path[len(home) :] for _, path in group if path])
            continue
        for _, path in group:
            outside = Unusable("path_escapes_folder", f"{(path or '')[:200]!r} is not in the data set's own folder")
            yield outside if path else None


def _by_size(found: Iterator[bytes | Unusable | None]) -> Iterator[list[bytes | Unusable | None]]:
    """Contents in groups of at most `LOT`, which end when they have 64 MiB."""
    group: list[bytes | Unusable | None] = []
    size = 0
    for one in found:
        group.append(one)
        size += len(one) if isinstance(one, bytes) else 0
        if len(group) == LOT or size >= SLICE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _slices(parts: Iterator[Part], schema: pa.Schema) -> Iterator[Slice]:
    """Parts as slices of one schema, the first slice's; one of no row and of the given schema if there are none.

    Raises:
        BrokenFile: A later slice has other types, which `datasets` does not let through.
    """
    at = 0
    for tables, failures in _grouped(parts):
        table = pa.concat_tables(tables).combine_chunks()
        schema = schema if at else table.schema
        if table.schema != schema:
            raise BrokenFile(f"columns change from {schema.names} to {table.schema.names}, or their types do")
        yield Slice(table, [Failure(at + one.row, one.reason, one.detail) for one in failures])
        at += table.num_rows
    if not at:
        yield Slice(schema.empty_table(), [])


def _grouped(parts: Iterator[Part]) -> Iterator[tuple[list[pa.Table], list[Failure]]]:
    """Parts by the slice: about 64 MiB, at most 8,192 rows."""
    tables: list[pa.Table] = []
    failures: list[Failure] = []
    rows = size = 0
    for table, failed in parts:
        if tables and (rows + table.num_rows > SLICE_ROWS or size + table.nbytes > SLICE_BYTES):
            yield tables, failures
            tables, failures, rows, size = [], [], 0, 0
        tables.append(table)
        failures += [Failure(rows + one.row, one.reason, one.detail) for one in failed]
        rows, size = rows + table.num_rows, size + table.nbytes
    if tables:
        yield tables, failures
