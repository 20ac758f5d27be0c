"""The form in the Prefect UI, filled in and submitted by a real browser."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from chromium import MARKS, chromium
from served import HURRY, ask, free_port, manifest, small_parameters

from flows.serving import serving
from storage import manifests

pytestmark = MARKS


@pytest.fixture
def browser(tmp_path):
    with chromium(tmp_path / "profile", "--window-size=1300,1500") as driver:
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


def picture(browser, file: Path) -> None:
    """A screenshot, also for people when MIXWRIGHT_SCREENSHOTS names a folder."""
    time.sleep(1)  # the page fades in
    browser.save_screenshot(str(file))
    if folder := os.environ.get("MIXWRIGHT_SCREENSHOTS"):
        shutil.copy(file, folder)


def test_a_run_started_from_the_form_takes_its_fields_and_completes(browser, tmp_path):
    made = manifest(tmp_path, small_parameters(tmp_path))
    with serving(free_port(), tmp_path / "home", HURRY, manifest=made) as (place, deployment):
        browser.get(f"{place.ui}/")
        find(browser, "//a[normalize-space() = 'Deployments']").click()
        find(browser, f"//a[contains(@href, '{deployment}')]").click()
        find(browser, "//button[normalize-space() = 'Run']").click()
        find(browser, "//*[@role = 'menuitem' and normalize-space() = 'Custom run']").click()
        find(browser, "//button[normalize-space() = 'Submit']")
        assert browser.current_url.startswith(place.run_page(deployment))

        fill(browser, "name", "pressed")
        fill(browser, "batch_size", "8")
        picture(browser, tmp_path / "ui_form.png")
        clicked = time.monotonic()
        find(browser, "//button[normalize-space() = 'Submit']").click()
        find(browser, "//*[self::a or self::button][normalize-space() = 'View run']").click()
        ended = find(browser, "//*[text() = 'Completed' or text() = 'Failed' or text() = 'Crashed']", 120)
        print(f"{ended.text} {time.monotonic() - clicked:.1f} s after the click")
        picture(browser, tmp_path / "ui_run.png")
        assert ended.text == "Completed"

        run = ask(place.api, f"/flow_runs/{browser.current_url.rsplit('/', 1)[1].split('?')[0]}")
        assert run["name"] == "curate-pressed" and run["deployment_id"] == str(deployment)
        assert run["parameters"]["name"] == "pressed" and run["parameters"]["batch_size"] == 8
        assert re.search(r"rows in \d+ batches of 8;", run["state"]["message"])
        assert list(manifests.discrepancies(str(tmp_path / "out" / "pressed"))) == []
