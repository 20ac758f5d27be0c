"""The page in a real browser: it fits a phone, breaks no rule of its own policy, and runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.report import html

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
QUIET = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars"
EVIL = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.nightly,
    pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason=f"{CHROMIUM} or {DRIVER} is missing"),
]


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [360, 1200])
def test_fits_and_runs_nothing(browser, tmp_path, summary, thumbnails, width):
    long = "averyveryverylongwordthatcannotbebroken" * 5
    summary["groups"][0]["group"] = summary["funnel"][1]["stage"] = summary["files"][0]["file"] = EVIL + long
    summary["concepts"]["names"][0] = summary["concepts"]["less"][0]["concept"] = EVIL + long
    for one in summary["galleries"][0]["items"]:
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
    assert pictures == [24] * 6
