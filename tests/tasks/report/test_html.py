"""The report: what it says, that it stands alone, and that nothing in the data can write HTML into it."""

from __future__ import annotations

import copy
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tasks.report import charts, html

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def funnel_row(stage, kind, rows_in, dropped=0, quarantined=0, reasons=None):
    kept = rows_in - dropped - quarantined
    counts = {"rows_in": rows_in, "kept": kept, "dropped": dropped, "quarantined": quarantined}
    return {"stage": stage, "kind": kind, **counts, "reasons": reasons or {}}


@pytest.fixture
def summary():
    names = [f"concept {i}" for i in range(12)]
    before = (3000 / np.arange(1, 13)).astype(int).tolist()
    return {
        "name": "demo",
        "version": "3f9a1c07",
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
        "batches": {"steps": 16, "batch_size": 64, "world_size": 2, "superbatch": 320},
        "groups": [
            {"group": "flags", "rows": 270, "intended": 0.25, "achieved": 0.2},
            {"group": "people", "rows": 2418, "intended": 0.75, "achieved": 0.8},
        ],
        "concepts": {
            "names": names,
            "before": before,
            "after": [0, *before[1:]],
            "distinct_before": 12,
            "distinct_after": 11,
        },
        "notes": ["The embedder has random weights."],
        "seconds": {"ingest": 1.25, "embed": 14.0},
        "rows_per_second": {"ingest": 3240.0},
        "config_yaml": "name: demo\nseed: 7\n",
    }


class Tags(HTMLParser):
    """Every tag with its attributes, and the visible text; tags must nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_says_the_numbers(summary):
    page = Tags(html.render(summary))
    assert page.open == []
    text = " ".join(page.text.replace("\u200b", "").split())
    for expected in ("4,050", "3,237", "79.9 %", "1,024", "near_duplicate 1,610", "80.0 %", "seed 7", "random weights"):
        assert expected in text
    assert "16 batches of 64 rows over 2 ranks, each picked from 320 draws" in text
    assert "12 distinct concepts in the input, 11 in the mix" in text
    assert "not_drawn" not in text  # reasons that no row has are left out
    assert "name: demo\nseed: 7\n" in page.text


def test_stands_alone_and_repeats(summary):
    page = html.render(summary)
    assert page == html.render(copy.deepcopy(summary))
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object"} == set()
    sources = [value for _, attributes in tags for key, value in attributes.items() if key in ("src", "srcset", "href")]
    assert len(sources) == 4 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


@pytest.mark.parametrize(
    "place", ["name", "version", "note", "stage", "kind", "reason", "group", "concept", "config", "time"]
)
def test_nothing_can_inject_html(summary, place, monkeypatch):
    for chart in ("funnel_png", "concepts_png"):  # base64 either way: drawn in the other tests
        monkeypatch.setattr(html, chart, lambda *_, **__: b"png")
    clean = [tag for tag, _ in Tags(html.render(summary)).tags]
    row = summary["funnel"][1]
    match place:
        case "name" | "version":
            summary[place] = EVIL
        case "note":
            summary["notes"] = [EVIL]
        case "stage" | "kind":
            row[place] = EVIL
        case "reason":
            row["reasons"] = {EVIL: 3}
        case "group":
            summary["groups"][0]["group"] = EVIL
        case "concept":
            summary["concepts"]["names"][0] = EVIL
        case "config":
            summary["config_yaml"] = EVIL
        case "time":
            summary["seconds"] = {EVIL: 1.0, "embed": 2.0}
    page = html.render(summary)
    parsed = Tags(page)
    assert [tag for tag, _ in parsed.tags] == clean
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert "<script" not in page and "alert(" in parsed.text
    assert "<script" not in html.markdown(summary) and "<img" not in html.markdown(summary)


def test_leaves_out_what_there_is_not(summary):
    summary |= {"concepts": None, "groups": [], "funnel": [], "notes": [], "seconds": {}, "rows_in": 0, "emitted": 0}
    summary["outcomes"] = {"kept": 0, "dropped": 0, "quarantined": 0}
    page = html.render(summary)
    assert "Concepts" not in page and "Shares" not in page and "<img" not in page
    assert "0 rows in 16 batches" in html.markdown(summary)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("draw", [html.funnel_png, html.concepts_png])
def test_charts_are_pngs_and_repeat(summary, draw, dark):
    data = draw(summary, dark=dark)
    assert data == draw(summary, dark=dark)
    assert data != draw(summary, dark=not dark)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG" and 700 < image.width < 1000 and image.height > 100


@pytest.mark.filterwarnings("error")
def test_charts_draw_any_text_and_any_count(summary):
    names = ["$x_1$ \\frac{", "日本語", "a\nb\x00", "🙂", "é" * 99, "", EVIL]
    summary["concepts"] |= {"names": names, "before": [10**12, 5, 4, 3, 2, 1, 1], "after": [0] * 7}
    summary["funnel"][0] |= {"stage": "$\\frac{", "kept": 10**12}
    html.concepts_png(summary)
    html.funnel_png(summary)
    summary["concepts"] |= {"names": [], "before": [], "after": []}
    html.concepts_png(summary)
    assert "12 distinct concepts" in html.render(summary)


def test_top_concepts_are_the_most_frequent_of_the_input():
    concepts = {"names": ["d", "a", "b", "c"], "before": [1, 5, 9, 5], "after": [8, 2, 0, 2]}
    assert charts.top_concepts(concepts, 3) == [("b", 9, 0), ("a", 5, 2), ("c", 5, 2)]


def test_markdown_card(summary):
    summary["groups"][0]["group"] = "a|b\n# c"
    card = html.markdown(summary)
    assert card.startswith("# demo `3f9a1c07`\n\n1,024 rows in 16 batches of 64, seed 7.\n")
    assert "| kept | 810 | 20.0 % |" in card
    assert card.index("| near_duplicate | 1,610 |") < card.index("| not_picked | 1,600 |") < card.index("| tail | 27 |")
    assert "| a\\|b \\# c | 25.0 % | 20.0 % |" in card
    assert len(card) < 2000
