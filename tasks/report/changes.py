"""What a mix has that the one before it had not: rows in and out, shares of groups, concepts, settings.

Rows are compared by content of their shard and place in it, through the two ledgers, part by part of the older one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import files
from tasks.report import concepts
from tasks.report.subject import codes

PLACES = pa.schema([(name, pa.int64()) for name in ("part", "at", "rows", "now_part", "now_at")])
"""Where the rows of a shard stand in the older ledger and in the newer one; `now_part` -1: in that no more."""
FATE = ["outcome", "stage", "reason"]
MOST_SETTINGS, MOST_GROUPS = 40, 40
LEAST_MOVE = 0.0005
"""Of a share that is told: less is not seen in per cent with one digit."""

Place = tuple[int, int, int]
"""A part of a ledger, the first row of a shard in it, the shard's rows."""


def places(parents: Sequence[Mapping[str, Any]], part_rows: Sequence[int]) -> dict[str, Place]:
    """Digest of each shard -> its place in the ledger; of several files with one content the first counts.

    Args:
        parents: The files in the order of the ledger, dicts with `digest` and `rows`.
        part_rows: Rows of each part of the ledger. Files stand whole in a part.
    """
    found: dict[str, Place] = {}
    part = at = 0
    for one in parents:
        while part < len(part_rows) - 1 and at >= part_rows[part]:
            part, at = part + 1, 0
        found.setdefault(one["digest"], (part, at, one["rows"]))
        at += one["rows"]
    return found


def part_rows(mix: str) -> list[int]:
    """Rows of each part of the ledger of the mix at `mix`, from the footers."""
    found = []
    for name in files.names(files.join(mix, "ledger")):
        with files.reading(files.join(mix, "ledger", name)) as file:
            found.append(pq.read_metadata(file).num_rows)
    return found


def joined(before: Mapping[str, Place], now: Mapping[str, Place]) -> pa.Table:
    """The shards of the older mix and where they stand in the newer: `PLACES`, in the order of the older ledger."""
    lines = sorted((*place, *now.get(digest, (-1, -1, 0))[:2]) for digest, place in before.items())
    columns = zip(*lines, strict=True) if lines else ([] for _ in PLACES)
    return pa.table([pa.array(column, pa.int64()) for column in columns], schema=PLACES)


def compare(before: str, now: str, shards: pa.Table) -> Counter[str]:
    """Rows of some shards by what became of them.

    Args:
        before: Folder of the older mix.
        now: Folder of the newer mix.
        shards: `PLACES`, all of one part of the older ledger.

    Returns:
        `stayed`; `out|gone`: kept then, and the shard is gone; `out|<stage>|<reason>`: kept then and not now;
        `in|<stage>|<reason>`: not kept then, for that reason, and kept now.
    """
    found: Counter[str] = Counter()
    older, newer, part = None, None, -1
    for line in shards.sort_by("now_part").to_pylist():  # each part of the newer ledger is read once
        older = older if older is not None else _fates(before, line["part"])
        was = tuple(column[line["at"] : line["at"] + line["rows"]] for column in older[:2])
        if line["now_part"] < 0:
            found["out|gone"] += int(np.count_nonzero(was[0]))
            continue
        if newer is None or line["now_part"] != part:
            newer, part = _fates(now, line["now_part"]), line["now_part"]
        is_ = tuple(column[line["now_at"] : line["now_at"] + line["rows"]] for column in newer[:2])
        found["stayed"] += int(np.count_nonzero(was[0] & is_[0]))
        found.update(_counted("out", is_[1][was[0] & ~is_[0]], newer[2]))
        found.update(_counted("in", was[1][is_[0] & ~was[0]], older[2]))
    return found


def _fates(mix: str, part: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of one part of a ledger: kept, bool `(rows,)`; why not, as int64 codes `(rows,)`; what the codes stand for."""
    with files.reading(files.join(mix, "ledger", f"part-{part:05d}.parquet")) as file:
        table = pq.ParquetFile(file, read_dictionary=FATE).read(columns=FATE, use_threads=False).unify_dictionaries()
    stage, stages = codes(table["stage"])
    reason, reasons = codes(table["reason"])
    kept = pc.equal(table["outcome"].cast(pa.string()), "kept").to_numpy()
    words = [f"{one}|{other}" for one in [*stages, ""] for other in [*reasons, ""]]  # -1 is null, the last of each
    return kept, (stage % (len(stages) + 1)) * (len(reasons) + 1) + reason % (len(reasons) + 1), words


def _counted(way: str, why: np.ndarray, words: list[str]) -> dict[str, int]:
    found, counts = np.unique(why, return_counts=True)
    return {f"{way}|{words[code]}": int(n) for code, n in zip(found, counts, strict=True)}


def rows_told(tally: Mapping[str, int], kept: int) -> dict[str, Any]:
    """What is told of the rows: `stayed`, `came`, `left`, and `why_came`, `why_left` as {reason: rows}.

    Args:
        tally: Sum over all parts of what `compare` returns.
        kept: Rows that the newer mix keeps.
    """
    why: dict[str, dict[str, int]] = {"in": {}, "out": {}}
    for key, rows in sorted(tally.items()):
        way, _, reason = key.partition("|")
        if way in why and rows:
            why[way][reason.replace("|", ": ")] = rows
    stayed = tally.get("stayed", 0)
    new = kept - stayed - sum(why["in"].values())
    came = ({"new": new} if new else {}) | why["in"]
    facts = {"stayed": stayed, "came": kept - stayed, "left": sum(why["out"].values())}
    return facts | {"why_came": came, "why_left": why["out"]}


def groups_told(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares of the groups that moved the most, as the reports of both mixes tell `groups`: {group, before, now}."""
    then = {one["group"]: one["achieved"] for one in before}
    share = {one["group"]: one["achieved"] for one in now}
    moved = {name: share.get(name, 0.0) - then.get(name, 0.0) for name in then | share}
    names = sorted(
        (name for name in moved if abs(moved[name]) >= LEAST_MOVE), key=lambda name: (-abs(moved[name]), name)
    )
    return [{"group": name, "before": then.get(name, 0.0), "now": share.get(name, 0.0)} for name in names[:MOST_GROUPS]]


def settings_told(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings that differ between two configurations: {setting, before, now}; at most `MOST_SETTINGS`."""
    then, here = dict(_flat(before)), dict(_flat(now))
    changed = [name for name in sorted(then | here) if then.get(name) != here.get(name)]
    return [
        {"setting": name, "before": then.get(name), "now": here.get(name)}
        for name in changed
        if name.split(".")[0] not in ("store", "storage", "runner", "report")
    ][:MOST_SETTINGS]


def _flat(values: Any, name: str = "") -> list[tuple[str, Any]]:
    inside = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else None
    if inside is None:
        return [(name, values)]
    return [pair for key, value in inside for pair in _flat(value, f"{name}.{key}" if name else str(key))]


def concepts_told(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """Concepts whose share of the mix rose or fell the most, as both reports tell `concepts`: `more`, `less`.

    A report names its commonest concepts alone. One that the other report does not name counts as absent only where
    that report names all there are; else it is left out.
    """
    if not before or not now:
        return {"more": [], "less": []}
    then, here = (dict(zip(one["names"], one["after"], strict=True)) for one in (before, now))
    known = [
        name
        for name in sorted(then | here)
        if all(name in names or len(names) == one["distinct_before"] for names, one in ((then, before), (here, now)))
    ]
    table = pa.table(
        [known, [then.get(name, 0) for name in known], [here.get(name, 0) for name in known]], schema=concepts.COUNTS
    )
    more, less = concepts.changed(table)
    return {"more": more, "less": less}
