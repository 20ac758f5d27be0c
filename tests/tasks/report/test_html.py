"""The page: what it says, that it stands alone, and that nothing in the data can write HTML into it."""

from __future__ import annotations

import copy
import re

import pytest
from accounts import batches, labels
from parsed import EVIL, Tags, words

from tasks.report import coverage, html


def test_says_the_numbers(summary, thumbnails):
    page = html.render(summary, thumbnails)
    assert Tags(page).open == []
    text = words(page)
    for expected in (
        "4,050",
        "3,237",
        "79.9 %",
        "1,024",
        "−1,610 near_duplicate",
        "80.0 %",
        "seed 7",
        "random weights",
    ):
        assert expected in text, expected
    assert "16 batches of 64 rows over 2 ranks, each picked from 320 draws" in text
    assert "12 distinct concepts in the input, 11 in the mix" in text
    assert "not_drawn" not in text  # reasons that no row has are left out
    assert "1 file is quarantined as a whole" in text and "no magic bytes (at byte 12)" in text
    assert "select/threshold at 0.1" in text and "2 rows beyond the range" in text
    assert "ingest 1.25 s 4,050 3,240 8.0 MB 120.0 kB embed – 4,050 – – –" in text
    assert "13 rows kept" in text and "and 10 more" in text and "2,437 of 4,047 rows kept" in text
    assert "<!DOCTYPE" in text and "900 B" in text  # the first bytes of what is no picture
    assert "name: demo\nseed: 7\n" in Tags(page).text and "mixwright 0.1.0, numpy 2.0" in text


def test_names_the_concepts_whose_share_changed(summary, thumbnails):
    text = words(html.render(summary, thumbnails))
    assert re.search(r"Less of Input Mix Change concept 0 32\.2 % 0 % gone", text)
    assert re.search(r"More of Input Mix Change concept \d+ \S+ % \S+ % × 1\.5", text)


def test_stands_alone_runs_nothing_and_repeats(summary, thumbnails):
    page = html.render(summary, thumbnails)
    assert page == html.render(copy.deepcopy(summary), dict(thumbnails))
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "form", "base"} == set()
    sources = [a[key] for _, a in tags for key in ("src", "srcset") if key in a]
    assert len(sources) == 6 and all(source.startswith("data:image/webp;base64,") for source in sources)
    links = [a["href"] for _, a in tags if "href" in a]
    assert all(re.fullmatch(r"#[a-z]+|\.\./[a-z.]+/?|report\.json", link) for link in links)
    assert {link[1:] for link in links if link[0] == "#"} <= {a.get("id") for _, a in tags}
    assert "http" not in re.sub(r"base64,[^\"]*", "", page).replace("http-equiv", "")
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'") and "script" not in policy
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


PLACES = (
    "name version note stage kind reason group concept config time file detail caption key told head_file score cut "
    "machine duplicate changed"
)


def poison(summary, place):
    row, kept = summary["funnel"][1], summary["galleries"][0]["items"][0]
    match place:
        case "name" | "version" | "machine":
            summary[place] = EVIL
        case "note":
            summary["notes"] = [EVIL + " `" + EVIL + "`"]
        case "stage" | "kind":
            row[place] = EVIL
        case "reason":
            row["reasons"] = {EVIL: 3}
            summary["galleries"][1]["reason"] = EVIL
        case "group":
            summary["groups"][0]["group"] = EVIL
        case "concept":
            summary["concepts"]["names"][0] = EVIL
        case "changed":
            summary["concepts"]["less"][0]["concept"] = EVIL
        case "config":
            summary["config_yaml"] = EVIL
        case "time":
            summary["stages"][0]["stage"] = EVIL
        case "file":
            summary["files"][0]["file"] = EVIL
        case "detail":
            summary["files"][0]["detail"] = EVIL
        case "caption" | "key":
            kept[place] = EVIL
        case "told":
            summary["galleries"][1]["items"][0]["told"] = EVIL
        case "head_file":
            summary["galleries"][1]["items"][0] |= {"file": EVIL, "head": EVIL.encode().hex(), "key": None}
        case "score":
            summary["scores"][0]["name"] = EVIL
        case "cut":
            summary["scores"][0]["cuts"][0]["stage"] = EVIL
        case "duplicate":
            summary["duplicates"][0]["members"][0]["caption"] = EVIL


@pytest.mark.parametrize("place", PLACES.split())
def test_nothing_can_inject_html(summary, thumbnails, place):
    clean = [tag for tag, _ in Tags(html.render(summary, thumbnails)).tags]
    poison(summary, place)
    page = html.render(summary, thumbnails)
    parsed = Tags(page)
    # Words for a reason are there or not, and backticks set code; nothing else may differ.
    ours = {"code", "span", "p"}
    assert sorted(t for t, _ in parsed.tags if t not in ours) == sorted(t for t in clean if t not in ours)
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert "<script" not in page and "alert(" in parsed.text + str(parsed.tags)


def test_tells_the_coverage(covered, thumbnails):
    covered["coverage"]["mean"] |= {"concepts": 812.4, "iid_concepts": 497, "offered_concepts": 1234}
    page = html.render(covered, thumbnails)
    assert Tags(page).open == []
    text = words(page)
    assert "A batch holds 812 distinct concepts on average; an IID batch of the same draws 497: 1.6 times" in text
    assert "concepts per batch 812 IID 497, superbatch 1,234" in text and "fill 4.7 % 3,000 rows" in text
    assert 'class="tile warn"' not in page and "1,000 steps: a line is the mean of neighbouring ones" in text
    assert "Total variation distance from the target: 0.425 as offered, 0.125 as achieved. 0: the same" in text
    assert "common 80 % 37.5 % 50 %" in text and page.count('class="band"') == 2


@pytest.mark.parametrize(("fill", "warned"), [(0, False), (3, False), (4, True)])
def test_fill_above_a_twentieth_stands_out(covered, fill, warned):
    covered["coverage"] |= {"fill": fill, "rows": 64}
    page = html.render(covered, {})
    assert ('class="tile warn"' in page) is warned and ("of the rows are fill" in page) is bool(fill)


def test_examples_stand_below_their_concept(covered, thumbnails):
    page = html.render(covered, thumbnails)
    changed = page[page.index("Whose share changed") :].split("</section>")[0]
    concepts = covered["concepts"]
    some = len(concepts["more"]) + len(concepts["less"])
    assert changed.count("<img") == changed.count("no picture</span>") == changed.count('<tr class="seen">') == some > 1
    assert "used ones for more, dropped ones first for less" in changed
    covered["settings"]["gallery_rows"] = 1
    assert "no picture</span>" not in html.render(covered, thumbnails)
    covered["settings"]["gallery_rows"] = 0
    assert "<img" not in html.render(covered, thumbnails)
    covered |= {"pictured": False}
    covered["settings"]["gallery_rows"] = 12
    text = words(html.render(covered, {}))
    assert "gone caption" in text and "no picture" not in text


@pytest.mark.parametrize("place", ["label", "example", "key", "reason", "told"])
def test_nothing_can_inject_html_by_concepts(covered, thumbnails, place):
    clean = [tag for tag, _ in Tags(html.render(covered, thumbnails)).tags]
    example = covered["concepts"]["less"][0]["examples"][1]
    if place == "label":
        covered["coverage"]["labels"]["names"][0] = EVIL
    else:
        example["caption" if place == "example" else place] = EVIL
    page = html.render(covered, thumbnails)
    parsed = Tags(page)
    assert [tag for tag, _ in parsed.tags] == clean
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert "<script" not in page and "alert(" in parsed.text + str(parsed.tags)


def test_coverage_of_one_step_and_of_no_concepts(covered):
    nothing = coverage.distribution(labels((), (), (), ()), 10)
    for step, counts in ((batches(1), labels()), (batches(1, **dict.fromkeys(coverage.SERIES, 0)), None)):
        told = coverage.thinned([step], 1)
        covered["coverage"] = told | {"capped": True, "labels": coverage.distribution(counts, 9) if counts else nothing}
        page = html.render(covered, {})
        assert Tags(page).open == [] and "mean of neighbouring" not in page and 'class="band"' not in page
        assert page.count('aria-label="Distinct concepts in a batch, step by step"') == bool(counts)
    assert "No row of the draws has a concept" in page and "Offered and achieved" not in page


def test_a_sampler_without_target(covered):
    covered["coverage"]["labels"] = coverage.distribution(labels(wanted=None), 10)
    text = words(html.render(covered, {}))
    assert "Offered and achieved shares of labels" in text and "common 80 % 50 %" in text
    assert "Total variation distance of the achieved from the offered: 0.300" in text
    assert "target" not in text[text.index("What the batches cover") : text.index("Concepts, before and after")]


def test_text_that_is_not_seen_or_turns_the_rest_is_taken_out(summary, thumbnails):
    summary["galleries"][0]["items"][0]["caption"] = "abc\u202egpj.exe \x07 tab\there \u2066x 👩\u200d🚀"
    summary["concepts"]["names"][0] = "\u202econcept"
    summary["groups"][0]["group"] = "a\u0000b\nc"
    page = html.render(summary, thumbnails)
    assert not set("\u202e\u2066\x07\x00") & set(page)
    text = words(page)
    assert "👩\u200d🚀" in page  # joiners stay: without them it is two emoji
    assert "a\ufffdb c" in text


def test_long_captions_are_cut(summary, thumbnails):
    summary["galleries"][0]["items"][0]["caption"] = "x" * 240
    page = Tags(html.render(summary, thumbnails))
    assert "x" * 119 + "…" in page.text and "x" * 120 not in page.text


def test_texts_alone_are_shown_as_cards(summary):
    summary |= {"pictured": False}
    page = html.render(summary, {})
    assert "<img" not in page and 'class="frame' not in page and "caption 2" in Tags(page).text


def test_leaves_out_what_there_is_not(summary):
    summary |= {"concepts": None, "groups": [], "funnel": [], "notes": [], "stages": [], "rows_in": 0, "emitted": 0}
    summary |= {"galleries": [], "duplicates": [], "scores": [], "files": []}
    summary["outcomes"] = {"kept": 0, "dropped": 0, "quarantined": 0}
    page = html.render(summary, {})
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Configuration"] and "<img" not in page and "<svg" not in page


def test_settings_can_show_less_than_was_gathered(summary, thumbnails):
    summary["settings"] = {"top_concepts": 3, "gallery_rows": 1}
    text = words(html.render(summary, thumbnails))
    assert "concept 2 1,000" in text and "concept 3 750" not in text
    assert "caption 0" in text and "caption 1" not in text
    summary["settings"]["gallery_rows"] = 0
    assert "Galleries" not in html.render(summary, thumbnails)


def test_galleries_stand_in_the_order_of_the_stages(summary, thumbnails):
    tail = {"outcome": "dropped", "stage": "sample", "reason": "tail", "rows": 27}
    summary["galleries"] = [tail | {"items": summary["galleries"][0]["items"]}, *reversed(summary["galleries"])]
    page = Tags(html.render(summary, thumbnails)).text.replace("\u200b", "")
    at = [page.index(title) for title in ("Kept", "Quarantined: undecodable_image", "Dropped: tail")]
    assert at == sorted(at)


def test_many_groups_and_files_do_not_make_an_endless_page(summary, thumbnails):
    summary["groups"] = [{"group": f"g{i}", "rows": 1, "intended": 0.001, "achieved": 0.001} for i in range(1000)]
    summary["files"] = [{"file": f"f{i}", "reason": "damaged_file", "detail": "d"} for i in range(1000)]
    text = words(html.render(summary, thumbnails))
    assert "940 smaller groups are not shown" in text and "950 more are in quarantine/" in text
