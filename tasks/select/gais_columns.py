"""Features and labels of a table's rows, for GAIS-style (reconstructed) selection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from tasks.embed.vectors import unpack

CLUSTER = "cluster"
EMBEDDINGS = {"image": ("image_embedding",), "text": ("text_embedding",), "both": ("image_embedding", "text_embedding")}


def feature_columns(features: str | list[str]) -> tuple[str, ...]:
    """The columns that hold the features."""
    return EMBEDDINGS[features] if isinstance(features, str) else tuple(features)


def features_of(rows: pa.Table, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features side by side, float32 `(n, d)`, and whether a row's are all there and finite, bool `(n,)`.

    Raises:
        ColumnError: A column holds neither embeddings nor numbers.
    """
    parts = []
    sound = np.ones(rows.num_rows, bool)
    for name in names:
        column = rows.column(name)
        if pa.types.is_fixed_size_binary(column.type):
            part = unpack(column).astype(np.float32)
            sound &= column.is_valid().to_numpy()
        else:
            part = number_column(rows, name)[:, None]
        parts.append(part)
    x = np.hstack(parts)
    sound &= np.isfinite(x).all(axis=1)
    return x, sound


def number_column(rows: pa.Table, name: str) -> np.ndarray:
    """A column of numbers or bools as float32 `(n,)`; NaN where it is null.

    Raises:
        ColumnError: It holds neither.
    """
    column: Any = rows.column(name)
    if not _is_number(column.type):
        raise ColumnError(f"`features` names {name!r}, which is {column.type}; it must hold numbers or bools")
    with np.errstate(over="ignore"):
        return pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float32)


def labels_of(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """The labels as strings; null where there is none, or NaN.

    Raises:
        ColumnError: The column holds neither text, numbers nor bools.
    """
    column: Any = rows.column(name)
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    texts = (pa.types.is_string(kind), pa.types.is_large_string(kind), pa.types.is_string_view(kind))
    if not (any(texts) or _is_number(kind) or pa.types.is_null(kind)):
        raise ColumnError(f"`labels` names {name!r}, which is {column.type}; it must hold texts, numbers or bools")
    return column.cast(pa.large_string())


def codes_of(labels: pa.ChunkedArray, classes: pa.LargeStringArray) -> np.ndarray:
    """The place of each label in `classes`, int64 `(n,)`; -1 where it is null."""
    place = pc.index_in(labels, value_set=classes, skip_nulls=True)
    return pc.fill_null(place, -1).to_numpy().astype(np.int64)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
