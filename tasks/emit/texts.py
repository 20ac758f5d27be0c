"""Text of a mix that is not UTF-8: columns pass from input to mix as they are, so nothing before has looked at it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

SHOWN = 12
"""Bytes of a text that a message shows."""


def first_undecodable(table: pa.Table) -> tuple[str, int, bytes]:
    """Column and row of the first text that is not UTF-8, and the bytes there. Goes row by row: for after an error.

    Raises:
        LookupError: There is none.
    """
    for name in table.column_names:
        for row, value in enumerate(table[name]):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                return name, row, error.object[error.start :][:SHOWN]
    raise LookupError("all text is UTF-8")


def undecodable(name: str, origin: dict[str, Any], found: bytes) -> str:
    """What to say of it; `origin` has `mix_file` and `mix_row`."""
    return (
        f"the column {name!r} of row {origin['mix_row']} of {origin['mix_file']} holds text that is not UTF-8 "
        f"({found!r}): mend it there or leave the column out with `input.exclude`, and curate again"
    )
