"""The schema of a mix: the input's columns, what the mix adds, and what `datasets` must be told."""

from __future__ import annotations

import json
from typing import NamedTuple

import pyarrow as pa

from configs.errors import ColumnError
from tasks.ingest import fields

ADDED = pa.schema(
    [
        ("mix_step", pa.int64()),
        ("mix_rank", pa.int32()),
        ("mix_slot", pa.int32()),
        ("mix_draw", pa.int64()),
        ("mix_round", pa.int32()),
        ("mix_weight", pa.float32()),
        ("mix_file", pa.string()),
        ("mix_row", pa.int64()),
        ("mix_uid", pa.string()),
    ]
)
CONCEPTS = pa.field("mix_concepts", pa.list_(pa.string()))
"""The concepts of the row, where they are asked for."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Passing(NamedTuple):
    """What of a file may pass through to the mix."""

    schema: pa.Schema
    """Its columns under the run's names."""
    left_out: set[str]
    """Those that do not pass."""
    as_json: bool
    """Whether types that `datasets` cannot read back become JSON text."""
    converted: bool = False
    """Whether its types were told from values: then those of two files meet in the wider one, text if need be."""


def mix_schema(schemas: dict[str, Passing], image: str | None, scores: list[str], concepts: bool = False) -> pa.Schema:
    """The schema of the mix of some input files.

    Args:
        schemas: Input file -> what may pass from it.
        image: The image column, if there is one.
        scores: Score columns to be written.
        concepts: Whether the rows' concepts are to be written.

    Raises:
        ColumnError: Columns of one name and incompatible types; a type that `datasets` cannot read back; a name that
            the mix itself uses.
    """
    merged: dict[str, tuple[pa.DataType, str]] = {}
    told: set[str] = {name for one in schemas.values() for name in one.schema.names}
    told -= {name for one in schemas.values() if not one.converted for name in one.schema.names}
    for file, passing in schemas.items():
        for field in passing.schema:
            if field.name in passing.left_out:
                continue
            kind = IMAGE if field.name == image else _stored(field, passing.as_json, file)
            known = merged.get(field.name)
            if known and field.name in told:
                merged[field.name] = (_wider(known[0], kind), known[1])
            else:
                merged[field.name] = (_common(field.name, known, kind, file), known[1] if known else file)
    for name in (*ADDED.names, CONCEPTS.name, *scores):
        if name in merged:
            raise ColumnError(
                f"the input column {name!r} (in {merged[name][1]}) has a name that the mix uses; "
                f"leave it out with `input.exclude: [{name}]` or rename it"
            )
    found = [pa.field(name, kind) for name, (kind, _) in merged.items()]
    found += [*ADDED, *([CONCEPTS] if concepts else []), *(pa.field(name, pa.float32()) for name in scores)]
    features = {image: {"_type": "Image"}} if image else {}
    return pa.schema(found, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _stored(field: pa.Field, as_json: bool, file: str) -> pa.DataType:
    unreadable = _unreadable(field.type)
    if unreadable is not None:
        if as_json:
            return pa.string()
        raise ColumnError(
            f"the column {field.name!r} of {file} is {field.type}; `datasets` cannot read {unreadable} back. "
            f"Leave it out with `input.exclude: [{field.name}]`, or set `input.unsupported: json` for JSON text"
        )
    return field.type.value_type if pa.types.is_dictionary(field.type) else field.type


def _unreadable(kind: pa.DataType) -> str | None:
    """The type within `kind` that `datasets` has no feature for, or None."""
    types = pa.types
    if isinstance(kind, pa.ExtensionType):
        return str(kind)
    if types.is_dictionary(kind):
        return _unreadable(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _unreadable(kind.value_type)
    if types.is_struct(kind):
        return next((bad for i in range(kind.num_fields) if (bad := _unreadable(kind.field(i).type))), None)
    readable = (
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal128(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_timestamp(kind)
        or types.is_date(kind)
        or types.is_time(kind)
        or types.is_duration(kind)
    )
    return None if readable else str(kind)


def _common(name: str, known: tuple[pa.DataType, str] | None, kind: pa.DataType, file: str) -> pa.DataType:
    if known is None or known[0] == kind:
        return kind
    try:
        missing = pa.types.is_null(known[0]) or pa.types.is_null(kind)
        if not missing and _number(known[0]) != _number(kind):
            raise pa.ArrowTypeError("a number would lose digits")
        pair = [pa.schema([(name, known[0])]), pa.schema([(name, kind)])]
        return pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ColumnError(
            f"the column {name!r} is {known[0]} in {known[1]} and {kind} in {file}; "
            f"give both one type, or leave it out with `input.exclude: [{name}]`"
        ) from error


def _wider(known: pa.DataType, kind: pa.DataType) -> pa.DataType:
    """The type in which values of two types meet that nobody has chosen; widths of numbers are no reason for text."""
    if kind == known or pa.types.is_null(kind):
        return known
    return kind if pa.types.is_null(known) else fields.join(_widest(known), _widest(kind))


def _widest(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(_widest(kind.value_type))
    if types.is_integer(kind) and kind != pa.uint64():
        return fields.INT
    if types.is_floating(kind):
        return fields.FLOAT
    return fields.TEXT if types.is_large_string(kind) else kind


def _number(kind: pa.DataType) -> str | None:
    """The family of numbers within which a wider type loses nothing; None for what is no number."""
    if pa.types.is_signed_integer(kind):
        return "signed"
    if pa.types.is_unsigned_integer(kind):
        return "unsigned"
    return "floating" if pa.types.is_floating(kind) else None


def conform(table: pa.Table, schema: pa.Schema, image: str | None) -> pa.Table:
    """Input columns as the mix stores them: one type over all files, nulls where a file lacks a column.

    `schema` is that of the input's part of the mix. The image column becomes `struct<bytes, path>`.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        column = table.column(field.name)
        if field.name == image:
            columns.append(_image_struct(column))
        elif column.type != field.type and (_unreadable(column.type) is not None or _as_text(column.type, field.type)):
            columns.append(_json_text(column))
        else:  # whole numbers become floats only where JSON had both
            leaf = field.type.value_type if pa.types.is_list(field.type) else field.type
            columns.append(column.cast(field.type, safe=not pa.types.is_floating(leaf)))
    return pa.table(columns, schema=schema)


def _as_text(kind: pa.DataType, stored: pa.DataType) -> bool:
    """Whether values of a type are stored as JSON text."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.string(), pa.large_string(), pa.null(), pa.binary(), pa.large_binary())
    return stored == pa.string() and plain not in texts


def _image_struct(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = []
    for chunk in column.chunks:
        if pa.types.is_struct(chunk.type):
            data = chunk.field("bytes")
            path = chunk.field("path") if chunk.type.get_field_index("path") >= 0 else pa.nulls(len(chunk), pa.string())
        else:
            data, path = chunk, pa.nulls(len(chunk), pa.string())
        fields = [data.cast(pa.binary()), path.cast(pa.string())]
        chunks.append(pa.StructArray.from_arrays(fields, fields=list(IMAGE), mask=chunk.is_null()))
    return pa.chunked_array(chunks, IMAGE)


def _json_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as JSON text, row by row: only for columns that the user asked to keep in this form."""
    texts = [None if value is None else json.dumps(value, default=str, sort_keys=True) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])
