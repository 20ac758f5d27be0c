"""What became of one row: the ledger's word, then each stage's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from configs.errors import MixError
from configs.methods.sample import Sample
from configs.methods.scored import Scored
from storage import files, manifests
from storage.ledger import DAMAGED_FILE
from storage.steps import Step

PER_SHARD = ("embed", "annotate", "score")
MOST_ROWS = 20
MOST_DRAWS = 5
"""Draws of a row of which the sampler's word is told."""


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
    draws: list[int] = []
    if not files.exists(store):
        yield {"title": "what each stage said is not known here", "the store was at": store}
    for told in manifest["steps"]:
        step = manifests.step_of(manifest, told)
        if told["stage"] == "sample" and (picks := _picks(manifest, step, draws)):
            yield {"title": f"sample/{told['kind']}", **picks}
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
                draws = mine["draw"].to_pylist()
                yield {"title": told["label"], "draws": draws}


def _picks(manifest: dict[str, Any], step: Step, draws: list[int]) -> dict[str, str]:
    """What a sampler that goes by scores made of the first draws, by draw; empty for other samplers."""
    first = step.file("values-00000.parquet")
    if not draws or not files.exists(first):
        return {}
    section = TypeAdapter(Sample).validate_python(manifest["config"]["sample"])
    if not isinstance(section, Scored):
        return {}
    with files.reading(first) as file:
        part_rows = pq.read_metadata(file).num_rows  # all parts but the last have as many
    told = {}
    for draw in draws[:MOST_DRAWS]:
        if draw >= manifest["batches"]["steps"] * section.superbatch:
            told[f"draw {draw}"] = "not looked at: it is behind the last whole superbatch"
            continue
        part, at = divmod(draw, part_rows)
        size = section.share[0]
        micro = step.read(f"values-{part:05d}").slice(at // size * size, size)
        number, rest = divmod(draw, section.superbatch)
        rank, behind = divmod(rest, section.superbatch // section.world_size)
        where = f"step {number}, rank {rank}, micro-batch {behind // size}"
        told[f"draw {draw}"] = f"{_pick(micro, at % size)} ({where})"
    if len(draws) > MOST_DRAWS:
        told["and"] = f"{len(draws) - MOST_DRAWS} more draws"
    return told


def _pick(micro: pa.Table, at: int) -> str:
    """What became of row `at` of a micro-batch, in words; `micro` is of the sampler's values."""
    names = micro.column_names[micro.column_names.index("picked") + 1 :]
    picked, decides = micro["picked"].to_numpy(), micro[names[-1]].to_numpy()
    mine = ", ".join(f"{name} {_number(micro[name].to_numpy()[at])}" for name in names)
    known = decides[picked & np.isfinite(decides)]
    had = f"{_number(known.min())} or more" if len(known) else f"no finite {names[-1]}"
    if 0 < len(known) < picked.sum():
        had += ", or none"
    if not picked[at] and len(known) and decides[at] == known.min():
        had += "; of equal ones the first are picked"
    word = "picked" if picked[at] else "not picked"
    return f"{word}: {mine}; the {picked.sum()} picked of its {len(picked)} had {had}"


def _number(value: np.float32) -> str:
    """A float32 in as few digits as tell it from others."""
    return str(value) if np.isfinite(value) else "none"


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
