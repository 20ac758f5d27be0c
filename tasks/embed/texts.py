"""Text columns as Python strings, for text from anywhere."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def read_texts(column: pa.ChunkedArray | pa.Array) -> tuple[list[str | None], dict[int, str]]:
    """The texts, None for nulls, and row -> what is wrong for those that are not UTF-8 (Parquet does not check).

    A text that is not UTF-8 is None in the list.
    """
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        pass  # some row is bad: find out which
    raw = pc.cast(column, pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()).to_pylist()
    texts: list[str | None] = []
    bad: dict[int, str] = {}
    for row, data in enumerate(raw):
        try:
            texts.append(None if data is None else data.decode("utf-8"))
        except UnicodeDecodeError as error:
            texts.append(None)
            bad[row] = str(error)
    return texts, bad
