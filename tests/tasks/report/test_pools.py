"""What the page shows of the select `pools`: curves, crossings, buckets; nothing of strangers' text gets in."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from parsed import EVIL, Tags, words

from configs.methods.pools import Pools as Config
from storage.states import Checkpoint
from tasks.report import html, markdown, pools, svg
from tasks.select.pools import Pools

LAW = {"utilities": [-0.20, -0.17, -0.14, -0.12], "half_lives": [1.5, 2.5, 4, 6], "scale": 2e4, "floor": 0.1}


@pytest.fixture
def told():
    """The facts of a fitted select of 4 buckets of 100 rows."""
    ids = np.arange(400).astype("<u8")
    packed = np.column_stack([ids, ids]).view("u1").reshape(400, 16)
    uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), 400, [None, pa.py_buffer(packed.tobytes())])
    method = Pools(Config(score="s", buckets=4, samples_seen=1000, **LAW), seed=0)
    rows = pa.table({"s": pa.array(ids / 400, pa.float32()), "uid": uid})
    return pools.facts(method.fit([method.summarise(rows)], Checkpoint("memory://none")))


@pytest.fixture
def pooled(summary, told):
    """A summary with this select."""
    line = {"rows_in": 400, "kept": 200, "dropped": 200, "quarantined": 0, "reasons": {"not_in_pool": 200}}
    summary["funnel"].insert(3, {"stage": "select/pools", "kind": "pools", **line})
    one = {"stage": "select/pools", "kind": "pools", "rows": 400, "kept": 200, "met": pools.met(told)}
    return summary | {"selects": [one | {"sizes": None, "curve": None, "classes": None, "pools": told}]}


def section(page):
    return page[page.index('<section id="selects">') :].split("</section>")[0]


def test_facts_are_json_and_hold_the_choice(told):
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["best"] == 2 and [one["kept"] for one in told["buckets"]] == [True, True, False, False]
    assert told["crossings"] == [[212, 2], [1469, 3], [5877, 4]] and told["measured"] is None
    assert [one["rows"] for one in told["buckets"]] == [100] * 4
    assert told["buckets"][0]["high"] == pytest.approx(0.9975)
    assert len(told["curves"]) == 4 and all(len(curve) == len(told["samples"]) for curve in told["curves"])


def test_the_page_tells_pools_and_buckets(pooled, thumbnails):
    page = html.render(pooled, thumbnails)
    assert Tags(page).open == []
    text = words(section(page))
    for expected in (
        "select/pools 200 of 400 rows kept",
        "Best pool for 1,000 samples seen: 2 of 4 buckets, error 0.5104 predicted. From 212 samples on the pool of 2",
        "from 1,469 samples on the pool of 3 buckets is the best; from 5,877 samples on the pool of 4 buckets",
        "1 bucket 2 buckets 3 buckets 4 buckets samples seen",
        "as printed; a 20,000, d 0.1",
        "1 100 0.75 – 0.9975 -0.2 1.5 kept",
        "4 100 0 – 0.2475 -0.12 6",
    ):
        assert expected in text, expected
    assert section(page).count(">kept<") == 2 + 1 and "reconstruction" not in text  # a gallery has the other one
    assert "best pool for 1,000 samples seen" in markdown.card(pooled).lower()


def test_measured_curves_are_columns_of_the_table(pooled):
    pooled["selects"][0]["pools"] |= {"measured": {"samples": [200.0, 400.0], "errors": [[0.8, 0.75]] * 4}}
    text = words(section(html.render(pooled, {})))
    assert "a reconstruction" in text and "Half-life τ 200 400" in text and "1.5 0.8 0.75 kept" in text


def test_many_buckets_and_crossings_are_cut(pooled, told):
    told |= {"buckets": told["buckets"] * 30, "crossings": [[100 * n, 1 + n % 4] for n in range(1, 20)]}
    text = words(section(html.render(pooled, {})))
    assert "80 more buckets" in text and "and 7 more changes." in text and "4 pools are compared" in text


def test_the_drawing_has_lines_dots_and_the_budget(told):
    shown = pools.shown(told)
    root = ET.fromstring(str(shown["drawing"]))
    lines = {one.get("class"): one.get("points").split() for one in root.iter("polyline")}
    assert list(lines) == ["line s0", "line s1", "line s2", "line s3"]
    for points in lines.values():
        places = [tuple(map(float, one.split(","))) for one in points]
        assert all(svg.LEFT <= x <= svg.WIDTH - svg.RIGHT for x, _ in places)
        assert all(svg.TOP <= y <= svg.HEIGHT - svg.BOTTOM for _, y in places)
        assert [y for _, y in places] == sorted(y for _, y in places)  # errors fall
    assert len(list(root.iter("circle"))) == 3
    assert len([one for one in root.iter("line") if one.get("class") == "cut"]) == 1
    for line, (x, y) in zip(("line s0", "line s1", "line s2"), _circles(root)):
        near = min(lines[line], key=lambda one: abs(float(one.split(",")[0]) - x))
        assert abs(float(near.split(",")[1]) - y) < 3  # the old best and the new one meet there
    assert svg.errors_by_samples([], [], 10) == ""


def _circles(root):
    return [(float(one.get("cx")), float(one.get("cy"))) for one in root.iter("circle")]


def test_values_that_are_no_numbers_are_left_out(pooled, told):
    told["curves"][3] = [None] * len(told["samples"])
    told["buckets"][0] |= {"high": None, "half_life": None}
    told["errors"][1] = None
    text = words(section(html.render(pooled, {})))
    assert "0.75 – ∞ -0.2 ∞ kept" in text and "error – predicted" in pools.met(told)


def test_nothing_can_inject_html(pooled, thumbnails):
    pooled["selects"][0]["stage"] = EVIL
    pooled["selects"][0]["met"] = EVIL
    page = html.render(pooled, thumbnails)
    assert "<script" not in page and "alert(" in Tags(page).text


def test_reports_of_older_versions_have_none(summary):
    assert pools.shown(None) is None and pools.met(None) == ""
    assert "Predicted error by pool" not in html.render(summary, {})
