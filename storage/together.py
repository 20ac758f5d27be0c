"""Many small JSON files of one folder, read as one: a hundred thousand commit points or notes of shards.

What was read stands together in `_together.parquet` of the folder, a copy that may be missing, old or incomplete at
any time: names come from the listing, what the copy lacks is read one by one. So nothing depends on it but speed. Who
removes one of the files removes the copy first: it would speak for the file of that name that is made next.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from storage import files, objects
from storage.listing import listed
from storage.steps import Step, parquet_bytes

TOGETHER = "_together.parquet"
FEW = 1000
"""Files more than this that the copy lacks make a new copy worth writing."""
CHUNK = 200
"""Files read by one call in a thread: the hand-over costs as much as reading a local one."""


def read(folder: str, names: Sequence[str], *, renew: bool = True) -> dict[str, Any]:
    """What the JSON files `names` of `folder` hold, by name; with `renew` the copy is written anew if it lacks many.

    Files do not change, but one may be removed, by hand too, and be made anew: the copy is not asked of those that are
    younger than it, by the clock of where they lie.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    if len(names) <= FEW:
        return read_each(folder, names)
    known = _older(folder)
    fresh = read_each(folder, [name for name in names if name not in known])
    if renew and len(fresh) > FEW:
        store(folder, known | fresh)
    return {name: fresh[name] if name in fresh else known[name] for name in names}


def stored(folder: str) -> dict[str, Any]:
    """The copy's content: name -> value; empty where there is none."""
    try:
        table = files.read_table(files.join(folder, TOGETHER))
    except FileNotFoundError:
        return {}
    values = zip(table["name"].to_pylist(), table["json"].to_pylist(), strict=True)
    return {name: _compact(json.loads(text)) for name, text in values}


def _older(folder: str) -> dict[str, Any]:
    """What the copy says of files that still stand and are not younger than it."""
    times = {one.name: one.modified for one in listed(folder)}  # first: a copy renewed meanwhile is younger than this
    known = stored(folder) if TOGETHER in times else {}
    return {name: value for name, value in known.items() if name in times and times[name] <= times[TOGETHER]}


def store(folder: str, values: dict[str, Any]) -> None:
    """Write the copy."""
    texts = [json.dumps(value, sort_keys=True) for value in values.values()]
    table = pa.table({"name": pa.array(list(values), pa.string()), "json": pa.array(texts, pa.string())})
    files.write_bytes(files.join(folder, TOGETHER), parquet_bytes(table))


def facts(step: Step, shards: Sequence[str]) -> list[dict[str, Any]]:
    """What the commit points of shards say, in the order of `shards`."""
    names = [f"{shard}.json" for shard in shards]
    found = read(step.url, names)
    return [found[name] for name in names]


def read_each(folder: str, names: Sequence[str]) -> dict[str, Any]:
    """What the files themselves hold, by name."""

    def read_some(some: Sequence[str]) -> list[Any]:
        return [_compact(files.read_json(files.join(folder, name))) for name in some]

    with objects.threads(8) as pool:
        values = [value for found in pool.map(read_some, _chunks(names)) for value in found]
    return dict(zip(names, values, strict=True))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    size = CHUNK if len(names) >= 8 * CHUNK else 1  # few: each of them may be a round trip
    for first in range(0, len(names), size):
        yield names[first : first + size]


def _compact(value: Any) -> Any:
    """The value, of whose keys and texts each distinct one is in memory once: most shards have the same schema."""
    if not isinstance(value, dict):
        return value
    return {sys.intern(key): sys.intern(held) if type(held) is str else held for key, held in value.items()}
