"""What became of one row: the ledger's word, then each stage's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from configs.errors import MixError
from storage import files, manifests
from storage.ledger import DAMAGED_FILE

PER_SHARD = ("embed", "annotate", "score")
MOST_ROWS = 20


def explain_row(mix: str, key: str) -> Iterator[dict[str, Any]]:
    """One dict a table: `title` and what is known. First the ledger, then the stages, then the places in the mix.

    Args:
        mix: URL of the mix.
        key: The user's key, a uid, `file:row`, or a file that is quarantined as a whole. A key that several rows have
            tells of each, 20 at most.

    Raises:
        MixError: No row of the input has that key.
    """
    folder = manifests.resolve(mix)
    manifest = manifests.read(folder)
    rows = list(_ledger_rows(folder, manifest, key))
    damaged = [one for one in manifest["damaged"] if one["file"] in (key, key.rpartition(":")[0])]
    for one in damaged:
        yield {"title": one["file"], "outcome": "quarantined", "reason": DAMAGED_FILE, "detail": one["why"]}
    if not rows and not damaged:
        named = next((parent["file"] for parent in manifest["parents"] if parent["rows"]), None)
        raise MixError(
            f"no row of {folder} has the key or uid {key!r}; a row without a key is named by file and number, as in "
            f"{named}:0"
            if named
            else f"{folder} was made from no rows"
        )
    for row in rows[:MOST_ROWS]:
        yield {"title": f"{row['file']}:{row['row']}", **{k: v for k, v in row.items() if v is not None}}
        yield from _stages(manifest, row)
        yield from _places(folder, manifest, row)
    if len(rows) > MOST_ROWS:
        yield {"title": f"{len(rows) - MOST_ROWS} more rows have this key"}


def _ledger_rows(folder: str, manifest: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    file, _, number = key.rpartition(":")
    wanted = pc.field("key") == key
    if file and number.isdigit() and len(number) < 19:
        wanted = wanted | ((pc.field("file") == file) & (pc.field("row") == int(number)))
    for place in _uid_places(folder, manifest, key):
        wanted = wanted | ((pc.field("file") == place["mix_file"]) & (pc.field("row") == place["mix_row"]))
    for name in sorted(n for n in manifest["files"] if n.startswith("ledger/")):
        yield from _filtered(files.join(folder, name), wanted)


def _uid_places(folder: str, manifest: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Rows of the mix with this uid: so a row that one sees in the mix can be looked up."""
    if len(key) != 32 or not set(key) <= set("0123456789abcdef"):
        return []
    found = []
    for name in sorted(n for n in manifest["files"] if n.startswith("data/")):
        found += _filtered(files.join(folder, name), pc.field("mix_uid") == key, ["mix_file", "mix_row"])
    return [dict(pair) for pair in {tuple(one.items()) for one in found}]


def _filtered(url: str, wanted: pc.Expression, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of one Parquet file that fit, read batch by batch."""
    rows: list[dict[str, Any]] = []
    read = columns and [*columns, "mix_uid"]
    with files.reading(url) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=read, use_threads=False):
            rows += ds.dataset(pa.Table.from_batches([batch])).to_table(filter=wanted, columns=columns).to_pylist()
    return rows


def _stages(manifest: dict[str, Any], row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    store, shard, number = manifest["config"]["store"], row["shard"], row["row"]
    if not files.exists(store):
        yield {"title": "what each stage said is not known here", "the store was at": store}
    for told in manifest["steps"]:
        step = manifests.step_of(manifest, told)
        if not files.exists(step.file(f"{shard}.parquet")):
            continue
        failed = [one for one in step.failures(shard).to_pylist() if one["row"] == number]
        if failed:
            yield {"title": told["label"], "failed": failed[0]["reason"], "detail": failed[0]["detail"]}
        elif told["stage"] in PER_SHARD or told["stage"] == "ingest":
            yield {"title": told["label"], **_shown(step.read(shard).slice(number, 1))}
        elif told["stage"] in ("select", "mix"):
            table = step.read(shard)
            mine = table.filter(pc.equal(table["row"], number))
            if told["stage"] == "select" and mine.num_rows:
                yield {"title": told["label"], **_shown(mine.drop_columns(["shard", "row"]))}
            elif mine.num_rows:
                yield {"title": told["label"], "draws": mine["draw"].to_pylist()}


def _shown(row: pa.Table) -> dict[str, Any]:
    shown = {}
    for name in row.column_names:
        value = row[name][0].as_py()
        if isinstance(value, bytes):
            value = value.hex() if len(value) == 16 else f"{len(value) // 2} numbers"
        if value is not None:
            shown[name] = value
    return shown


def _places(folder: str, manifest: dict[str, Any], row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not row["times_used"]:
        return
    wanted = (pc.field("mix_file") == row["file"]) & (pc.field("mix_row") == row["row"])
    columns = ["mix_file", "mix_row", "mix_step", "mix_rank", "mix_slot"]
    for name in sorted(n for n in manifest["files"] if n.startswith("data/")):
        for place in _filtered(files.join(folder, name), wanted, columns):
            yield {"title": f"in the mix: {name}", **{k: place[k] for k in ("mix_step", "mix_rank", "mix_slot")}}
