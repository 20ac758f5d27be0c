"""Take in raw shards: what each file holds, told by one read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from tasks import Failure


class Ingester(Protocol):
    """Reads one input file once."""

    def read(self, url: str) -> tuple[str, pa.Schema, pa.Table, list[Failure]]:
        """Content digest, schema, ingest sidecar (`uid, image_bytes, text_chars`) and the rows that cannot be used."""
        ...


METHODS: dict[str, str] = {"parquet": "tasks.ingest.parquet:ParquetIngester"}

PROVIDES: tuple[str, ...] = ("uid", "image_bytes", "text_chars")


def accepts(config: Any, schema: pa.Schema, file: str) -> None:
    """Raise ValueError if a column that `config` names is missing from a file or of the wrong type."""
    for role, (allowed, wanted) in ROLES.items():
        name = getattr(config, role)
        if name is None:
            continue
        if name not in schema.names:
            raise ValueError(
                f"`input.{role}` is {name!r}, but {file} has no such column; its columns are {', '.join(schema.names)}"
            )
        kind = schema.field(name).type
        if not allowed(kind):
            raise ValueError(f"`input.{role}` is {name!r}, which is {kind} in {file}; it must be {wanted}")


def is_label(kind: pa.DataType) -> bool:
    """Whether values of this type can name rows or groups: text, whole numbers, booleans."""
    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_null(value)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    # A column of nulls alone has the type null: its rows are quarantined one by one, like any other null.
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)


ROLES: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "image": (_is_image, "binary or struct<bytes, path>"),
    "text": (_is_text, "string"),
    "key": (is_label, "string or integer"),
    "source": (is_label, "string or integer"),
}
