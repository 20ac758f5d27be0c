"""The form in the Prefect UI, filled in and submitted by a real browser."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from chromium import MARKS, chromium
from served import HURRY, ask, free_port, manifest, soon

from flows.serving import serving
from storage import manifests

pytestmark = MARKS


@pytest.fixture
def browser(tmp_path):
    with chromium(tmp_path / "profile", "--window-size=1280,900") as driver:
        yield driver


def find(browser, xpath: str, seconds: float = 30):
    """The first visible element that fits, waited for."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def visible(_):
        return next((one for one in browser.find_elements(By.XPATH, xpath) if one.is_displayed()), None)

    wait = WebDriverWait(browser, seconds, ignored_exceptions=[StaleElementReferenceException])
    return wait.until(visible, f"nothing fits {xpath}")


def fill(browser, field: str, text: str) -> None:
    """Write into a field of the form; one that may be empty has a tab for each type, and opens at None."""
    from selenium.webdriver.common.by import By

    box = f"//label[starts-with(., '{field} ') or . = '{field}']/ancestor::*[.//fieldset or .//input or .//textarea][1]"
    find(browser, box)
    for tab in browser.find_elements(By.XPATH, f"{box}//button[@role='tab' and . != 'None']"):
        tab.click()
    entry = find(browser, f"{box}//*[self::input or self::textarea]")
    entry.clear()
    entry.send_keys(text)


def picture(browser, file: Path, height: int) -> None:
    """A screenshot, also for the README when MIXWRIGHT_SCREENSHOTS names a folder: in 128 colours, under 150 kB."""
    from PIL import Image

    browser.set_window_size(1280, height)
    time.sleep(4)  # the page fades in, a graph is drawn
    browser.save_screenshot(str(file))
    with Image.open(file) as shot:
        shot.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < 150_000
    if folder := os.environ.get("MIXWRIGHT_SCREENSHOTS"):
        shutil.copy(file, folder)


def statuses(api: str) -> set[str]:
    """Of all deployments."""
    return {one["status"] for one in ask(api, "/deployments/filter", {})}


def test_a_run_started_from_the_form_takes_its_fields_and_completes(browser, tmp_path):
    """The demo, pressed: `MIXWRIGHT_SCREENSHOTS=docs pytest -m browser tests/flows/test_browser.py` for the README."""
    made = manifest(tmp_path, home=tmp_path)
    with serving(free_port(), tmp_path / "home", HURRY, manifest=made) as (place, deployment):
        assert soon(lambda: statuses(place.api) == {"READY"}, 120)  # the worker has come
        browser.get(f"{place.ui}/")
        find(browser, "//a[normalize-space() = 'Deployments']").click()
        find(browser, f"//a[contains(@href, '{deployment}')]")
        picture(browser, tmp_path / "ui-deployments.png", 780)
        find(browser, f"//a[contains(@href, '{deployment}')]").click()
        find(browser, "//button[normalize-space() = 'Run']").click()
        find(browser, "//*[@role = 'menuitem' and normalize-space() = 'Custom run']").click()
        find(browser, "//button[normalize-space() = 'Submit']")
        assert browser.current_url.startswith(place.run_page(deployment))

        browser.set_window_size(1280, 1160)  # the whole form: filling it scrolls nothing
        fill(browser, "name", "emoji")
        fill(browser, "batch_size", "32")
        picture(browser, tmp_path / "ui-form.png", 1160)
        clicked = time.monotonic()
        find(browser, "//button[normalize-space() = 'Submit']").click()
        find(browser, "//*[self::a or self::button][normalize-space() = 'View run']").click()
        ended = find(browser, "//*[text() = 'Completed' or text() = 'Failed' or text() = 'Crashed']", 900)
        print(f"{ended.text} {time.monotonic() - clicked:.1f} s after the click")
        assert ended.text == "Completed"
        run = ask(place.api, f"/flow_runs/{browser.current_url.rsplit('/', 1)[1].split('?')[0]}")
        assert run["name"] == "curate-emoji" and run["deployment_id"] == str(deployment)
        assert run["parameters"]["name"] == "emoji" and run["parameters"]["batch_size"] == 32
        assert re.search(r"rows in \d+ batches of 32;", run["state"]["message"])
        assert list(manifests.discrepancies(str(tmp_path / "demo" / "mixes" / "emoji"))) == []

        browser.refresh()
        find(browser, "//*[@role = 'tab' and normalize-space() = 'Artifacts']").click()
        find(browser, "//*[normalize-space() = 'mix-card']")
        picture(browser, tmp_path / "ui-run.png", 1400)

        (card,) = ask(place.api, "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["mix-card"]}}})
        browser.get(place.run_page(deployment).split("/deployments/")[0] + f"/artifacts/artifact/{card['latest_id']}")
        find(browser, "//img[starts-with(@src, 'data:image/png')]", 60)
        widths = browser.execute_script("return [...document.images].map(one => one.naturalWidth)")
        assert sum(width > 900 for width in widths) == 3  # funnel, coverage, concepts: drawn, not broken
        picture(browser, tmp_path / "ui-card.png", 2000)
