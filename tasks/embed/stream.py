"""Rows as a stream: fixed batches whatever the slices, each step running ahead of the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import pyarrow as pa

from storage import objects

T = TypeVar("T")


def fixed_batches(slices: Iterable[pa.Table], size: int) -> Iterator[tuple[int, pa.Table]]:
    """First row and rows `[k * size, (k + 1) * size)` of a shard, however it was sliced; the last may be shorter."""
    held: list[pa.Table] = []
    first = count = 0
    for table in slices:
        held.append(table)
        count += len(table)
        if count >= size:
            joined = pa.concat_tables(held)
            while count >= size:
                yield first, joined.slice(len(joined) - count, size)
                first, count = first + size, count - size
            held = [joined.slice(len(joined) - count)]
    if count:
        yield first, pa.concat_tables(held)


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items in order, with `count` more drawn from `items` before each is handed out."""
    held: deque[T] = deque()
    for item in items:
        held.append(item)
        if len(held) > count:
            yield held.popleft()
    yield from held


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items in order; the next one is fetched in a thread meanwhile, so that reading a file holds up nobody."""
    source = iter(items)
    end = object()
    with objects.threads(1) as reader:
        coming = reader.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, source, end)
            yield item  # type: ignore[misc]
