"""Take in raw data: what there is, as Parquet shards, and what each shard holds, told by one read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import pyarrow as pa

from configs.errors import ColumnError
from storage.shards import InputFile
from tasks import Failure

Types = Mapping[str, pa.DataType]
"""Field of a record -> its Arrow type."""


class Slice(NamedTuple):
    """Consecutive rows of a unit."""

    table: pa.Table
    failures: list[Failure]
    """Rows that cannot be used, null in the table; `row` counts from the first row of the unit."""


class TypesChanged(Exception):
    """Raised when a value does not fit the type that earlier values of its field gave; the unit is read again."""

    def __init__(self, types: Types) -> None:
        super().__init__(types)
        self.types = dict(types)
        """What the fields must be for everything seen so far to fit."""


class Reader(Protocol):
    """One kind of input. A unit is what is taken in as a whole: a Parquet file, a tar, a folder of pictures."""

    in_place: ClassVar[bool]
    """Whether units are Parquet files, read where they are; else they are converted once."""

    def __init__(self, config: Any) -> None: ...

    def units(self) -> list[InputFile]:
        """What there is, in code-point order of `file`; nothing is opened that need not be.

        `size` and `stamp` change when the content does.

        Raises:
            InputError: Nothing is there.
        """
        ...

    def peek(self, unit: InputFile) -> pa.Schema:
        """The columns of a unit as far as its beginning (the footer, the first hundred records) tells them.

        Raises:
            BrokenFile: The content is not what the kind of input says.
            OSError: The unit cannot be read now.
        """
        ...

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """The rows of a unit in slices of about 64 MiB and at most 8,192 rows, all of one schema; not `in_place` only.

        Args:
            unit: The unit.
            types: What an earlier, interrupted reading has learnt of fields.

        Raises:
            TypesChanged: A value fits none of the types known so far; read again with the wider ones.
            BrokenFile: The content breaks off or is not what it says; nothing of the unit is used.
            OSError: The unit cannot be read now.
        """
        ...


METHODS: dict[str, str] = {
    "parquet": "tasks.ingest.parquet:ParquetReader",
    "webdataset": "tasks.ingest.webdataset:WebdatasetReader",
    "jsonl": "tasks.ingest.jsonl:JsonlReader",
    "image_folder": "tasks.ingest.image_folder:ImageFolderReader",
    "huggingface": "tasks.ingest.huggingface:HuggingFaceReader",
}

PROVIDES: tuple[str, ...] = ("uid", "image_bytes", "text_chars", "text_bytes")


def accepts(own: Mapping[str, str], named: Mapping[str, str], schema: pa.Schema, file: str) -> None:
    """Raise ColumnError if a column that plays a role is missing from a file or of the wrong type.

    Args:
        own: Role -> column, as the file's input names it.
        named: Role -> column, as the run names it.
        schema: The file's columns under the run's names.
        file: The file.
    """
    for role, (allowed, wanted) in ROLES.items():
        if role not in own:
            continue
        if named[role] not in schema.names:
            columns = ", ".join(schema.names)
            raise ColumnError(
                f"`input.{role}` is {own[role]!r}, but {file} has no such column; its columns are {columns}"
            )
        kind = schema.field(named[role]).type
        if not allowed(kind):
            raise ColumnError(f"`input.{role}` is {own[role]!r}, which is {kind} in {file}; it must be {wanted}")


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
