"""What the page says and shows of a sampler's values, and of the groups over steps."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
from parsed import EVIL, Tags, words
from valued import over_groups, uds

from tasks.report import html, markdown, pages, svg, valued


@pytest.fixture
def told(tmp_path):
    return uds(tmp_path)


def section(page, name):
    return page[page.index(f'<section id="{name}">') :].split("</section>")[0]


def test_the_page_tells_values_terms_and_rows(summary, told, thumbnails):
    page = html.render(summary | {"utility": told}, thumbnails)
    assert Tags(page).open == [] and page.count('href="#utility"') == 1
    found = section(page, "utility")
    text = words(found)
    terms = told["terms"]
    for expected in (
        "Of every 8 candidates 2 are picked, by the highest total.",
        "candidates, 400 draws picked of them, 100",
        "Utility intra nuclear norm",
        "Diversity inter mean distance",
        "Total total utility + alpha × diversity",
        f"Utility {terms['agree']['intra']}.0 % {terms['correlation']['intra']:.2f} {terms['spread']['intra']:.4g}",
        "Chance 25.0 % 0.00 –",
        "Highest total 12 rows",
        "Lowest total 12 rows",
        f"total {told['rows']['high'][0]['values']['total']:.4g} picked",
        f"total {told['rows']['low'][0]['values']['total']:.4g} not picked",
    ):
        assert expected in text, expected
    assert (
        found.count("<svg") == 4
        and found.count('<polygon class="before"') == found.count('<polygon class="after"') == 3
    )
    assert found.count('class="badge">picked<') == sum(one["picked"] for some in told["rows"].values() for one in some)
    assert "Diversity over steps" in text and "neighbouring" not in text
    assert found.count("<img") == found.count('alt="words ') == 12  # six thumbnails, each row at both ends


def test_fewer_rows_by_the_settings_and_texts_alone(summary, told):
    summary = summary | {"utility": told, "pictured": False, "settings": summary["settings"] | {"gallery_rows": 2}}
    found = section(html.render(summary, {}), "utility")
    assert found.count('<figure class="card"') == 4 and "<img" not in found and 'class="strip words"' in found
    summary["settings"]["gallery_rows"] = 0
    found = section(html.render(summary, {}), "utility")
    assert "Highest total" not in found and "Does alpha matter?" in found


def test_strangers_words_stay_words(summary, told):
    told = copy.deepcopy(told)
    told["rows"]["high"][0] |= {"caption": EVIL, "key": EVIL, "file": EVIL}
    page = html.render(summary | {"utility": told, "sources": over_groups(EVIL)}, {})
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    tags = [tag for tag, _ in Tags(page).tags]
    assert "script" not in tags and not re.search(r'(src|href)="https?:', page)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"alpha": 0.0}, "`alpha` is 0: utility alone decides."),
        ({"alpha": 1e-9}, "With utility alone (`alpha` 0) the same rows would be picked."),
        ({"intra": np.full(400, 5.0)}, "All candidates of a micro-batch have the same utility: diversity decides."),
        ({"inter": np.full(400, 5.0)}, "hardly varies at all beside utility; raise `alpha`."),
        ({"intra": np.full(400, np.nan), "inter": np.full(400, 1.0)}, "No candidate has a finite total."),
        ({"taken": 1}, "Of every 8 candidates 1 is picked, by the highest total."),
    ],
)
def test_headlines_of_what_is_special(tmp_path, changes, line):
    assert line in " ".join(valued.headlines(uds(tmp_path, **changes)))


def test_headlines_name_the_alpha_at_which_both_vary_alike(tmp_path):
    told = uds(tmp_path)
    *_, others, balance = valued.headlines(told)
    picks, agree = told["terms"]["picks"], told["terms"]["agree"]["intra"]
    assert others.startswith(f"{100 * (picks - agree) / picks:.1f} % of the picks are rows that utility alone")
    alpha = float(re.search(r"`alpha` of about ([\d.e+]+) both", balance)[1])
    spread = uds(tmp_path, alpha=alpha)["terms"]["spread"]
    assert spread["inter"] == pytest.approx(spread["intra"], rel=0.1)


def test_samplers_without_terms(summary, told):
    names = {"intra": "loss", "inter": "reference_loss", "total": "excess_loss"}
    told = json.loads(re.sub(r'"(intra|inter|total)"', lambda match: f'"{names[match[1]]}"', json.dumps(told)))
    text = words(
        html.render(summary | {"utility": told | {"kind": "rho_loss", "alpha": None, "terms": None, "over": None}}, {})
    )
    assert "Loss of the reference reference_loss how badly a model trained on held-out data" in text
    assert "by the highest excess loss" in text and "alpha" not in text and "Highest excess loss" in text


def test_values_that_are_missing(tmp_path, summary):
    nothing = np.full(400, np.nan)
    told = uds(tmp_path, intra=nothing, inter=nothing, total=nothing)
    found = section(html.render(summary | {"utility": told}, {}), "utility")
    assert "400 of 400 candidates have no finite utility." in words(found) and "<svg" not in found
    assert "nan" not in found.lower().replace("nanmean", "") and "Does alpha" not in found


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_and_no_picks(tmp_path, summary, steps):
    told = uds(tmp_path, steps=steps, picked=np.zeros(steps * 40, bool))
    found = section(html.render(summary | {"utility": told}, {}), "utility")
    assert "picked of them, 0" in words(found) and "Does alpha" not in found and "of the picked," not in found
    assert found.count("<circle") == (steps == 1)


def test_groups_over_steps(summary):
    found = section(html.render(summary | {"sources": over_groups(EVIL)}, {}), "groups")
    text = words(found)
    assert "Candidates what the sampler could pick from" in text and "Picked what it picked" in text
    assert "web 50.0 % 18.8 % 10.0 %" in text and "3 others 21.7 % 12.5 % 15.4 %" in text
    assert "40 steps; each place" in text
    for name in ("s0", "s1", "rest"):
        assert found.count(f'<polygon class="area {name}"') == 2 and f'<i class="key {name}">' in found
    every = section(
        html.render(summary | {"sources": over_groups(EVIL) | {"picks": over_groups(EVIL)["candidates"]}}, {}), "groups"
    )
    assert every.count("<svg") == 1 and "all draws are emitted" in every and "Picked" not in every


def test_areas_fill_the_frame():
    areas = [("s0", [1, 0, 0]), ("s1", [3, 2, 0])]
    drawing = svg.stacked([0, 2, 3], 4, areas, title="shares")
    low, high = svg.HEIGHT - svg.BOTTOM, svg.TOP
    left, right = svg.LEFT, svg.WIDTH - svg.RIGHT
    found = dict(re.findall(r'<polygon class="area (\w+)" points="([^"]+)"', drawing))
    points = {name: [tuple(map(float, pair.split(","))) for pair in line.split()] for name, line in found.items()}
    middle, three = (left + right) / 2, left + 0.75 * (right - left)
    quarter = low - 0.25 * (low - high)
    top = [(left, quarter), (middle, quarter), (middle, low), (three, low), (three, low), (right, low)]
    for got, wanted in zip(points["s0"][:6], top, strict=True):
        assert got == pytest.approx(wanted, abs=0.06)
    above = [(left, high), (middle, high), (middle, high), (three, high), (three, low), (right, low)]
    for got, wanted in zip(points["s1"][:6], above, strict=True):
        assert got == pytest.approx(wanted, abs=0.06)


def test_older_summaries_and_samplers_that_tell_nothing(summary):
    page = html.render(summary | {"utility": None, "sources": None}, {})
    assert page == html.render(summary, {}) and 'id="utility"' not in page and "Over the steps" not in page
    assert "candidates" not in markdown.card(summary)


def test_the_card_and_the_same_bytes(tmp_path, summary, told, thumbnails):
    summary = summary | {"utility": told, "sources": over_groups(EVIL)}
    assert "Of every 8 candidates 2 are picked, by the highest total. The mean total" in markdown.card(summary)
    first, second = (pages.publish(str(tmp_path / name), summary, thumbnails) for name in ("a", "b"))
    assert first == second
    for one in (tmp_path / "a" / "report").iterdir():
        assert one.read_bytes() == (tmp_path / "b" / "report" / one.name).read_bytes(), one.name
