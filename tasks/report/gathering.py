"""What a report takes from one block of input files: first what there is to choose from, then what was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.exchange import Gathering, spill
from storage.ledger import tally
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.emit.layout import Block
from tasks.report import (
    concentration,
    concepts,
    coverage,
    cuts,
    duplicates,
    examples,
    gallery,
    pictures,
    scores,
    sources,
    utility,
    weighed,
)
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


def lay_out(subject: Subject, blocks: list[Block]) -> None:
    """Leave behind where each file lies, and which file a shard's number means."""
    _leave(subject.step, "files", duplicates.file_places(blocks))
    own = [shard for block in blocks for shard, _ in subject.own(block)]
    files.write_json(subject.step.file("shards.json"), {shard.index: shard.file for shard in own})


def survey(subject: Subject, block: Block) -> None:
    """Leave behind the block's tally, concept counts, weights, score ranges, rows by keeper, gallery candidates."""
    number, step = block[0], subject.step
    ledger = subject.ledger(number, (*dict.fromkeys((*gallery.NEEDED, *duplicates.NEEDED)), "times_used"))
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
    spill(step, "groups", f"{number:05d}", [duplicates.by_keeper(ledger, subject.stages, step.read("files"))])
    ranges = cuts.spans(subject, block)
    told = {"offered": _offered(subject, block), "weights": concentration.survey(subject, block, uses)}
    step.commit(f"survey-{number:05d}", tally=tally(ledger), spans=spans, sizes=sizes, ranges=ranges, **told)


def _offered(subject: Subject, block: Block) -> list[list[int]] | None:
    """Draws of the block by group and steps; None where there is only one group, or no batch."""
    how, digests = subject.picking, [shard.digest for shard, _ in subject.own(block)]
    if not how.sources or not subject.steps:
        return None
    first = sources.bins_of(sum(subject.parts), subject.steps)
    return sources.candidates(how.mixed, digests, [one for one, _ in how.sources], first, how.superbatch)


def measure(subject: Subject, block: Block, block_count: int) -> None:
    """Leave behind the sizes of the groups whose keeper lies in the block, and those that may be shown."""
    number, shards, step = *block, subject.step
    counts = Gathering(step, "groups", [f"{one:05d}" for one in range(block_count)]).gather(number)
    found, sizes = [duplicates.GROUPS.empty_table()], {}
    known = duplicates.COUNTS.empty_table() if counts is None else counts
    for stage, size, candidates in duplicates.measured(known, shards, len(subject.stages)):
        sizes[str(stage)] = [size.size.tolist(), size.groups.tolist()]
        found.append(candidates)
    _leave(step, f"groups-{number:05d}", pa.concat_tables(found))
    step.commit(f"measured-{number:05d}", sizes=sizes)


def choose(subject: Subject, block_count: int, marks: dict[str, list[float]]) -> dict[str, Any]:
    """What all blocks are to show: `galleries`, `groups` (of duplicates), `sizes` of groups by stage, `edges` of the
    bins by score, `ranges` by select, `coverage` of the batches, `utility` of the draws, `sources` of the batches and
    the weights in the mix, `mixed` (None if nothing is known), and `more` and `less`: the concepts of which examples
    are to be found. `marks` are the cuts to be drawn by score.

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
    chosen |= _groups(subject, numbers)
    chosen |= {"utility": _utility(subject), "sources": _sources(subject, numbers), "mixed": _mixed(subject, numbers)}
    told = [step.facts(f"survey-{number:05d}") for number in numbers]
    for name in subject.scores:
        spans = [scores.Span(*one["spans"][name]) for one in told if one["spans"][name]]
        chosen["edges"][name] = scores.edges(spans, marks.get(name, [])).tolist()
    return chosen | {"ranges": cuts.ranges([one["ranges"] for one in told])}


def _utility(subject: Subject) -> dict[str, Any] | None:
    """What the sampler's values say, with `rows`: those at their ends, `highest` and `lowest`."""
    how, parts = subject.picking, subject.parts
    told = utility.found(subject.sample, parts, subject.steps, how.superbatch, how.micro_batch)
    if told is None:
        return None
    names = files.read_json(subject.step.file("shards.json"))
    ends = utility.extremes(subject.sample, parts, subject.settings.gallery_rows, lambda index: names[str(index)])
    facts = {"kind": how.kind, "micro_batch": how.micro_batch, "taken": how.taken, "alpha": how.alpha}
    return told | facts | {"rows": {end: [one._asdict() for one in some] for end, some in ends.items()}}


def _mixed(subject: Subject, numbers: range) -> dict[str, Any] | None:
    """How the weight of the mix is spread; None of an empty one."""
    how, step = subject.weighing, subject.step
    surveys = [step.facts(f"survey-{number:05d}")["weights"] for number in numbers]
    weights = concentration.gather(subject, len(numbers), surveys)
    plan = subject.picking.mixed.done()
    return weighed.told(weights, plan, subject.picking, (how.cells, how.bits) if how.cells else None)


def _sources(subject: Subject, numbers: range) -> dict[str, Any] | None:
    """Shares of the groups over steps; None where there is only one, or no batch."""
    how, steps = subject.picking, subject.steps
    if not how.sources or not steps:
        return None
    shown, names = zip(*how.sources, strict=True)
    offered = [subject.step.facts(f"survey-{number:05d}")["offered"] for number in numbers]
    first = sources.bins_of(sum(subject.parts), steps)
    taken = sources.picks(subject.sample, subject.parts, shown, first)
    return sources.told(names, how.groups - len(names), offered, taken, first)


def _groups(subject: Subject, numbers: range) -> dict[str, Any]:
    """Sizes of the groups of duplicates by stage, as they are told, and those that are to be shown."""
    step, stages = subject.step, subject.stages
    parts: dict[int, list[duplicates.Sizes]] = {}
    for number in numbers:
        for stage, pair in step.facts(f"measured-{number:05d}")["sizes"].items():
            parts.setdefault(int(stage), []).append(duplicates.Sizes(*(np.array(one, np.int64) for one in pair)))
    sizes = {stage: duplicates.summed(found) for stage, found in parts.items()}
    medians = {stage: duplicates.median(one) for stage, one in sizes.items()}
    found = [duplicates.GROUPS.empty_table(), *(step.read(f"groups-{number:05d}") for number in numbers)]
    groups = duplicates.choose(pa.concat_tables(found), medians, stages, subject.settings.gallery_rows)
    return {"groups": groups, "sizes": {stages[stage]: duplicates.told(one) for stage, one in sizes.items()}}


def wants_rows(chosen: dict[str, Any]) -> bool:
    """Whether there are rows to be found for what was chosen."""
    return bool(chosen["more"] or chosen["less"] or chosen["groups"])


def find(subject: Subject, block: Block) -> None:
    """Leave behind the rows of the block that may show the chosen groups, and the concepts that changed the most."""
    number, step, chosen = block[0], subject.step, files.read_json(subject.step.file("chosen.json"))
    names = (*examples.NEEDED, *duplicates.NEEDED, "reason", "score")
    ledger = subject.ledger(number, names)
    _leave(step, f"members-{number:05d}", duplicates.members(ledger, chosen["groups"]))
    found = [examples.CANDIDATES.empty_table()]
    for shard, at in subject.own(block) if chosen["more"] or chosen["less"] else []:
        column, mine = subject.view.table(shard, ("concepts",))["concepts"], ledger.slice(at, shard.rows)
        found.append(examples.candidates(column, mine, chosen["more"], chosen["less"]))
    _leave(step, f"examples-{number:05d}", pa.concat_tables(found))


def choose_examples(subject: Subject, block_count: int) -> dict[str, Any]:
    """What `choose` chose, with `examples`: concept -> the rows that show it, and `members` of the groups, [file, row]
    each. Rows for which another one stands are shown beside it alone: their reasons have no gallery.
    """
    chosen: dict[str, Any] = files.read_json(subject.step.file("chosen.json"))
    step, numbers = subject.step, range(block_count if wants_rows(chosen) else 0)
    found = [examples.CANDIDATES.empty_table(), *(step.read(f"examples-{number:05d}") for number in numbers)]
    members = [duplicates.ROWS.empty_table(), *(step.read(f"members-{number:05d}") for number in numbers)]
    groups = duplicates.with_members(chosen["groups"], pa.concat_tables(members))
    grouped = {(group["stage"], group["reason"]) for group in groups}
    galleries = [one for one in chosen["galleries"] if (one["stage"], one["reason"]) not in grouped]
    return chosen | {"examples": examples.choose(pa.concat_tables(found)), "groups": groups, "galleries": galleries}


def collect(subject: Subject, block: Block) -> None:
    """Leave behind what was chosen of the block: histograms, what is shown of rows."""
    number, step, chosen = block[0], subject.step, files.read_json(subject.step.file("shown.json"))
    ledger = subject.ledger(number, FATE)
    uses = ledger["times_used"].to_numpy()
    counted = []
    for shard, at in subject.own(block):
        for name, edges in chosen["edges"].items():
            if edges:
                weights = uses[at : at + shard.rows]
                values_, bounds = values(subject.view, shard, name), np.array(edges)
                counted.append({name: scores.histogram(values_, weights, bounds)})
    _leave(step, f"items-{number:05d}", _items(subject, block, ledger, wanted(chosen)))
    decided = cuts.counted(subject, block, {label: one["edges"] for label, one in chosen["ranges"].items()})
    step.commit(f"collected-{number:05d}", histograms=scores.merge(counted), decided=decided)


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
    extremes = chosen["utility"]["rows"].values() if chosen["utility"] else ()
    ends = [[(one["file"], one["row"]) for one in some] for some in extremes]
    for rows in [*(one["rows"] for one in chosen["galleries"]), *groups, *chosen["examples"].values(), *ends]:
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
