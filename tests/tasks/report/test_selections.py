"""What the page shows of the selects: strips, sizes, curves, classes; of older facts what they have."""

from __future__ import annotations

import copy
import math

import pytest
from parsed import EVIL, Tags, words

from tasks.report import html, markdown, selections, svg


def section(page):
    return page[page.index('<section id="selects">') :].split("</section>")[0]


def test_tells_groups_cuts_and_classes(selects, thumbnails):
    page = html.render(selects, thumbnails)
    assert Tags(page).open == [] and page.count('href="#selects"') == 1
    text = words(section(page))
    for expected in (
        "select/near_duplicates 2,437 of 4,047 rows kept",
        "1,830 rows are 220 groups, keepers counted; the largest: 36; 28",
        "2 99 3 120 4 – 36 1",
        "rows with this similarity or more go; now at 0.98. About: rows stand in groups",
        "rows with this importance or more are kept, those below go. About: as if one cut held for all",
        "3 rows lie beyond the range",
        "Importance by class GAIS-style (reconstructed)",
        "least, quartiles, median and most of the importance, from 0 to 1",
        "flags 150 200 one 1 1 7 more 1,849 2,236",
    ):
        assert expected in text, expected
    assert "threshold" not in text  # there is nothing to show of it
    assert 'aria-label="0, 0.2, 0.25, 0.5, 1"' in page
    assert "select/gais 2,000 target 2,000 rows: 2,000 rows are kept" in words(page)
    assert "- select/gais: target 2,000 rows: 2,000 rows are kept" in markdown.card(selects).replace("\\", "")


def test_strips_begin_with_the_row_that_is_kept(selects, thumbnails):
    found = section(html.render(selects, thumbnails))
    strips = found.split('<div class="group">')[1:]
    assert len(strips) == 8
    titles = [words(strip.split("</p>")[0]) for strip in strips]
    assert (
        titles
        == ["36 rows, one of the largest"] * 2 + ["3 rows, the median size"] * 3 + ["3 rows, picked at random"] * 3
    )
    for strip in strips:
        assert strip.index('class="badge">kept<') < strip.index("similarity 0.25") and strip.count("badge") == 1
        assert strip.count("<img") == strip.count('alt="caption ') == 3
        assert ("and 33 more" in strip) == ("one of the largest" in strip) and strip.count(" more</span>") <= 1


@pytest.mark.parametrize(
    ("most", "why"), [(0, []), (1, ["one of the largest"]), (2, ["one of the largest", "the median size"])]
)
def test_fewer_strips_by_the_settings(selects, thumbnails, most, why):
    selects["settings"]["gallery_rows"] = most
    found = section(html.render(selects, thumbnails))
    assert found.count('<div class="group">') == most and all(words_ in found for words_ in why)
    assert "Sizes of the groups" in found


def test_groups_of_one_size_are_no_examples_of_sizes(selects):
    selects["selects"][0]["sizes"] |= {"largest": [2, 2], "median": 2}
    assert "the median size" not in section(html.render(selects, {}))


def test_texts_alone(selects):
    selects |= {"pictured": False}
    found = section(html.render(selects, {}))
    assert "<img" not in found and 'class="frame' not in found
    assert 'class="group words"' in found and "caption 4" in found and "and 33 more" in found


def test_a_keeper_that_a_later_stage_drops(selects):
    selects["duplicates"][0] = copy.deepcopy(selects["duplicates"][0])
    selects["duplicates"][0]["keeper"] |= {"outcome": "dropped", "reason": "tail"}
    assert section(html.render(selects, {})).count("later tail") == 1


def test_summaries_of_older_versions(summary, thumbnails):
    """They name groups, without what they are examples of, and nothing else."""
    found = section(html.render(summary, thumbnails))
    assert "Sizes of the groups" not in found and "<svg" not in found and "<table" not in found
    assert "13 rows</p>" in found and "and 10 more" in found and found.count("<img") == 3
    summary["duplicates"] *= 20
    assert section(html.render(summary, thumbnails)).count('<div class="group">') == 8
    assert "target" not in markdown.card(summary)
    summary["duplicates"] = []
    assert "#selects" not in html.render(summary, thumbnails)


@pytest.mark.parametrize("place", ["stage", "class", "met", "caption", "key"])
def test_nothing_can_inject_html(selects, thumbnails, place):
    selects["duplicates"] = copy.deepcopy(selects["duplicates"])
    clean = [tag for tag, _ in Tags(html.render(selects, thumbnails)).tags]
    match place:
        case "stage":
            for one in (selects["selects"][0], *selects["duplicates"]):
                one["stage"] = EVIL
        case "class":
            selects["selects"][1]["classes"]["shown"][0]["name"] = EVIL
        case "met":
            selects["selects"][1]["met"] = EVIL
        case _:
            selects["duplicates"][0]["members"][0][place] = EVIL
    page = html.render(selects, thumbnails)
    parsed = Tags(page)
    assert sorted(tag for tag, _ in parsed.tags) == sorted(clean)
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert "<script" not in page and "alert(" in parsed.text + str(parsed.tags)
    assert "<script" not in markdown.card(selects)


@pytest.mark.parametrize("score", [None, [math.nan] * 5, [-math.inf, 0, 0, 0, 1], [2, 2, 2, 2, 2]])
def test_classes_without_a_range_of_scores(selects, score):
    for one in selects["selects"][1]["classes"]["shown"]:
        one["score"] = score
    (_, gais) = selections.shown(selects)
    assert gais["boxes"]["scored"] is False and 'class="box"' not in html.render(selects, {})


def test_widths_and_places_are_shares(selects):
    (_, gais) = selections.shown(selects)
    flags, one = gais["boxes"]["shown"]
    assert flags["at"] == ["0.00", "20.00", "25.00", "50.00", "100.00"] and one["at"] is None
    assert (flags["rows_width"], flags["kept_width"], one["rows_width"]) == ("100.00", "75.00", "0.50")


@pytest.mark.parametrize(
    ("points", "cut", "kept"),
    [
        ([[0.9, 10], [0.95, 12], [1.0, 12]], 0.95, 12),
        ([[0, 5], [1, 0]], None, 5),
        ([[1, 7], [1, 7]], 1, 7),
        ([[0, 0], [2, 3]], 9, 3),
    ],
)
def test_drawings_stay_within_their_frame(points, cut, kept):
    drawing = svg.kept_by_cut(points, cut, kept)
    assert drawing.count('class="cut"') == 1 + (cut is not None)
    line = drawing.split('polyline class="after" points="')[1].split('"')[0]
    for place in line.split():
        x, y = map(float, place.split(","))
        assert svg.LEFT - 0.1 <= x <= svg.WIDTH - svg.RIGHT + 0.1 and svg.TOP <= y <= svg.HEIGHT - svg.BOTTOM + 0.1
