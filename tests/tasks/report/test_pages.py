"""The files of a report, and drawing them again from its own facts."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from storage import files
from tasks.report import pages


def names(mix):
    return sorted(path.name for path in (mix / "report").iterdir())


@pytest.fixture
def mix(tmp_path, summary, thumbnails):
    card = pages.publish(str(tmp_path), summary, thumbnails)
    assert card.startswith("# demo")
    return tmp_path


def test_writes_page_charts_facts_and_pictures(mix, thumbnails):
    charts = ["concepts.png", "funnel.png", "scores.png"]
    assert names(mix) == [charts[0], charts[1], "index.html", "report.json", "scores.png", "thumbnails.parquet"]
    table = pq.read_table(mix / "report" / "thumbnails.parquet").to_pydict()
    assert dict(zip(table["name"], table["picture"])) == thumbnails


def test_coverage_is_written_and_drawn_again(tmp_path, covered, thumbnails):
    card = pages.publish(str(tmp_path), covered, thumbnails)
    assert "coverage.png" in names(tmp_path) and pages.facts(str(tmp_path))["coverage"] == covered["coverage"]
    before = {name: (tmp_path / "report" / name).read_bytes() for name in names(tmp_path)}
    assert pages.draw_again(str(tmp_path), {}) == card and "A batch holds" in card
    assert {name: (tmp_path / "report" / name).read_bytes() for name in names(tmp_path)} == before


def test_drawn_again_it_is_the_same(mix):
    before = {name: (mix / "report" / name).read_bytes() for name in names(mix)}
    assert pages.draw_again(str(mix), {}).startswith("# demo")
    assert {name: (mix / "report" / name).read_bytes() for name in names(mix)} == before


def test_drawn_again_with_other_settings(mix):
    pages.draw_again(str(mix), {"top_concepts": 2, "gallery_rows": 0})
    page = (mix / "report" / "index.html").read_text()
    assert "Galleries" not in page and ">1,500</td>" in page and ">1,000</td>" not in page
    assert pages.facts(str(mix))["settings"] == {"top_concepts": 2, "gallery_rows": 0, "thumbnail_pixels": 128}
    assert (
        pages.draw_again(str(mix), {"top_concepts": 40, "gallery_rows": 12})
        and "Galleries" in (mix / "report" / "index.html").read_text()
    )


def test_nothing_to_draw_from(tmp_path):
    assert pages.facts(str(tmp_path)) == {}
    with pytest.raises(ValueError, match=r"has no report/report.json to draw from; run `mixwright curate`"):
        pages.draw_again(str(tmp_path), {})
    files.write_json(str(tmp_path / "report" / "report.json"), {"name": "of an older version"})
    assert pages.facts(str(tmp_path)) == {}
