"""A summary as a run makes it, for the tests of pages, charts and cards."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from accounts import batches, labels
from PIL import Image

from tasks.report import concepts, coverage

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def funnel_row(stage, kind, rows_in, dropped=0, quarantined=0, reasons=None):
    kept = rows_in - dropped - quarantined
    counts = {"rows_in": rows_in, "kept": kept, "dropped": dropped, "quarantined": quarantined}
    return {"stage": stage, "kind": kind, **counts, "reasons": reasons or {}}


def item(row, **changes):
    line = {"file": "a/0.parquet", "row": row, "outcome": "dropped", "reason": "near_duplicate", "times_used": 0}
    line |= {"bytes": 900, "score": 0.25, "head": None, "key": f"key-{row}", "caption": f"caption {row}", "told": None}
    return line | {"detail": None} | changes


def webp(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "WEBP")
    return sink.getvalue()


@pytest.fixture
def thumbnails():
    return {f"a/0.parquet:{row}": webp(row) for row in range(6)}


@pytest.fixture
def summary():
    before = (3000 / np.arange(1, 13)).astype(int)
    counts = pa.table([[f"concept {i}" for i in range(12)], before, [0, *before[1:]]], schema=concepts.COUNTS)
    kept = [item(row, outcome="kept", reason=None, score=None, times_used=row + 1) for row in range(3)]
    bad = item(9, outcome="quarantined", reason="undecodable_image", head=b"<!DOCTYPE".hex(), told="no picture format")
    return {
        "name": "demo",
        "version": "3f9a1c07",
        "created": "2026-11-21 13:57 UTC",
        "seed": 7,
        "rows_in": 4050,
        "funnel": [
            funnel_row("ingest", "parquet", 4050),
            funnel_row("embed", "open_clip", 4050, 0, 3, {"undecodable_image": 3}),
            funnel_row("select/near_duplicates", "near_duplicates", 4047, 1610, 0, {"near_duplicate": 1610}),
            funnel_row("sample", "cabs_dm", 2437, 1627, 0, {"not_drawn": 0, "not_picked": 1600, "tail": 27}),
        ],
        "outcomes": {"kept": 810, "dropped": 3237, "quarantined": 3},
        "emitted": 1024,
        "files": [{"file": "b/1.parquet", "reason": "damaged_file", "detail": "no magic bytes (at byte 12)"}],
        "batches": {"steps": 16, "batch_size": 64, "world_size": 2, "superbatch": 320},
        "groups": [
            {"group": "flags", "rows": 270, "intended": 0.25, "achieved": 0.2},
            {"group": "people", "rows": 2418, "intended": 0.75, "achieved": 0.8},
        ],
        "concepts": concepts.told(counts, 500),
        "scores": [
            {
                "name": "alignment",
                "edges": [0.0, 0.1, 0.2, 0.3],
                "before": [10, 20, 10],
                "after": [0, 5, 7],
                "outside": [2],
                "cuts": [{"stage": "select/threshold", "score": "alignment", "value": 0.1}],
            }
        ],
        "galleries": [
            {"outcome": "kept", "stage": "", "reason": "", "rows": 810, "items": kept},
            {"outcome": "quarantined", "stage": "embed", "reason": "undecodable_image", "rows": 3, "items": [bad]},
        ],
        "duplicates": [
            {
                "stage": "select/near_duplicates",
                "reason": "near_duplicate",
                "dropped": 12,
                "keeper": item(3, outcome="kept", reason=None),
                "members": [item(4), item(5)],
            }
        ],
        "pictured": True,
        "notes": ["The embedder has random weights; see `embed.pretrained`."],
        "seconds": {"ingest": 1.25, "embed": 14.0},
        "stages": [
            {"stage": "ingest", "seconds": 1.25, "rows": 4050, "read": 8_000_000, "written": 120_000},
            {"stage": "embed", "seconds": None, "rows": 4050, "read": None, "written": None},
        ],
        "machine": "Linux x86_64, 2 cores, 8 GiB of memory, Python 3.11.7",
        "versions": {"mixwright": "0.1.0", "numpy": "2.0"},
        "settings": {"top_concepts": 40, "gallery_rows": 12, "thumbnail_pixels": 128},
        "config_yaml": "name: demo\nseed: 7\n",
    }


def selected(stage, kind, rows, kept, **more):
    facts = {"stage": stage, "kind": kind, "rows": rows, "kept": kept, "met": "", "classes": None, "sizes": None}
    return facts | {"curve": None} | more


@pytest.fixture
def selects(summary):
    """The summary of a run whose selects tell of groups, cuts and classes; `summary` is like that of an older version."""
    summary["funnel"].insert(3, funnel_row("select/gais", "gais", 2437, 437, 0, {"less_important": 437}))
    sizes = {
        "groups": 220,
        "rows": 1830,
        "median": 3,
        "largest": [36, 28],
        "bins": [[2, 2, 99], [3, 3, 120], [4, 36, 1]],
    }
    curve = {
        "above": True,
        "cut": 0.98,
        "points": [[0.95, 2000], [0.98, 2437], [1.0, 2437]],
        "about": "groups",
        "outside": 0,
    }
    group = summary["duplicates"].pop()
    for why, dropped in (("largest", 35), ("typical", 2), ("random", 2)):
        summary["duplicates"] += [group | {"why": why, "dropped": dropped, "reason": "near_duplicate"}] * 3
    shown = [{"name": "flags", "rows": 200, "kept": 150, "score": [0.0, 0.2, 0.25, 0.5, 1.0]}]
    shown += [{"name": "one", "rows": 1, "kept": 1, "score": None}]
    summary["selects"] = [
        selected("select/near_duplicates", "near_duplicates", 4047, 2437, sizes=sizes, curve=curve),
        selected(
            "select/gais",
            "gais",
            2437,
            2000,
            met="target 2,000 rows: 2,000 rows are kept",
            curve=curve | {"above": False, "cut": None, "about": "classes", "outside": 3},
            classes={"shown": shown, "others": 7, "rows": 2236, "kept": 1849},
        ),
        selected("select/threshold", "threshold", 2000, 2000),
    ]
    return summary


@pytest.fixture
def covered(summary):
    """The summary of a run with a concept-aware sampler; `summary` alone is like that of an older version."""
    told = coverage.thinned([batches(1000, fill=3)], 1000) | {"labels": coverage.distribution(labels(), 500)}
    summary["coverage"] = told | {"capped": True}
    for at, one in enumerate([*summary["concepts"]["more"], *summary["concepts"]["less"]]):
        one["examples"] = [item(at % 6), item(77, told="no picture")]
    return summary
