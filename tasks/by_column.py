"""Tables that are read again and again, of which a pass needs some columns alone."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def only(tables: Iterable[pa.Table], *columns: str) -> Iterable[pa.Table]:
    """The same tables with these columns at least; the others stay unread where the tables come from files.

    Args:
        tables: What has a method `only(*columns)` reads by column, as `tasks.summaries.Summaries` does.
        columns: Each table has them.
    """
    narrowed: Iterable[pa.Table] = tables.only(*columns) if hasattr(tables, "only") else tables
    return narrowed
