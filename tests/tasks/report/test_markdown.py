"""The card and the table for the UI: strangers' text is shown, never interpreted."""

from __future__ import annotations

import json

import pytest

from tasks.report import markdown


def test_card(summary):
    summary["groups"][0]["group"] = "a|b\n# c"
    card = markdown.card(summary)
    assert card.startswith("# demo `3f9a1c07`\n\n1,024 rows in 16 batches of 64, seed 7.\n")
    assert "| kept | 810 | 20.0 % |" in card
    assert card.index("| near_duplicate | 1,610 |") < card.index("| not_picked | 1,600 |") < card.index("| tail | 27 |")
    assert "| a\\|b \\# c | 25.0 % | 20.0 % |" in card
    assert "1 files are quarantined as a whole, first b/1.parquet." in card
    assert len(card) < 2000


def test_card_of_nothing(summary):
    summary |= {"concepts": None, "groups": [], "funnel": [], "notes": [], "files": [], "rows_in": 0, "emitted": 0}
    summary["outcomes"] = {"kept": 0, "dropped": 0, "quarantined": 0}
    assert "0 rows in 16 batches" in markdown.card(summary)


def test_card_tells_the_coverage(covered):
    card = markdown.card(covered)
    assert "\n\nA batch holds " in card and card.endswith("\n\n4.7 % of the rows are fill.\n")


def test_card_names_the_largest_groups_alone(summary):
    summary["groups"] = [{"group": f"g{i}", "rows": 1, "intended": 0.1, "achieved": i / 5000} for i in range(100)]
    card = markdown.card(summary)
    assert "g99 " in card and "g80 " in card and "g79 " not in card


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("[click](javascript:alert(1))", "\\[click\\](javascript:alert(1))"),
        ("![x](http://evil/x.png)", "\\!\\[x\\](http&#58;//evil/x.png)"),
        ("<javascript:alert(1)>", "&lt;javascript:alert(1)&gt;"),
        ("https://evil.example www.evil.example a@b.c", "https&#58;//evil.example www&#46;evil.example a&#64;b.c"),
        ("a `b` *c* _d_ near_duplicate", "a \\`b\\` \\*c\\* \\_d\\_ near_duplicate"),
        ("x\u202ey\nz", "x\ufffdy z"),
        ("&lt; $x$ \\", "&amp;lt; \\$x\\$ \\\\"),
    ],
)
def test_plain(text, told):
    assert markdown.plain(text) == told


def test_funnel_is_a_table_of_plain_values(summary):
    summary["funnel"][1]["reasons"] = {"a\u202eb": 2, "c": 1}
    lines = markdown.funnel(summary)
    assert lines[1]["reasons"] == "a\ufffdb 2, c 1" and lines[1]["quarantined"] == 3
    assert [line["kept"] for line in lines] == [4050, 4047, 2437, 810]
    json.dumps(lines)
