"""Types of fields whose values come without any: one lattice, so that the type does not depend on who came first.

`null < bool`, `null < int64 < float64`, `null < list of one of these or of text`; what has no other upper bound is
text. A text column keeps strings as they are and holds any other value as JSON (keys sorted, nothing escaped that
need not be). Raw bytes, of members of tars, are above text. Integers beyond 64 bits are text, digit for digit; in a
column of floats, integers become floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from types import NoneType
from typing import Any, NamedTuple

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of picture columns: Hugging Face's."""

NULL, BOOL, INT, FLOAT, TEXT, BYTES = pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.binary()


class Picture(NamedTuple):
    """A value of a picture column."""

    bytes: bytes
    path: str
    """A bare file name, for people: see `records.bare`."""


_OF: dict[type, pa.DataType] = {bool: BOOL, int: INT, float: FLOAT, str: TEXT, bytes: BYTES, Picture: IMAGE}


def of(values: Iterable[Any]) -> pa.DataType:
    """The least type that holds all `values`: JSON values, bytes, pictures."""
    values = list(values)
    found = set(map(type, values)) - {NoneType}
    if found == {list}:
        items = list(chain.from_iterable(value for value in values if value is not None))
        return _list(_scalar(set(map(type, items)) - {NoneType}, items))
    return _scalar(found, values) or (BYTES if bytes in found else TEXT)


def _scalar(found: set[type], values: Sequence[Any]) -> pa.DataType | None:
    """Type of values of the classes `found`; None if nothing but JSON text can hold them together."""
    if int in found and not _fit(values):
        return None
    if found == {int, float}:
        return FLOAT
    if len(found) > 1:
        return None
    return _OF.get(found.pop()) if found else NULL


def _fit(values: Sequence[Any]) -> bool:
    numbers = [value for value in values if type(value) is int]
    return -(1 << 63) <= min(numbers) and max(numbers) < 1 << 63


def _list(item: pa.DataType | None) -> pa.DataType:
    return TEXT if item in (None, BYTES, IMAGE) else pa.list_(item)


def join(*types: pa.DataType) -> pa.DataType:
    """The least type that holds what any of `types` holds."""
    return reduce(_join, types, NULL)


def _join(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a == b or b == NULL:
        return a
    if a == NULL:
        return b
    if {a, b} == {INT, FLOAT}:
        return FLOAT
    if pa.types.is_list(a) and pa.types.is_list(b):
        item = _join(a.value_type, b.value_type)
        # Texts and numbers in one list are as mixed as texts and numbers in one column, but have no text of their own.
        same = item != TEXT or {a.value_type, b.value_type} <= {TEXT, NULL}
        return pa.list_(item) if same else TEXT
    return BYTES if BYTES in (a, b) else TEXT


def array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An array of `values`, which `kind` must be able to hold: the join of their types is not above it."""
    if kind == NULL:
        return pa.nulls(len(values))
    if kind == IMAGE:
        children = [pa.array([value and value[i] for value in values], IMAGE.field(i).type) for i in (0, 1)]
        mask = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(children, fields=list(IMAGE), mask=mask)
    found = set(map(type, values)) - {NoneType}
    if kind == TEXT and found - {str}:
        values = [value if value is None or type(value) is str else text(value) for value in values]
    elif kind == BYTES and found - {bytes}:
        values = [value if value is None or type(value) is bytes else _bytes(value) for value in values]
    elif kind == FLOAT and int in found:
        values = [None if value is None else float(value) for value in values]
    elif kind == pa.list_(FLOAT):
        values = [value and [None if item is None else float(item) for item in value] for value in values]
    return pa.array(values, kind)


def text(value: Any) -> str:
    """A JSON value as text, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _bytes(value: Any) -> bytes:
    return (value if type(value) is str else text(value)).encode()
