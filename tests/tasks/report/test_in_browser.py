"""The page in a real browser: it fits a phone, breaks no rule of its own policy, and runs nothing."""

from __future__ import annotations

import pytest
from chromium import MARKS, chromium
from valued import over_groups, uds

from tasks.report import html

EVIL = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">"

pytestmark = MARKS


@pytest.fixture
def browser(tmp_path):
    with chromium(tmp_path / "profile", "--hide-scrollbars") as driver:
        yield driver


@pytest.mark.parametrize("width", [360, 1200])
def test_fits_and_runs_nothing(browser, tmp_path, covered, selects, thumbnails, width):
    summary = covered | selects | {"utility": uds(tmp_path), "sources": over_groups(EVIL)}
    long = "averyveryverylongwordthatcannotbebroken" * 5
    summary["groups"][0]["group"] = summary["funnel"][1]["stage"] = summary["files"][0]["file"] = EVIL + long
    summary["concepts"]["names"][0] = summary["concepts"]["less"][0]["concept"] = EVIL + long
    summary["coverage"]["labels"]["names"][0] = EVIL + long
    summary["selects"][1]["classes"]["shown"][0]["name"] = summary["selects"][1]["met"] = EVIL + long
    examples = [row["examples"] for kind in ("more", "less") for row in summary["concepts"][kind]]
    groups = [one for group in summary["duplicates"] for one in (group["keeper"], *group["members"])]
    for one in (*summary["galleries"][0]["items"], *groups, *(item for items in examples for item in items)):
        one |= {"caption": EVIL + long, "key": long}
    for one in (one for some in summary["utility"]["rows"].values() for one in some):
        one |= {"caption": EVIL + long, "key": long}
    summary["scores"][0]["name"] = summary["name"] = EVIL + long
    page = tmp_path / "index.html"
    page.write_text(html.render(summary, thumbnails))
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{page}")
    layout = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    assert layout["width"] == width and layout["height"] > 2000
    assert browser.title.endswith("mix report") and "owned'" in browser.title  # told, not run
    assert browser.get_log("browser") == []
    pictures = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert pictures == [24] * (3 + 8 * 3 + len(examples) + 12)
