"""Charts for slides: PNGs that repeat, of any text and any count."""

from __future__ import annotations

import io

import pytest
from accounts import batches, labels
from PIL import Image

from tasks.report import charts, coverage

EVIL = "<script>alert('x')</script>"


@pytest.mark.parametrize("draw", [charts.funnel_png, charts.concepts_png, charts.scores_png])
def test_charts_are_pngs_on_white_and_repeat(summary, draw):
    data = draw(summary)
    assert data == draw(summary)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG" and 900 < image.width < 1000 and image.height > 150
    assert image.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("wanted", [None, (30.0, 30.0, 20.0)])
def test_coverage(covered, steps, wanted):
    told = coverage.thinned([batches(steps, rare=0, iid_rare=0, offered_rare=0)], steps)
    covered["coverage"] = told | {"labels": coverage.distribution(labels(wanted=wanted), 10)}
    image = Image.open(io.BytesIO(charts.coverage_png(covered)))
    assert 900 < image.width < 1000 and image.height == round(150 * (2.4 + 2.8))  # no panel for rare ones
    assert charts.coverage_png(covered) == charts.coverage_png(covered)


@pytest.mark.filterwarnings("error")
def test_charts_draw_any_text_and_any_count(summary):
    names = ["$x_1$ \\frac{", "日本語", "a\nb\x00", "🙂", "é" * 99, "", EVIL]
    curves = {"curve_before": [[1, 10**12], [7, 1]], "curve_after": []}
    summary["concepts"] |= {"names": names, "before": [10**12, 5, 4, 3, 2, 1, 1], "after": [0] * 7, **curves}
    summary["funnel"][0] |= {"stage": "$\\frac{", "kept": 10**12}
    summary["scores"][0] |= {"name": "$\\frac{", "after": [0, 0, 0], "cuts": []}
    for draw in (charts.funnel_png, charts.concepts_png, charts.scores_png):
        draw(summary)


def test_a_chart_of_no_rows(summary):
    for row in summary["funnel"]:
        row |= {"rows_in": 0, "kept": 0, "dropped": 0, "quarantined": 0}
    assert charts.funnel_png(summary)
