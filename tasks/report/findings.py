"""What the blocks of a report have left behind, put together: JSON-ready facts, and pictures by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from storage import files
from storage.steps import Step
from tasks.report import concepts, cuts, scores
from tasks.report.costs import stored
from tasks.report.gathering import ITEMS
from tasks.report.subject import Subject
from tasks.report.wording import clean

CAPTION = 240
NAME = 160
PICTURE_BYTES = 6_000_000
"""Most bytes of pictures in a report; base64 in the page makes a third more of it."""

Shown = dict[tuple[str, int], dict[str, Any]]
"""(file, row) -> what is shown of it."""


def found(subject: Subject, block_count: int, summary: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`concepts`, `coverage`, `utility`, `sources`, `mixed`, `scores`, `galleries`, `duplicates`, `selects`; pictures.

    Args:
        subject: What the report is about.
        block_count: Blocks that were surveyed and collected.
        summary: For the rows behind each reason (`funnel`, `outcomes`), for `cuts`, and for what selects say.

    Returns:
        The facts, and WebP pictures by `file:row`.
    """
    step, numbers = subject.step, range(block_count)
    chosen = files.read_json(step.file("shown.json"))
    collected = [step.facts(f"collected-{number:05d}") for number in numbers]
    items = pa.concat_tables([ITEMS.empty_table(), *(step.read(f"items-{number:05d}") for number in numbers)])
    shown: Shown = {(line["file"], line["row"]): line for line in items.to_pylist()}
    galleries = [_gallery(one, summary, shown) for one in chosen["galleries"]]
    groups = [_group(one, shown) for one in chosen["groups"]]
    told: dict[str, Any] = {"galleries": galleries, "duplicates": groups, "concepts": None}
    told["selects"] = _selects(summary, chosen, scores.merge(one["decided"] for one in collected))
    told["coverage"] = chosen["coverage"] and chosen["coverage"] | {"capped": subject.capped}
    told |= {"utility": _utility(chosen["utility"], shown), "sources": chosen["sources"], "mixed": chosen["mixed"]}
    examples: list[dict[str, Any]] = []
    if "concepts" in subject.view.sidecars:
        most = max(subject.settings.top_concepts, concepts.MOST_NAMED)
        told["concepts"] = concepts.told(step.read("concepts"), most)
        for one in (*told["concepts"]["more"], *told["concepts"]["less"]):
            rows = chosen["examples"].get(one["concept"], [])
            one["examples"] = [_item(shown[(file, row)]) for file, row in rows]
            examples += one["examples"]
    told["scores"] = _scores(chosen["edges"], scores.merge(one["histograms"] for one in collected), summary["cuts"])
    items_shown = [item for one in galleries for item in one["items"]]
    items_shown += [item for one in groups for item in (one["keeper"], *one["members"])]
    ends = [item for some in (told["utility"] or {"rows": {}})["rows"].values() for item in some]
    return told, _thumbnails(items_shown + ends + examples, shown)


def _thumbnails(items: list[dict[str, Any]], shown: Shown) -> dict[str, bytes]:
    """Pictures by name in the order of the page, as many as fit."""
    chosen: dict[str, bytes] = {}
    left = PICTURE_BYTES
    for item in items:
        name, picture = f"{item['file']}:{item['row']}", shown[(item["file"], item["row"])]["picture"]
        if picture and name not in chosen and len(picture) <= left:
            chosen[name] = picture
            left -= len(picture)
    return chosen


def _scores(edges: dict[str, list[float]], counted: dict[str, Any], cuts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "edges": edges[name], **counted[name], "cuts": [cut for cut in cuts if cut["score"] == name]}
        for name in edges
        if name in counted
    ]


def _gallery(chosen: dict[str, Any], summary: dict[str, Any], shown: Shown) -> dict[str, Any]:
    facts = {key: chosen[key] for key in ("outcome", "stage", "reason")}
    total = summary["outcomes"]["kept"]
    if chosen["outcome"] != "kept":
        reasons = {row["stage"]: row["reasons"] for row in summary["funnel"]}
        total = reasons.get(chosen["stage"], {}).get(chosen["reason"], len(chosen["rows"]))
    return facts | {"rows": total, "items": [_item(shown[(file, row)]) for file, row in chosen["rows"]]}


def _utility(chosen: dict[str, Any] | None, shown: Shown) -> dict[str, Any] | None:
    """What was found of the sampler's values, its `rows` with what is shown of them."""
    if chosen is None:
        return None
    rows = {
        end: [_item(shown[(one["file"], one["row"])]) | one for one in some] for end, some in chosen["rows"].items()
    }
    return chosen | {"rows": rows}


def _selects(summary: dict[str, Any], chosen: dict[str, Any], decided: dict[str, Any]) -> list[dict[str, Any]]:
    """What is told of each select, and of `ingest` where a file stands for others: {stage, kind, rows, kept, met,
    classes, sizes, curve}, the last three None where there is nothing to tell.
    """
    known = [one for one in summary["funnel"] if one["stage"] == "ingest" and "ingest" in chosen["sizes"]]
    selects = [{"stage": "ingest", "kind": "", "rows": one["rows_in"], "kept": one["kept"]} for one in known]
    found = []
    for one in [*({**line, "cut": None, "met": "", "classes": None} for line in selects), *summary["selects"]]:
        stage, facts = one["stage"], {name: value for name, value in one.items() if name != "cut"}
        bins, known_ = decided.get(stage), chosen["ranges"].get(stage)
        facts["curve"] = cuts.curve(one, known_, bins) if bins and known_ else None
        found.append(facts | {"sizes": chosen["sizes"].get(stage)})
    return found


def _group(chosen: dict[str, Any], shown: Shown) -> dict[str, Any]:
    keeper = shown[(chosen["keeper"][0], chosen["keeper"][1])]
    members = [_item(shown[(file, row)]) for file, row in chosen["members"]]
    facts = {key: chosen[key] for key in ("stage", "reason", "why", "dropped")}
    return facts | {"keeper": _item(keeper), "members": members}


def _item(line: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of one row, its texts of bounded length."""
    item = {name: line[name] for name in ("file", "row", "outcome", "reason", "times_used", "bytes")}
    item["score"] = line["score"] if line["score"] is not None and math.isfinite(line["score"]) else None
    item["head"] = line["head"].hex() if line["head"] else None
    for name, most in (("key", NAME), ("caption", CAPTION), ("told", NAME), ("detail", NAME)):
        item[name] = None if line[name] is None else clean(line[name], most)
    return item


def costs(summary: dict[str, Any], steps: Sequence[tuple[str, Step]], digests: Sequence[str]) -> list[dict[str, Any]]:
    """Time, rows and bytes of every stage: {stage, seconds, rows, read, written}; None where it is not known.

    Args:
        summary: For `seconds`, `funnel`, `read` (bytes of pictures and captions by stage) and `emitted_bytes`.
        steps: Stage and its step in the store; several steps of one stage add up.
        digests: Of the shards of this run.
    """
    written: dict[str, int] = {"emit": summary["emitted_bytes"]}
    for label, step in steps:
        stage = label.split("#")[0]
        written[stage] = written.get(stage, 0) + stored(step, digests)
    rows: dict[str, int] = {}
    for row in summary["funnel"]:
        stage = row["stage"].split("#")[0]
        rows[stage] = rows.get(stage, 0) + row["rows_in"]
    rows["emit"] = summary["emitted"]
    return [
        {
            "stage": stage,
            "seconds": summary["seconds"].get(stage),
            "rows": rows.get(stage),
            "read": summary["read"].get(stage),
            "written": written.get(stage),
        }
        for stage in dict.fromkeys([*rows, *summary["seconds"]])
    ]
