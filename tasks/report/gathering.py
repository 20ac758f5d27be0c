"""What a report takes from one block of input files: first what there is to choose from, then what was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.ledger import tally
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.emit.layout import Block
from tasks.report import concepts, coverage, examples, gallery, pictures, scores
from tasks.report.subject import Subject, starts

FATE = ("outcome", "stage", "reason", "score", "times_used", "key")
ITEMS = pa.schema(
    [
        ("file", pa.string()),
        *pictures.CONTENTS,
        ("outcome", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float32()),
        ("times_used", pa.int32()),
        ("key", pa.string()),
        ("detail", pa.string()),
    ]
)
"""What is shown of one row; `detail` is what the quarantine knows."""


def survey(subject: Subject, block: Block) -> None:
    """Leave behind the block's tally, concept counts, score ranges and candidates for the galleries."""
    number, step = block[0], subject.step
    ledger = subject.ledger(number, (*gallery.NEEDED, "times_used"))
    uses, sizes = ledger["times_used"].to_numpy(), dict.fromkeys(("pictures", "captions", "annotated", "bare"), 0)
    counted = []
    for shard, at in subject.own(block):
        if "concepts" in subject.view.sidecars:
            mine = uses[at : at + shard.rows]
            column = subject.view.table(shard, ("concepts",))["concepts"]
            counted.append(concepts.count(column, mine))
            lengths = pc.list_value_length(column).drop_null().to_numpy()
            sizes["annotated"] += len(lengths)
            sizes["bare"] += int((lengths == 0).sum())
        known = subject.view.table(shard, ("image_bytes", "text_chars"))
        sizes["pictures"] += int(pc.sum(known["image_bytes"]).as_py() or 0)
        sizes["captions"] += int(pc.sum(known["text_chars"]).as_py() or 0)
    spans = {name: scores.span(values(subject.view, s, name) for s, _ in subject.own(block)) for name in subject.scores}
    _leave(step, f"concepts-{number:05d}", concepts.merge(counted))
    if subject.settings.gallery_rows:
        _leave(step, f"rows-{number:05d}", gallery.row_candidates(ledger, subject.settings.gallery_rows))
        _leave(step, f"groups-{number:05d}", gallery.group_candidates(ledger, number))
    step.commit(f"survey-{number:05d}", tally=tally(ledger), spans=spans, sizes=sizes)


def choose(subject: Subject, block_count: int, cuts: dict[str, list[float]]) -> dict[str, Any]:
    """What all blocks are to show: `galleries`, `groups` (of duplicates), `edges` of the bins by score, `coverage` of
    the batches (or None), and `more` and `less`: the concepts of which examples are to be found.

    Leaves behind the concept counts of all blocks.
    """
    step, numbers = subject.step, range(block_count)
    chosen: dict[str, Any] = {"galleries": [], "groups": [], "edges": {}, "more": [], "less": [], "examples": {}}
    counted = concepts.merge(step.read(f"concepts-{number:05d}") for number in numbers)
    _leave(step, "concepts", counted)
    most = max(subject.settings.top_concepts, concepts.MOST_NAMED)
    chosen["coverage"] = coverage.found(subject.sample, list(subject.parts), subject.steps, most)
    if subject.settings.gallery_rows:
        more, less = concepts.changed(counted)
        chosen |= {"more": [one["concept"] for one in more], "less": [one["concept"] for one in less]}
        rows = [gallery.ROWS.empty_table(), *(step.read(f"rows-{number:05d}") for number in numbers)]
        chosen["galleries"] = gallery.choose_rows(pa.concat_tables(rows), subject.settings.gallery_rows)
        groups = [gallery.GROUPED.empty_table(), *(step.read(f"groups-{number:05d}") for number in numbers)]
        chosen["groups"] = gallery.choose_groups(pa.concat_tables(groups))
        grouped = {(group["stage"], group["reason"]) for group in chosen["groups"]}
        # Rows for which another one stands are shown beside it.
        chosen["galleries"] = [g for g in chosen["galleries"] if (g["stage"], g["reason"]) not in grouped]
    told = [step.facts(f"survey-{number:05d}")["spans"] for number in numbers]
    for name in subject.scores:
        spans = [scores.Span(*one[name]) for one in told if one[name]]
        chosen["edges"][name] = scores.edges(spans, cuts.get(name, [])).tolist()
    return chosen


def find(subject: Subject, block: Block) -> None:
    """Leave behind the rows of the block that may show the concepts whose share changed the most."""
    number, step, chosen = block[0], subject.step, files.read_json(subject.step.file("chosen.json"))
    ledger = subject.ledger(number, examples.NEEDED)
    found = [examples.CANDIDATES.empty_table()]
    for shard, at in subject.own(block):
        column, mine = subject.view.table(shard, ("concepts",))["concepts"], ledger.slice(at, shard.rows)
        found.append(examples.candidates(column, mine, chosen["more"], chosen["less"]))
    _leave(step, f"examples-{number:05d}", pa.concat_tables(found))


def choose_examples(subject: Subject, block_count: int) -> dict[str, Any]:
    """What `choose` chose, with `examples`: concept -> the rows that show it, [file, row] each."""
    chosen: dict[str, Any] = files.read_json(subject.step.file("chosen.json"))
    found = [subject.step.read(f"examples-{number:05d}") for number in range(block_count)]
    return chosen | {"examples": examples.choose(pa.concat_tables(found))}


def collect(subject: Subject, block: Block) -> None:
    """Leave behind what was chosen of the block: histograms, sizes of groups, what is shown of rows."""
    number, step, chosen = block[0], subject.step, files.read_json(subject.step.file("chosen.json"))
    ledger = subject.ledger(number, (*gallery.NEEDED, *(name for name in FATE if name not in gallery.NEEDED)))
    uses = ledger["times_used"].to_numpy()
    counted = []
    for shard, at in subject.own(block):
        for name, edges in chosen["edges"].items():
            if edges:
                weights = uses[at : at + shard.rows]
                values_, bounds = values(subject.view, shard, name), np.array(edges)
                counted.append({name: scores.histogram(values_, weights, bounds)})
    _leave(step, f"items-{number:05d}", _items(subject, block, ledger, wanted(chosen)))
    sizes = gallery.members_in(ledger, chosen["groups"])
    step.commit(f"collected-{number:05d}", histograms=scores.merge(counted), groups=sizes)


def values(view: View, shard: Shard, name: str) -> np.ndarray:
    """One shard's scores, float64 `(rows,)`, NaN where there is none; of a column that holds no numbers: all NaN."""
    column = view.table(shard, (name,))[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.full(shard.rows, np.nan)
    return column.to_numpy().astype(np.float64)


def wanted(chosen: dict[str, Any]) -> dict[str, list[int]]:
    """File -> the rows of it that are shown, ascending, each once."""
    found: dict[str, set[int]] = {}
    groups = [[group["keeper"], *group["members"]] for group in chosen["groups"]]
    for rows in [*(one["rows"] for one in chosen["galleries"]), *groups, *chosen["examples"].values()]:
        for file, row in rows:
            found.setdefault(file, set()).add(row)
    return {file: sorted(rows) for file, rows in found.items()}


def _items(subject: Subject, block: Block, ledger: pa.Table, rows_of: dict[str, list[int]]) -> pa.Table:
    parts = [ITEMS.empty_table()]
    limits = pictures.Limits(subject.settings.thumbnail_pixels, subject.max_pixels)
    details = _details(subject, block[0], rows_of)
    for shard, at in starts(block):
        rows = rows_of.get(shard.file)
        if not rows:
            continue
        fates = ledger.select(FATE).take(pa.array([at + row for row in rows]))
        shown = pa.Table.from_pylist([{"row": row} for row in rows], schema=pictures.CONTENTS)
        if shard.file not in subject.damaged:
            shown = pictures.contents(shard, subject.view, rows, limits).sort_by("row")
        columns = {name: fates[name] for name in FATE} | {name: shown[name] for name in shown.column_names}
        columns["file"] = pa.array([shard.file] * len(rows), pa.string())
        columns["detail"] = pa.array([details.get((shard.file, row)) for row in rows], pa.string())
        parts.append(pa.table([columns[f.name].cast(f.type) for f in ITEMS], schema=ITEMS))
    return pa.concat_tables(parts)


def _details(subject: Subject, number: int, rows_of: dict[str, list[int]]) -> dict[tuple[str, int], str]:
    """What the quarantine says of the wanted rows of one block."""
    url = files.join(subject.mix, "quarantine", f"part-{number:05d}.parquet")
    if not files.exists(url):
        return {}
    table = files.read_table(url, ["file", "row", "detail"])
    known = pc.and_(pc.is_in(table["file"], pa.array(list(rows_of), pa.string())), pc.is_valid(table["row"]))
    table = table.filter(known)
    some = np.isin(table["row"].to_numpy(), sorted({row for rows in rows_of.values() for row in rows}))
    lines = table.filter(pa.array(some)).to_pylist()
    return {(line["file"], line["row"]): line["detail"] for line in lines if line["row"] in rows_of[line["file"]]}


def _leave(step: Step, name: str, table: pa.Table) -> None:
    files.write_bytes(step.file(f"{name}.parquet"), parquet_bytes(table))
